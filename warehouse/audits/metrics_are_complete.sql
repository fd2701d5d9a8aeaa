-- Evaluations without the figures that every evaluation needs, and intervals upside down.
WITH needed AS (
    SELECT unnest(
        ['accuracy', 'macro_f1', 'ed_recall', 'ed_precision', 'ed_f2', 'over_triage', 'under_triage']
    ) AS metric
)
SELECT evaluation_id, needed.metric
FROM evaluation
CROSS JOIN needed
ANTI JOIN metric ON
    metric.evaluation_id = evaluation.evaluation_id
    AND metric.rule = evaluation.primary_rule
    AND metric.metric = needed.metric
UNION ALL
SELECT evaluation_id, rule || ' ' || metric
FROM metric
WHERE low > high;
