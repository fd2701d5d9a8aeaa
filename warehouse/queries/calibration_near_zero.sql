-- Where the model says "hardly an emergency", how many are emergencies?
-- $below DOUBLE = 0.05: bins up to this p(ED)
SELECT
    base_model,
    precision,
    recipe,
    seed,
    low,
    high,
    n,
    mean_p_ed,
    reliability.ed_share,
    share_low,
    share_high,
    CASE
        WHEN share_low > mean_p_ed THEN 'too sure that it is none'
        WHEN share_high < mean_p_ed THEN 'too unsure'
        ELSE 'agrees'
    END AS calibration,
    evaluation_id
FROM reliability
JOIN leaderboard USING (evaluation_id)
WHERE high <= $below AND n > 0
ORDER BY base_model, precision, recipe, seed, low;
