-- What are the figures of a subgroup, beside those of the whole set?
-- $subgroup TEXT = NULL: one value of a field, e.g. child; NULL: all
-- $metric TEXT = NULL: one metric, e.g. ed_auroc; NULL: all
SELECT
    base_model,
    precision,
    recipe,
    seed,
    field,
    subgroup,
    part.metric,
    part.value,
    part.low,
    part.high,
    part.n,
    whole.value AS whole_set,
    part.value - whole.value AS gap,
    part.note,
    part.evaluation_id
FROM subgroup_metric AS part
JOIN leaderboard USING (evaluation_id)
-- Metrics of p(ED) follow no rule, and stand under the argmax.
LEFT JOIN metric AS whole
    ON whole.evaluation_id = part.evaluation_id
    AND whole.metric = part.metric
    AND whole.rule = CASE
        WHEN part.metric IN (
            'ed_auroc', 'ed_average_precision', 'ed_calibration_slope', 'ed_calibration_intercept'
        ) THEN 'argmax'
        ELSE leaderboard.primary_rule
    END
WHERE subgroup = coalesce($subgroup, subgroup) AND part.metric = coalesce($metric, part.metric)
ORDER BY base_model, precision, recipe, seed, field, subgroup, part.metric;
