-- What has been trained, evaluated or measured since a date?
-- $since TIMESTAMP = 2026-01-01: first moment, UTC
WITH happened AS (
    SELECT finished_at AS moment, 'training' AS what, training_id AS id, status AS result FROM experiment
    UNION ALL
    SELECT created_at, 'evaluation on ' || evaluation_set, evaluation_id, verdict
    FROM evaluation ANTI JOIN sealed_evaluation USING (evaluation_id)
    UNION ALL
    SELECT created_at, 'fidelity', fidelity_id, distribution FROM fidelity
    UNION ALL
    SELECT created_at, 'benchmark', run_id, name || ' ' || "case" || ' ' || metric FROM benchmark
)
SELECT moment, what, id, result
FROM happened
WHERE moment >= $since
ORDER BY moment DESC, what, id;
