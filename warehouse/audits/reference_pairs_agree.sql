-- One row per pair of a precision and its reference, or figure of one, that contradicts the predictions.
--
-- As pairs_agree does for 4 against 8 bits.
WITH pair AS (
    FROM reference_pair
)
SELECT evaluation_id, reference_evaluation, 'no figures' AS what
FROM pair ANTI JOIN reference_metric USING (evaluation_id, reference_evaluation)
UNION ALL
SELECT DISTINCT evaluation_id, reference_evaluation, 'not a pair'
FROM reference_metric ANTI JOIN pair USING (evaluation_id, reference_evaluation)
UNION ALL
SELECT p.evaluation_id, p.reference_evaluation, p.rule || ' ' || p.metric
FROM reference_metric AS p
LEFT JOIN rule_figures AS one
    ON one.evaluation_id = p.evaluation_id AND one.rule = p.rule AND one.metric = p.metric
LEFT JOIN rule_figures AS reference
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
