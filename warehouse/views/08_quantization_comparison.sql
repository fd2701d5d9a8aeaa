-- One row per 4-bit/8-bit pair of matched_pair: of each test set, base model, recipe, seed and backend the latest.
--
-- Every _diff is 4 bits minus 8 bits, paired by case.
-- Accuracy, ED figures, macro F1, over-triage and loss are computed from predictions. _low and
-- _high are 95 % intervals over groups, which leave out chance in training, and the verdicts say
-- where they lie at a margin of 0.02; both are read from pair_metric. Accuracy and _argmax columns
-- follow the argmax, all other decisions the primary rule. Memory and time are given only where
-- quantised kernels did the work, since dequantised weights make both sides equal by construction;
-- time also needs both sides on one machine.
CREATE OR REPLACE MACRO quantization_comparison_of(ids) AS TABLE
WITH paired AS (
    SELECT
        evaluation_4bit,
        evaluation_8bit,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'accuracy') AS accuracy,
        any_value(m) FILTER (rule = 'primary' AND metric = 'ed_recall') AS ed_recall,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'ed_recall') AS ed_recall_argmax,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'ed_auroc') AS ed_auroc,
        any_value(m) FILTER (rule = 'primary' AND metric = 'ed_f2') AS ed_f2,
        any_value(m) FILTER (rule = 'primary' AND metric = 'macro_f1') AS macro_f1
    FROM pair_metric AS m
    GROUP BY ALL
),
side AS (
    SELECT
        e.evaluation_id,
        e.verdict,
        e.primary_rule,
        e.cost_matrix,
        e.created_at,
        x.weights_source,
        x.source_digest,
        x.original_precision,
        x.random_weights,
        x.settings_digest,
        x.machine,
        x.stored_bytes,
        x.bits_per_weight,
        x.weights_memory_bytes,
        x.peak_memory_bytes,
        x.train_seconds,
        x.tokens_per_second,
        x.compute_path IS NOT DISTINCT FROM 'packed' AS is_packed,
        d.target,
        by_argmax.cases,
        by_argmax.ed_cases,
        by_argmax.accuracy,
        by_argmax.loss,
        by_argmax.ed_recall AS ed_recall_argmax,
        by_primary.ed_recall,
        by_primary.ed_f2,
        by_primary.macro_f1,
        by_primary.over_triage
    FROM evaluation AS e
    JOIN experiment AS x USING (training_id)
    JOIN prediction_figures AS by_argmax
        ON by_argmax.evaluation_id = e.evaluation_id AND by_argmax.rule = 'argmax'
    LEFT JOIN prediction_figures AS by_primary
        ON by_primary.evaluation_id = e.evaluation_id AND by_primary.rule = 'primary'
    LEFT JOIN decision_rule AS d ON d.evaluation_id = e.evaluation_id AND d.rule = 'target_recall'
    WHERE e.evaluation_set = 'test'
)
SELECT
    p.base_model,
    p.recipe,
    p.seed,
    four.cases,
    four.ed_cases,
    four.stored_bytes AS stored_bytes_4bit,
    eight.stored_bytes AS stored_bytes_8bit,
    four.stored_bytes / nullif(eight.stored_bytes, 0) AS bytes_ratio,
    four.stored_bytes - eight.stored_bytes AS stored_bytes_diff,
    four.bits_per_weight AS bits_per_weight_4bit,
    eight.bits_per_weight AS bits_per_weight_8bit,
    four.accuracy AS accuracy_4bit,
    eight.accuracy AS accuracy_8bit,
    four.accuracy - eight.accuracy AS accuracy_diff,
    paired.accuracy.low AS accuracy_low,
    paired.accuracy.high AS accuracy_high,
    paired.accuracy.verdict AS accuracy_verdict,
    paired.accuracy.b AS right_at_4bit_only,
    paired.accuracy.c AS right_at_8bit_only,
    paired.accuracy.mcnemar_p AS accuracy_mcnemar_p,
    four.ed_recall AS ed_recall_4bit,
    eight.ed_recall AS ed_recall_8bit,
    four.ed_recall - eight.ed_recall AS ed_recall_diff,
    paired.ed_recall.low AS ed_recall_low,
    paired.ed_recall.high AS ed_recall_high,
    paired.ed_recall.verdict AS ed_recall_verdict,
    paired.ed_recall.b AS ed_caught_at_4bit_only,
    paired.ed_recall.c AS ed_caught_at_8bit_only,
    four.ed_recall_argmax AS ed_recall_argmax_4bit,
    eight.ed_recall_argmax AS ed_recall_argmax_8bit,
    four.ed_recall_argmax - eight.ed_recall_argmax AS ed_recall_argmax_diff,
    paired.ed_recall_argmax.low AS ed_recall_argmax_low,
    paired.ed_recall_argmax.high AS ed_recall_argmax_high,
    paired.ed_auroc.value_4bit AS ed_auroc_4bit,
    paired.ed_auroc.value_8bit AS ed_auroc_8bit,
    paired.ed_auroc.difference AS ed_auroc_diff,
    paired.ed_auroc.low AS ed_auroc_low,
    paired.ed_auroc.high AS ed_auroc_high,
    paired.ed_auroc.verdict AS ed_auroc_verdict,
    four.ed_f2 AS ed_f2_4bit,
    eight.ed_f2 AS ed_f2_8bit,
    four.ed_f2 - eight.ed_f2 AS ed_f2_diff,
    paired.ed_f2.low AS ed_f2_low,
    paired.ed_f2.high AS ed_f2_high,
    four.macro_f1 AS macro_f1_4bit,
    eight.macro_f1 AS macro_f1_8bit,
    four.macro_f1 - eight.macro_f1 AS macro_f1_diff,
    paired.macro_f1.low AS macro_f1_low,
    paired.macro_f1.high AS macro_f1_high,
    four.over_triage AS over_triage_4bit,
    eight.over_triage AS over_triage_8bit,
    four.over_triage - eight.over_triage AS over_triage_diff,
    four.loss AS loss_4bit,
    eight.loss AS loss_8bit,
    four.loss - eight.loss AS loss_diff,
    four.verdict AS verdict_4bit,
    eight.verdict AS verdict_8bit,
    CASE WHEN both_packed THEN four.weights_memory_bytes END AS weights_memory_bytes_4bit,
    CASE WHEN both_packed THEN eight.weights_memory_bytes END AS weights_memory_bytes_8bit,
    CASE WHEN both_packed THEN four.peak_memory_bytes END AS peak_memory_bytes_4bit,
    CASE WHEN both_packed THEN eight.peak_memory_bytes END AS peak_memory_bytes_8bit,
    CASE WHEN both_packed AND one_machine THEN four.train_seconds END AS train_seconds_4bit,
    CASE WHEN both_packed AND one_machine THEN eight.train_seconds END AS train_seconds_8bit,
    CASE WHEN both_packed AND one_machine THEN four.tokens_per_second END AS tokens_per_second_4bit,
    CASE WHEN both_packed AND one_machine THEN eight.tokens_per_second END AS tokens_per_second_8bit,
    CASE
        WHEN NOT both_packed THEN 'not measurable on this backend'
        WHEN NOT one_machine THEN 'memory measured; time not comparable between machines'
        ELSE 'measured'
    END AS resources,
    four.weights_source,
    four.source_digest,
    four.original_precision,
    four.random_weights,
    four.settings_digest,
    four.primary_rule,
    four.target AS target_ed_recall,
    four.cost_matrix,
    p.dataset_digest,
    p.set_digest,
    p.evaluation_4bit,
    p.evaluation_8bit,
    p.studies,
    p.dataset
