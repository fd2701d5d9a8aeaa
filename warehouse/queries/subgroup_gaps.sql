-- How far apart are the best and the worst subgroup in ED recall?
-- $least INTEGER = 10: fewest emergencies of a subgroup
SELECT
    base_model,
    precision,
    recipe,
    seed,
    field,
    max(value) - min(value) AS gap,
    arg_min(subgroup, value) AS worst,
    min(value) AS worst_value,
    arg_min(n, value) AS worst_cases,
    arg_max(subgroup, value) AS best,
    max(value) AS best_value
FROM subgroup_metric
JOIN leaderboard USING (evaluation_id)
WHERE metric = 'ed_recall' AND value IS NOT NULL AND n >= $least
GROUP BY base_model, precision, recipe, seed, evaluation_id, field
HAVING count(*) > 1
ORDER BY gap DESC, base_model, precision, recipe, seed, field;
