-- One row per gate, or verdict of an evaluation, that contradicts its figures.
--
-- The state of a gate follows from its value and bound, and the verdict from the gates. The bound
-- is the less favourable one of both intervals. A gate with a sufficient bound is PROVISIONAL only
-- for a stated reason.
WITH judged AS (
    SELECT
        *,
        gate = 'ed_false_negative_rate' AS lower_is_better,
        IF(lower_is_better, value <= threshold + 1e-9, value >= threshold - 1e-9) AS value_holds,
        IF(lower_is_better, bound <= threshold + 1e-9, bound >= threshold - 1e-9) AS bound_holds
    FROM gate
),
verdicts AS (
    SELECT
        evaluation_id,
        any_value(evaluation.verdict) AS verdict,
        count(gate) AS gates,
        count(*) FILTER (state = 'PASS') AS passed,
        count(*) FILTER (state IN ('FAIL', 'NOT AVAILABLE')) AS failed
    FROM evaluation LEFT JOIN gate USING (evaluation_id)
    GROUP BY evaluation_id
)
SELECT evaluation_id, gate, state, value, bound
FROM judged
WHERE NOT CASE state
    WHEN 'PASS' THEN coalesce(value_holds AND bound_holds, false)
    WHEN 'PROVISIONAL' THEN coalesce(value_holds AND (bound IS NULL OR NOT bound_holds OR note IS NOT NULL), false)
    WHEN 'FAIL' THEN coalesce(NOT value_holds, false)
    ELSE value IS NULL
END
    OR IF(lower_is_better, bound < greatest(exact_high, clustered_high), bound > least(exact_low, clustered_low))
UNION ALL
SELECT evaluation_id, 'verdict', verdict, NULL, NULL
FROM verdicts
WHERE gates NOT IN (0, 3)
    OR verdict <> CASE
        WHEN gates = 0 OR failed > 0 THEN 'unsafe'
        WHEN passed = 3 THEN 'passes_gates'
        ELSE 'provisional'
    END;
