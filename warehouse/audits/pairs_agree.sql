-- One row per equal pair, or figure of one, that contradicts the predictions.
--
-- A pair has figures and the same cases on both sides, figures belong to a pair, and they equal
-- those computed from predictions.
WITH pair AS (
    FROM equal_pair
),
shared AS (
    SELECT
        p.evaluation_4bit,
        p.evaluation_8bit,
        count(*) FILTER (
            four.label IS DISTINCT FROM eight.label OR four.case_group IS DISTINCT FROM eight.case_group
        ) AS different
    FROM pair AS p
    JOIN prediction AS four ON four.evaluation_id = p.evaluation_4bit
    LEFT JOIN prediction AS eight ON eight.evaluation_id = p.evaluation_8bit AND eight.case_id = four.case_id
    GROUP BY ALL
)
SELECT evaluation_4bit, evaluation_8bit, 'no figures' AS what
FROM pair ANTI JOIN pair_metric USING (evaluation_4bit, evaluation_8bit)
UNION ALL
SELECT DISTINCT evaluation_4bit, evaluation_8bit, 'not a pair'
FROM pair_metric ANTI JOIN pair USING (evaluation_4bit, evaluation_8bit)
UNION ALL
SELECT evaluation_4bit, evaluation_8bit, 'other cases' FROM shared WHERE different > 0
UNION ALL
SELECT p.evaluation_4bit, p.evaluation_8bit, p.rule || ' ' || p.metric
FROM pair_metric AS p
LEFT JOIN rule_figures AS four
    ON four.evaluation_id = p.evaluation_4bit AND four.rule = p.rule AND four.metric = p.metric
LEFT JOIN rule_figures AS eight
    ON eight.evaluation_id = p.evaluation_8bit AND eight.rule = p.rule AND eight.metric = p.metric
WHERE p.metric <> 'expected_cost'
    AND (
        (p.difference IS NULL) <> (four.figure IS NULL OR eight.figure IS NULL)
        OR abs(p.value_4bit - four.figure) > 1e-9
        OR abs(p.value_8bit - eight.figure) > 1e-9
        OR abs(p.difference - (p.value_4bit - p.value_8bit)) > 1e-9
        OR abs((p.b - p.c) / p.cases - p.difference) > 1e-9
        OR p.low > p.high
    );
