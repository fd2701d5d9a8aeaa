-- Evaluations without the figures that every evaluation needs, and intervals upside down.
SELECT evaluation_id, needed.metric
FROM evaluation
CROSS JOIN (VALUES ('accuracy'), ('macro_f1'), ('ed_recall'), ('ed_precision'), ('ed_f2'), ('over_triage')) AS needed (metric)
ANTI JOIN metric ON
    metric.evaluation_id = evaluation.evaluation_id
    AND metric.rule = evaluation.primary_rule
    AND metric.metric = needed.metric
UNION ALL
SELECT evaluation_id, rule || ' ' || metric
FROM metric
WHERE low > high;
