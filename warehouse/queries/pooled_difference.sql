-- What do the seeds of each recipe say about 4 against 8 bits?
-- $metric TEXT = NULL: only this metric, e.g. ed_recall
SELECT
    dataset,
    evaluation_set,
    base_model,
    recipe,
    qualifies,
    rule,
    metric,
    seeds,
    value_4bit,
    value_8bit,
    difference,
    low,
    high,
    verdict,
    more_seeds,
    more_groups,
    holm_p
FROM quantization_summary
WHERE coalesce(metric = $metric, true)
ORDER BY set_digest, evaluation_set, base_model, recipe, seed_group, rule, metric;
