-- One row per base model, recipe, seed, arm, set and precision: its latest pair with the reference.
--
-- The reference is bfloat16, and of a moved adapter the precision at which it was trained; every
-- _diff is the precision minus the reference, paired by case, with a 95 % interval over groups and a
-- verdict at a margin of 0.02, read from reference_metric.
-- The arm (adapter) is that of precision_arm. accuracy follows the argmax, ed_auroc no rule, all
-- other decisions the primary rule; more over-triage and more loss are worse, and loss has no
-- margin. Memory and time are in evaluation_summary: resources says whether they may be compared, by
-- the compute path of both sides.
CREATE OR REPLACE MACRO precision_comparison_of(ids) AS TABLE
WITH paired AS (
    SELECT
        evaluation_id,
        reference_evaluation,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'accuracy') AS accuracy,
        any_value(m) FILTER (rule = 'primary' AND metric = 'macro_f1') AS macro_f1,
        any_value(m) FILTER (rule = 'primary' AND metric = 'ed_recall') AS ed_recall,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'ed_auroc') AS ed_auroc,
        any_value(m) FILTER (rule = 'primary' AND metric = 'ed_f2') AS ed_f2,
        any_value(m) FILTER (rule = 'primary' AND metric = 'over_triage') AS over_triage,
        any_value(m) FILTER (rule = 'argmax' AND metric = 'loss') AS loss
    FROM reference_metric AS m
    GROUP BY ALL
),
latest AS (
    FROM reference_pair
    WHERE ids IS NULL
        OR (
            evaluation_id IN (SELECT unnest(ids::VARCHAR[]))
            AND reference_evaluation IN (SELECT unnest(ids::VARCHAR[]))
        )
    QUALIFY row_number() OVER (
        PARTITION BY
            base_model, recipe, seed, adapter, evaluation_set, set_digest, precision, random_weights
        ORDER BY
            scoring_version DESC,
            least(created_at, reference_created_at) DESC,
            greatest(created_at, reference_created_at) DESC,
            evaluation_id DESC,
            reference_evaluation DESC
    ) = 1
)
SELECT
    p.base_model,
    p.recipe,
    p.seed,
    p.adapter,
    p.evaluation_set,
    p.precision,
    p.reference,
    e.cases,
    one.stored_bytes,
    reference.stored_bytes AS reference_stored_bytes,
    one.stored_bytes / nullif(reference.stored_bytes, 0) AS bytes_ratio,
    one.bits_per_weight,
    reference.bits_per_weight AS reference_bits_per_weight,
    paired.accuracy.value AS accuracy,
    paired.accuracy.reference_value AS reference_accuracy,
    paired.accuracy.difference AS accuracy_diff,
    paired.accuracy.low AS accuracy_low,
    paired.accuracy.high AS accuracy_high,
    paired.accuracy.verdict AS accuracy_verdict,
    paired.macro_f1.value AS macro_f1,
    paired.macro_f1.reference_value AS reference_macro_f1,
    paired.macro_f1.difference AS macro_f1_diff,
    paired.macro_f1.low AS macro_f1_low,
    paired.macro_f1.high AS macro_f1_high,
    paired.macro_f1.verdict AS macro_f1_verdict,
    paired.ed_recall.value AS ed_recall,
    paired.ed_recall.reference_value AS reference_ed_recall,
    paired.ed_recall.difference AS ed_recall_diff,
    paired.ed_recall.low AS ed_recall_low,
    paired.ed_recall.high AS ed_recall_high,
    paired.ed_recall.verdict AS ed_recall_verdict,
    paired.ed_auroc.value AS ed_auroc,
    paired.ed_auroc.reference_value AS reference_ed_auroc,
    paired.ed_auroc.difference AS ed_auroc_diff,
    paired.ed_auroc.low AS ed_auroc_low,
    paired.ed_auroc.high AS ed_auroc_high,
    paired.ed_auroc.verdict AS ed_auroc_verdict,
    paired.ed_f2.value AS ed_f2,
    paired.ed_f2.reference_value AS reference_ed_f2,
    paired.ed_f2.difference AS ed_f2_diff,
    paired.ed_f2.low AS ed_f2_low,
    paired.ed_f2.high AS ed_f2_high,
    paired.ed_f2.verdict AS ed_f2_verdict,
    paired.over_triage.value AS over_triage,
    paired.over_triage.reference_value AS reference_over_triage,
    paired.over_triage.difference AS over_triage_diff,
    paired.over_triage.low AS over_triage_low,
    paired.over_triage.high AS over_triage_high,
    paired.over_triage.verdict AS over_triage_verdict,
    paired.loss.value AS loss,
    paired.loss.reference_value AS reference_loss,
    paired.loss.difference AS loss_diff,
    paired.loss.low AS loss_low,
    paired.loss.high AS loss_high,
    one.compute_path,
    reference.compute_path AS reference_compute_path,
    CASE
        WHEN one.compute_path IS DISTINCT FROM 'packed' OR reference.compute_path IS DISTINCT FROM 'packed'
            THEN 'not measurable on this backend'
        ELSE 'measured'
    END AS resources,
    one.note,
    one.random_weights,
    p.evaluation_id,
    p.reference_evaluation,
    list_filter(o.studies, lambda study: list_contains(r.studies, study)) AS studies,
    o.dataset,
    o.dataset_digest,
    p.set_digest
FROM latest AS p
JOIN precision_arm AS one ON one.evaluation_id = p.evaluation_id AND one.adapter = p.adapter
JOIN precision_arm AS reference
    ON reference.evaluation_id = p.reference_evaluation AND reference.adapter = p.adapter
JOIN evaluation AS e ON e.evaluation_id = p.evaluation_id
JOIN evaluation_origin AS o ON o.evaluation_id = p.evaluation_id
JOIN evaluation_origin AS r ON r.evaluation_id = p.reference_evaluation
LEFT JOIN paired
    ON paired.evaluation_id = p.evaluation_id AND paired.reference_evaluation = p.reference_evaluation
ORDER BY p.base_model, p.recipe, p.seed, p.adapter, p.evaluation_set, p.set_digest, one.stored_bytes DESC;

CREATE OR REPLACE VIEW precision_comparison AS FROM precision_comparison_of(NULL);

COMMENT ON COLUMN precision_comparison.bytes_ratio IS 'bytes of the precision divided by those of the reference';
COMMENT ON COLUMN precision_comparison.macro_f1 IS 'mean of the F1 of the classes that the set has cases of (0 to 1)';
COMMENT ON COLUMN precision_comparison.ed_auroc IS 'AUROC (0 to 1) of ED against the rest, which no threshold changes';
COMMENT ON COLUMN precision_comparison.loss IS 'mean negative log-likelihood for each completion token, in nats';
COMMENT ON COLUMN precision_comparison.resources IS 'whether memory and time of both sides may be compared: both were measured on packed weights';
COMMENT ON COLUMN precision_comparison.note IS 'what cannot follow from weights that were quantised before they were fetched';
