-- What do conformal sets miss, and how often do they abstain?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    miss_rate,
    ed_miss_rate,
    miss_low,
    miss_high,
    abstain_rate,
    mean_set_size,
    error_decided,
    note
FROM conformal
JOIN leaderboard USING (evaluation_id)
ORDER BY abstain_rate NULLS LAST, base_model, precision, recipe, seed;
