-- One row per test set, base model, recipe and seed: its latest 4-bit/8-bit pair.
--
-- The pairs are those of matched_pair. Every _diff is 4 bits minus 8 bits, paired by case.
-- Accuracy, ED figures, macro F1, over-triage and loss are computed from predictions. _low and
-- _high are 95 % intervals, and the verdicts state non-inferiority at a margin of 0.02; both are
-- read from pair_metric. Where the accuracy interval of neither model is above the accuracy of the
-- best constant answer, similarity proves nothing, and both verdicts say so; 'inferior' stays.
-- Accuracy and _argmax columns follow the argmax, all other decisions the primary rule. Memory and
-- time are given only where quantised kernels did the work, since dequantised weights make both
-- sides equal by construction; time also needs both sides on one machine.
CREATE OR REPLACE MACRO quantization_comparison_of(ids) AS TABLE
WITH interval AS (
    SELECT
        evaluation_4bit,
        evaluation_8bit,
        rule || ' ' || metric AS figure,
        low,
        high,
        verdict,
        b,
        c,
        mcnemar_p
    FROM pair_metric
),
paired AS (
    SELECT
        evaluation_4bit,
        evaluation_8bit,
        any_value(low) FILTER (figure = 'argmax accuracy') AS accuracy_low,
        any_value(high) FILTER (figure = 'argmax accuracy') AS accuracy_high,
        any_value(verdict) FILTER (figure = 'argmax accuracy') AS accuracy_verdict,
        any_value(b) FILTER (figure = 'argmax accuracy') AS right_at_4bit_only,
        any_value(c) FILTER (figure = 'argmax accuracy') AS right_at_8bit_only,
        any_value(mcnemar_p) FILTER (figure = 'argmax accuracy') AS accuracy_mcnemar_p,
        any_value(low) FILTER (figure = 'primary ed_recall') AS ed_recall_low,
        any_value(high) FILTER (figure = 'primary ed_recall') AS ed_recall_high,
        any_value(verdict) FILTER (figure = 'primary ed_recall') AS ed_recall_verdict,
        any_value(b) FILTER (figure = 'primary ed_recall') AS ed_caught_at_4bit_only,
        any_value(c) FILTER (figure = 'primary ed_recall') AS ed_caught_at_8bit_only,
        any_value(low) FILTER (figure = 'argmax ed_recall') AS ed_recall_argmax_low,
        any_value(high) FILTER (figure = 'argmax ed_recall') AS ed_recall_argmax_high,
        any_value(low) FILTER (figure = 'primary ed_f2') AS ed_f2_low,
        any_value(high) FILTER (figure = 'primary ed_f2') AS ed_f2_high,
        any_value(low) FILTER (figure = 'primary macro_f1') AS macro_f1_low,
        any_value(high) FILTER (figure = 'primary macro_f1') AS macro_f1_high
    FROM interval
    GROUP BY ALL
),
resource AS (
    SELECT
        training_id,
        machine,
        stored_bytes,
        bits_per_weight,
        compute_path IS NOT DISTINCT FROM 'packed' AS measurable,
        {
            peak_memory_bytes: peak_memory_bytes, weights_memory_bytes: weights_memory_bytes,
            train_seconds: train_seconds, tokens_per_second: tokens_per_second
        } AS used
    FROM experiment
)
SELECT
    p.base_model,
    p.recipe,
    p.seed,
    a4.cases,
    a4.ed_cases,
    r4.stored_bytes AS stored_bytes_4bit,
    r8.stored_bytes AS stored_bytes_8bit,
    r4.stored_bytes / nullif(r8.stored_bytes, 0) AS bytes_ratio,
    r4.stored_bytes - r8.stored_bytes AS stored_bytes_diff,
    r4.bits_per_weight AS bits_per_weight_4bit,
    r8.bits_per_weight AS bits_per_weight_8bit,
    a4.accuracy AS accuracy_4bit,
    a8.accuracy AS accuracy_8bit,
    a4.accuracy - a8.accuracy AS accuracy_diff,
    accuracy_low,
    accuracy_high,
    CASE
        WHEN accuracy_verdict <> 'inferior' THEN coalesce(uninformed, accuracy_verdict)
        ELSE accuracy_verdict
    END AS accuracy_verdict,
    right_at_4bit_only,
    right_at_8bit_only,
    accuracy_mcnemar_p,
    f4.ed_recall AS ed_recall_4bit,
    f8.ed_recall AS ed_recall_8bit,
    f4.ed_recall - f8.ed_recall AS ed_recall_diff,
    ed_recall_low,
    ed_recall_high,
    CASE
        WHEN ed_recall_verdict <> 'inferior' THEN coalesce(uninformed, ed_recall_verdict)
        ELSE ed_recall_verdict
    END AS ed_recall_verdict,
    ed_caught_at_4bit_only,
    ed_caught_at_8bit_only,
    a4.ed_recall AS ed_recall_argmax_4bit,
    a8.ed_recall AS ed_recall_argmax_8bit,
    a4.ed_recall - a8.ed_recall AS ed_recall_argmax_diff,
    ed_recall_argmax_low,
    ed_recall_argmax_high,
    f4.ed_f2 AS ed_f2_4bit,
    f8.ed_f2 AS ed_f2_8bit,
    f4.ed_f2 - f8.ed_f2 AS ed_f2_diff,
    ed_f2_low,
    ed_f2_high,
    f4.macro_f1 AS macro_f1_4bit,
    f8.macro_f1 AS macro_f1_8bit,
    f4.macro_f1 - f8.macro_f1 AS macro_f1_diff,
    macro_f1_low,
    macro_f1_high,
    f4.over_triage AS over_triage_4bit,
    f8.over_triage AS over_triage_8bit,
    f4.over_triage - f8.over_triage AS over_triage_diff,
    a4.loss AS loss_4bit,
    a8.loss AS loss_8bit,
    a4.loss - a8.loss AS loss_diff,
    e4.verdict AS verdict_4bit,
    e8.verdict AS verdict_8bit,
    CASE WHEN both_packed THEN r4.used.weights_memory_bytes END AS weights_memory_bytes_4bit,
    CASE WHEN both_packed THEN r8.used.weights_memory_bytes END AS weights_memory_bytes_8bit,
    CASE WHEN both_packed THEN r4.used.peak_memory_bytes END AS peak_memory_bytes_4bit,
    CASE WHEN both_packed THEN r8.used.peak_memory_bytes END AS peak_memory_bytes_8bit,
    CASE WHEN both_packed AND one_machine THEN r4.used.train_seconds END AS train_seconds_4bit,
    CASE WHEN both_packed AND one_machine THEN r8.used.train_seconds END AS train_seconds_8bit,
    CASE
        WHEN both_packed AND one_machine THEN r4.used.tokens_per_second
    END AS tokens_per_second_4bit,
    CASE
        WHEN both_packed AND one_machine THEN r8.used.tokens_per_second
    END AS tokens_per_second_8bit,
    CASE
        WHEN NOT both_packed THEN 'not measurable on this backend'
        WHEN NOT one_machine THEN 'memory measured; time not comparable between machines'
        ELSE 'measured'
    END AS resources,
    x.weights_source,
    x.source_digest,
    x.original_precision,
    x.random_weights,
    x.settings_digest,
    e4.primary_rule,
    d.target AS target_ed_recall,
    e4.cost_matrix,
    p.dataset_digest,
    p.set_digest,
    p.evaluation_4bit,
    p.evaluation_8bit,
    p.studies,
    p.dataset
