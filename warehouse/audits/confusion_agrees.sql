-- One row per evaluation and rule whose confusion matrix is missing or has not the stated cases.
WITH totals AS (
    SELECT evaluation_id, rule, sum(cases) AS counted FROM confusion_matrix GROUP BY ALL
),
applied AS (
    SELECT evaluation_id, 'argmax' AS rule FROM evaluation
    UNION
    SELECT evaluation_id, rule FROM totals
    UNION
    SELECT evaluation_id, rule FROM decision_rule WHERE note IS NULL OR note NOT LIKE 'not available%'
)
SELECT evaluation_id, rule, cases, counted
FROM applied
JOIN evaluation USING (evaluation_id)
LEFT JOIN totals USING (evaluation_id, rule)
WHERE counted IS DISTINCT FROM cases;
