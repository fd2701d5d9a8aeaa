-- Landed metrics that differ from the figures computed from prediction rows, expected cost included.
WITH rules AS (
    SELECT evaluation_id, 'argmax' AS rule, 'argmax' AS computed FROM evaluation
    UNION
    SELECT evaluation_id, primary_rule, 'primary' FROM evaluation
),
spent AS (
    SELECT
        evaluation_id,
        rule,
        IF(rule = 'argmax', argmax, decision) AS choice,
        json_extract_string(cost_matrix, '$.' || label || '.' || choice)::DOUBLE AS cost
    FROM prediction
    JOIN evaluation USING (evaluation_id)
    CROSS JOIN (VALUES ('argmax'), ('primary')) AS computed (rule)
),
mean_cost AS (
    SELECT evaluation_id, rule, avg(cost) AS expected_cost FROM spent GROUP BY ALL
),
computed AS (
    UNPIVOT (
        SELECT f.evaluation_id, f.rule, accuracy, macro_f1, ed_recall, ed_precision, ed_f2, over_triage, under_triage,
            expected_cost
        FROM prediction_figures AS f JOIN mean_cost USING (evaluation_id, rule)
    ) ON COLUMNS (* EXCLUDE (evaluation_id, rule)) INTO NAME metric VALUE from_predictions
)
SELECT metric.evaluation_id, metric.rule, metric.metric, metric.value, computed.from_predictions
FROM metric
JOIN rules USING (evaluation_id, rule)
JOIN computed
    ON computed.evaluation_id = metric.evaluation_id
    AND computed.rule = rules.computed
    AND computed.metric = metric.metric
WHERE abs(metric.value - computed.from_predictions) > 1e-9 * greatest(1, abs(metric.value));