FROM matched_pair_of(ids) AS p
JOIN side AS four ON four.evaluation_id = p.evaluation_4bit
JOIN side AS eight ON eight.evaluation_id = p.evaluation_8bit
LEFT JOIN paired
    ON paired.evaluation_4bit = p.evaluation_4bit AND paired.evaluation_8bit = p.evaluation_8bit
CROSS JOIN LATERAL (
    SELECT
        four.is_packed AND eight.is_packed AS both_packed,
        four.machine IS NOT DISTINCT FROM eight.machine AS one_machine
) AS judged
ORDER BY
    max(four.created_at) OVER (PARTITION BY p.set_digest) DESC, p.base_model, p.recipe, p.seed;

CREATE OR REPLACE VIEW quantization_comparison AS FROM quantization_comparison_of(NULL);

COMMENT ON COLUMN quantization_comparison.stored_bytes_4bit IS 'bytes of the 4-bit weights on the disk';
COMMENT ON COLUMN quantization_comparison.bytes_ratio IS 'stored_bytes_4bit / stored_bytes_8bit';
COMMENT ON COLUMN quantization_comparison.stored_bytes_diff IS 'stored_bytes_4bit - stored_bytes_8bit';
COMMENT ON COLUMN quantization_comparison.bits_per_weight_4bit IS 'stored bits for each parameter at 4 bits';
COMMENT ON COLUMN quantization_comparison.accuracy_4bit IS 'share (0 to 1) of right labels by argmax at 4 bits';
COMMENT ON COLUMN quantization_comparison.right_at_4bit_only IS 'cases that only the 4-bit model''s argmax gets right';
COMMENT ON COLUMN quantization_comparison.right_at_8bit_only IS 'cases that only the 8-bit model''s argmax gets right';
COMMENT ON COLUMN quantization_comparison.accuracy_mcnemar_p IS 'p value of the exact two-sided McNemar test of the accuracy';
COMMENT ON COLUMN quantization_comparison.ed_recall_4bit IS 'ED recall (0 to 1) by the primary rule at 4 bits';
COMMENT ON COLUMN quantization_comparison.ed_caught_at_4bit_only IS 'emergencies that only the 4-bit model catches, by the primary rule';
COMMENT ON COLUMN quantization_comparison.ed_caught_at_8bit_only IS 'emergencies that only the 8-bit model catches, by the primary rule';
COMMENT ON COLUMN quantization_comparison.ed_recall_argmax_4bit IS 'ED recall (0 to 1) by argmax at 4 bits';
COMMENT ON COLUMN quantization_comparison.ed_auroc_4bit IS 'AUROC (0 to 1) of ED against the rest at 4 bits, which no threshold changes';
COMMENT ON COLUMN quantization_comparison.ed_f2_4bit IS 'F2 of ED (0 to 1) by the primary rule at 4 bits';
COMMENT ON COLUMN quantization_comparison.macro_f1_4bit IS 'macro F1 (0 to 1) by the primary rule at 4 bits';
COMMENT ON COLUMN quantization_comparison.over_triage_4bit IS 'share (0 to 1) of cases decided more urgent than their label at 4 bits';
COMMENT ON COLUMN quantization_comparison.loss_4bit IS 'mean negative log-likelihood for each completion token at 4 bits, in nats';
COMMENT ON COLUMN quantization_comparison.verdict_4bit IS 'passes_gates, provisional or unsafe: what the gates say at 4 bits';
COMMENT ON COLUMN quantization_comparison.weights_memory_bytes_4bit IS 'bytes of the 4-bit weights in memory; NULL where resources are not measured';
COMMENT ON COLUMN quantization_comparison.peak_memory_bytes_4bit IS 'largest number of bytes that MLX held at once at 4 bits; NULL where not measured';
COMMENT ON COLUMN quantization_comparison.train_seconds_4bit IS 'seconds of the 4-bit training; NULL where not comparable';
COMMENT ON COLUMN quantization_comparison.tokens_per_second_4bit IS 'tokens a second of the 4-bit training; NULL where not comparable';
COMMENT ON COLUMN quantization_comparison.resources IS '''measured'', or why memory and time are not comparable';
