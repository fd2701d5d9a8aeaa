-- One row per required metric that an evaluation lacks, or metric with an impossible interval.
--
-- An interval has its lower bound first, and the one in use is the wider of both.
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
WHERE low > high
    OR exact_low > exact_high
    OR clustered_low > clustered_high
    OR abs(high - low - greatest(exact_high - exact_low, clustered_high - clustered_low)) > 1e-9;
