-- One row per evaluation of a completed training: its settings, results and resources.
--
-- An evaluation whose scores were judged again is left out, and one that is sealed. The results are those of the primary
-- rule, but accuracy is that of the argmax. Memory and time are those of this training on its
-- machine; quantization_comparison compares 4 with 8 bits. The precision 'unpacked Q4_1' is bfloat16
-- of weights that were quantised before they were fetched. dataset_digest is that of the judged
-- cases, which the training need not name. The table macro evaluation_summary_of(ids) shows these
-- evaluations alone.
CREATE OR REPLACE MACRO evaluation_summary_of(ids) AS TABLE
WITH primary_metric AS (
    SELECT metric.*
    FROM metric
    JOIN evaluation
        ON evaluation.evaluation_id = metric.evaluation_id
        AND evaluation.primary_rule = metric.rule
),
wide AS (
    SELECT
        evaluation_id,
        any_value(value) FILTER (metric = 'macro_f1') AS macro_f1,
        any_value(value) FILTER (metric = 'ed_recall') AS ed_recall,
        any_value(low) FILTER (metric = 'ed_recall') AS ed_recall_low,
        any_value(high) FILTER (metric = 'ed_recall') AS ed_recall_high,
        any_value(value) FILTER (metric = 'ed_precision') AS ed_precision,
        any_value(low) FILTER (metric = 'ed_precision') AS ed_precision_low,
        any_value(high) FILTER (metric = 'ed_precision') AS ed_precision_high,
        any_value(value) FILTER (metric = 'ed_f2') AS ed_f2,
        any_value(low) FILTER (metric = 'ed_f2') AS ed_f2_low,
        any_value(high) FILTER (metric = 'ed_f2') AS ed_f2_high,
        any_value(value) FILTER (metric = 'over_triage') AS over_triage,
        any_value(low) FILTER (metric = 'over_triage') AS over_triage_low,
        any_value(high) FILTER (metric = 'over_triage') AS over_triage_high,
        any_value(value) FILTER (metric = 'under_triage') AS under_triage,
        any_value(low) FILTER (metric = 'under_triage') AS under_triage_low,
        any_value(high) FILTER (metric = 'under_triage') AS under_triage_high
    FROM primary_metric
    GROUP BY evaluation_id
)
SELECT
    x.base_model,
    x.bits,
    CASE
        WHEN x.precision = 'bf16' AND regexp_matches(x.original_precision, 'Q\d')
            THEN 'unpacked ' || x.original_precision
        ELSE x.precision
    END AS precision,
    x.recipe,
    x.recipe_kind,
    x.seed,
    e.verdict,
    e.evaluation_set,
    e.cases,
    e.ed_prevalence,
    e.primary_rule,
    d.target AS target_ed_recall,
    e.cost_matrix,
    e.scoring_version,
    e.accuracy,
    a.low AS accuracy_low,
    a.high AS accuracy_high,
    wide.* EXCLUDE (evaluation_id),
    x.train_loss,
    x.valid_loss,
    e.loss AS test_loss,
    e.perplexity,
    e.mc_status,
    x.train_seconds,
    x.tokens_per_second,
    x.weights_memory_bytes,
    x.peak_memory_bytes,
    x.cache_memory_bytes,
    x.peak_rss_bytes,
    x.stored_bytes,
    x.compute_path,
    x.weights_source,
    x.source_digest,
    x.original_precision,
    x.random_weights,
    x.settings_digest,
    x.source_training_id,
    CASE WHEN x.source_training_id IS NOT NULL THEN coalesce(x.moved_rules, 'kept') END AS moved_rules,
    o.dataset_digest,
    e.set_digest,
    x.cell_id,
    x.training_id,
    e.evaluation_id,
    x.finished_at,
    e.created_at,
    o.studies,
    o.dataset
FROM evaluation AS e
ANTI JOIN judged_again ON judged_again.evaluation_id = e.evaluation_id
ANTI JOIN sealed_evaluation ON sealed_evaluation.evaluation_id = e.evaluation_id
JOIN experiment AS x ON x.training_id = e.training_id AND x.status = 'completed'
LEFT JOIN evaluation_origin AS o ON o.evaluation_id = e.evaluation_id
LEFT JOIN wide ON wide.evaluation_id = e.evaluation_id
-- The target is the evaluation's, since one training may be judged at several.
LEFT JOIN decision_rule AS d ON d.evaluation_id = e.evaluation_id AND d.rule = 'target_recall'
LEFT JOIN metric AS a
    ON a.evaluation_id = e.evaluation_id AND a.rule = 'argmax' AND a.metric = 'accuracy'
WHERE ids IS NULL OR e.evaluation_id IN (SELECT unnest(ids::VARCHAR[]));

CREATE OR REPLACE VIEW evaluation_summary AS FROM evaluation_summary_of(NULL);

COMMENT ON COLUMN evaluation_summary.macro_f1 IS 'mean of the F1 of the classes that the set has cases of (0 to 1)';
COMMENT ON COLUMN evaluation_summary.moved_rules IS 'of a moved adapter: whether its threshold and scaling were kept, or chosen_again on calibration at this precision';
COMMENT ON COLUMN evaluation_summary.test_loss IS 'mean negative log-likelihood for each completion token on the judged cases, in nats';