FROM matched_pair_of(ids) AS p
JOIN evaluation AS e4 ON e4.evaluation_id = p.evaluation_4bit
JOIN evaluation AS e8 ON e8.evaluation_id = p.evaluation_8bit
JOIN experiment AS x ON x.training_id = p.training_4bit
LEFT JOIN decision_rule AS d ON d.evaluation_id = p.evaluation_4bit AND d.rule = 'target_recall'
LEFT JOIN prediction_figures AS f4 ON f4.evaluation_id = p.evaluation_4bit AND f4.rule = 'primary'
LEFT JOIN prediction_figures AS f8 ON f8.evaluation_id = p.evaluation_8bit AND f8.rule = 'primary'
JOIN prediction_figures AS a4 ON a4.evaluation_id = p.evaluation_4bit AND a4.rule = 'argmax'
JOIN prediction_figures AS a8 ON a8.evaluation_id = p.evaluation_8bit AND a8.rule = 'argmax'
JOIN resource AS r4 ON r4.training_id = p.training_4bit
JOIN resource AS r8 ON r8.training_id = p.training_8bit
CROSS JOIN LATERAL (
    SELECT
        r4.measurable AND r8.measurable AS both_packed,
        r4.machine IS NOT DISTINCT FROM r8.machine AS one_machine
) AS comparable
LEFT JOIN informed AS i4 ON i4.evaluation_id = p.evaluation_4bit
LEFT JOIN informed AS i8 ON i8.evaluation_id = p.evaluation_8bit
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN NOT coalesce(i4.beats_constant, false)
                AND NOT coalesce(i8.beats_constant, false)
                THEN 'cannot conclude: neither model beats always-' || i4.answer
        END AS uninformed
) AS judged
LEFT JOIN paired
    ON paired.evaluation_4bit = p.evaluation_4bit AND paired.evaluation_8bit = p.evaluation_8bit
WHERE p.evaluation_set = 'test'
ORDER BY max(e4.created_at) OVER (PARTITION BY p.set_digest) DESC, p.base_model, p.recipe, p.seed;

CREATE OR REPLACE VIEW quantization_comparison AS FROM quantization_comparison_of(NULL);
