-- What do all trained pairs together say about 4 against 8 bits?
-- $base_model TEXT = all: one base model, or all of them together
-- $metric TEXT = NULL: only this metric, e.g. ed_recall
SELECT
    dataset,
    evaluation_set,
    base_model,
    rule,
    metric,
    pairs,
    pairs_left_out,
    value_4bit,
    value_8bit,
    difference,
    low,
    high,
    p_value,
    verdict,
    seed_sd,
    seed_low,
    seed_high
FROM quantization_summary
WHERE base_model = $base_model AND coalesce(metric = $metric, true)
ORDER BY set_digest, evaluation_set, rule, metric;
