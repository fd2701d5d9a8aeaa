-- One row per landed metric that differs from the figure that people query, which predictions give.
--
-- A value without a figure, and a figure without a value, differ too. The audit
-- metrics_are_reproduced compares all metrics of all rules, those of sealed evaluations too.
WITH queried AS (
    UNPIVOT (
        SELECT * EXCLUDE (cases, ed_cases, ed_missed, loss) FROM prediction_figures WHERE rule <> 'primary'
    )
    ON * EXCLUDE (evaluation_id, rule) INTO NAME metric VALUE figure
),
landed AS (
    SELECT evaluation_id, rule, metric, value
    FROM metric
    ANTI JOIN sealed_evaluation USING (evaluation_id)
    JOIN evaluation USING (evaluation_id)
    WHERE value IS NOT NULL
        AND rule <> 'min_cost'
        AND (scoring_version >= 3 OR rule IN ('argmax', primary_rule))
        AND metric IN (SELECT metric FROM queried)
)
SELECT evaluation_id, rule, metric, value, figure
FROM landed FULL JOIN queried USING (evaluation_id, rule, metric)
WHERE value IS NULL OR figure IS NULL OR abs(value - figure) > 1e-9 * greatest(1, abs(value));
