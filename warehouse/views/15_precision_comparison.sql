-- One row per base model, recipe, seed, arm, set and precision: its latest pair with the reference.
--
-- The reference is bfloat16; every _diff is the precision minus the reference, paired by case, with
-- a 95 % interval and a verdict on non-inferiority at a margin of 0.02, read from reference_metric.
-- The arm (adapter) is that of precision_arm. accuracy follows the argmax, all other decisions the
-- primary rule; more over-triage and more loss are worse, and loss has no margin. Where the accuracy
-- interval of neither model is above the accuracy of the best constant answer, similarity proves
-- nothing, and the verdicts say so; 'inferior' stays. Memory and time are in evaluation_summary:
-- resources says whether they may be compared, by the compute path of both sides.
CREATE OR REPLACE VIEW precision_comparison AS
WITH figures AS (
    SELECT *, metric || ' ' || rule AS figure FROM reference_metric
),
paired AS (
    SELECT
        evaluation_id,
        reference_evaluation,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'accuracy argmax') AS accuracy,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'macro_f1 primary') AS macro_f1,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'ed_recall primary') AS ed_recall,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'ed_f2 primary') AS ed_f2,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'over_triage primary') AS over_triage,
        any_value({
            value: value, reference: reference_value, diff: difference, low: low, high: high, verdict: verdict
        }) FILTER (figure = 'loss argmax') AS loss
    FROM figures
    GROUP BY evaluation_id, reference_evaluation
),
informed AS (
    SELECT c.evaluation_id, c.answer, a.low > c.accuracy AS beats_constant
    FROM best_constant AS c
    JOIN metric AS a
        ON a.evaluation_id = c.evaluation_id AND a.rule = 'argmax' AND a.metric = 'accuracy'
),
latest AS (
    FROM reference_pair
    WHERE coalesce(
        list_has_all(
            getvariable('only_evaluations')::VARCHAR[], [evaluation_id, reference_evaluation]
        ),
        true
    )
    QUALIFY row_number() OVER (
        PARTITION BY base_model, recipe, seed, adapter, evaluation_set, precision, random_weights
        ORDER BY
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
    paired.accuracy.reference AS reference_accuracy,
    paired.accuracy.diff AS accuracy_diff,
    paired.accuracy.low AS accuracy_low,
    paired.accuracy.high AS accuracy_high,
    CASE
        WHEN paired.accuracy.verdict <> 'inferior' THEN coalesce(uninformed, paired.accuracy.verdict)
        ELSE paired.accuracy.verdict
    END AS accuracy_verdict,
    paired.macro_f1.value AS macro_f1,
    paired.macro_f1.reference AS reference_macro_f1,
    paired.macro_f1.diff AS macro_f1_diff,
    paired.macro_f1.low AS macro_f1_low,
    paired.macro_f1.high AS macro_f1_high,
    CASE
        WHEN paired.macro_f1.verdict <> 'inferior' THEN coalesce(uninformed, paired.macro_f1.verdict)
        ELSE paired.macro_f1.verdict
    END AS macro_f1_verdict,
    paired.ed_recall.value AS ed_recall,
    paired.ed_recall.reference AS reference_ed_recall,
    paired.ed_recall.diff AS ed_recall_diff,
    paired.ed_recall.low AS ed_recall_low,
    paired.ed_recall.high AS ed_recall_high,
    CASE
        WHEN paired.ed_recall.verdict <> 'inferior' THEN coalesce(uninformed, paired.ed_recall.verdict)
        ELSE paired.ed_recall.verdict
    END AS ed_recall_verdict,
    paired.ed_f2.value AS ed_f2,
    paired.ed_f2.reference AS reference_ed_f2,
    paired.ed_f2.diff AS ed_f2_diff,
    paired.ed_f2.low AS ed_f2_low,
    paired.ed_f2.high AS ed_f2_high,
    CASE
        WHEN paired.ed_f2.verdict <> 'inferior' THEN coalesce(uninformed, paired.ed_f2.verdict)
        ELSE paired.ed_f2.verdict
    END AS ed_f2_verdict,
    paired.over_triage.value AS over_triage,
    paired.over_triage.reference AS reference_over_triage,
    paired.over_triage.diff AS over_triage_diff,
    paired.over_triage.low AS over_triage_low,
    paired.over_triage.high AS over_triage_high,
    CASE
        WHEN paired.over_triage.verdict <> 'inferior' THEN coalesce(uninformed, paired.over_triage.verdict)
        ELSE paired.over_triage.verdict
    END AS over_triage_verdict,
    paired.loss.value AS loss,
    paired.loss.reference AS reference_loss,
    paired.loss.diff AS loss_diff,
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
    p.reference_evaluation
FROM latest AS p
JOIN precision_arm AS one ON one.evaluation_id = p.evaluation_id AND one.adapter = p.adapter
JOIN precision_arm AS reference
    ON reference.evaluation_id = p.reference_evaluation AND reference.adapter = p.adapter
JOIN evaluation AS e ON e.evaluation_id = p.evaluation_id
LEFT JOIN paired
    ON paired.evaluation_id = p.evaluation_id AND paired.reference_evaluation = p.reference_evaluation
LEFT JOIN informed AS i ON i.evaluation_id = p.evaluation_id
LEFT JOIN informed AS ir ON ir.evaluation_id = p.reference_evaluation
CROSS JOIN LATERAL (
    SELECT
        CASE
            WHEN NOT coalesce(i.beats_constant, false) AND NOT coalesce(ir.beats_constant, false)
                THEN 'cannot conclude: neither model beats always-' || i.answer
        END AS uninformed
) AS judged
ORDER BY p.base_model, p.recipe, p.seed, p.adapter, p.evaluation_set, one.stored_bytes DESC;
