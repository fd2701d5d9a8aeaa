-- One row per pair of a precision and its reference, or figure of one, that contradicts the predictions.
--
-- As pairs_agree does for 4 against 8 bits.
WITH computed AS (
    UNPIVOT (
        SELECT evaluation_id, rule, accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss FROM prediction_figures
    )
    ON accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss INTO NAME metric VALUE figure
    UNION ALL BY NAME
    SELECT evaluation_id, 'argmax' AS rule, 'ed_auroc' AS metric, ed_auroc AS figure FROM auroc_by_ranks
)
SELECT evaluation_id, reference_evaluation, 'no figures' AS what
FROM reference_pair ANTI JOIN reference_metric USING (evaluation_id, reference_evaluation)
UNION ALL
SELECT DISTINCT evaluation_id, reference_evaluation, 'not a pair'
FROM reference_metric ANTI JOIN reference_pair USING (evaluation_id, reference_evaluation)
UNION ALL
SELECT p.evaluation_id, p.reference_evaluation, p.rule || ' ' || p.metric
FROM reference_metric AS p
LEFT JOIN computed AS one
    ON one.evaluation_id = p.evaluation_id AND one.rule = p.rule AND one.metric = p.metric
LEFT JOIN computed AS reference
    ON reference.evaluation_id = p.reference_evaluation
    AND reference.rule = p.rule
    AND reference.metric = p.metric
WHERE p.metric <> 'expected_cost'
    AND (
        (p.difference IS NULL) <> (one.figure IS NULL OR reference.figure IS NULL)
        OR abs(p.value - one.figure) > 1e-9
        OR abs(p.reference_value - reference.figure) > 1e-9
        OR abs(p.difference - (p.value - p.reference_value)) > 1e-9
        OR abs((p.right_only - p.reference_right_only) / p.cases - p.difference) > 1e-9
        OR p.low > p.high
    );
