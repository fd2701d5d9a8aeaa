-- From which risk on is it better to send by p(ED) than to send everybody, or nobody, to ED?
-- 0 rows: an earlier version judged these evaluations; the same sweep judges stored scores again and trains nothing
SELECT
    base_model,
    precision,
    recipe,
    seed,
    threshold,
    net_benefit,
    low,
    high,
    always_ed,
    over_always_ed,
    over_always_ed_low,
    over_always_ed_high,
    CASE
        WHEN low > 0 AND over_always_ed_low > 0 THEN 'better than both'
        WHEN high < 0 THEN 'worse than nobody'
        WHEN over_always_ed_high < 0 THEN 'worse than everybody'
        ELSE 'cannot tell'
    END AS verdict,
    evaluation_id
FROM net_benefit
JOIN leaderboard USING (evaluation_id)
ORDER BY base_model, precision, recipe, seed, threshold;
