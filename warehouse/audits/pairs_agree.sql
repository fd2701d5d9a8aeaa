-- One row per equal pair, or figure of one, that contradicts the predictions.
--
-- A pair has figures and the same cases on both sides, figures belong to a pair, and they equal
-- those computed from predictions.
WITH computed AS (
    UNPIVOT (
        SELECT evaluation_id, rule, accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss FROM prediction_figures
    )
    ON accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss INTO NAME metric VALUE figure
    UNION ALL BY NAME
    SELECT evaluation_id, 'argmax' AS rule, 'ed_auroc' AS metric, ed_auroc AS figure FROM auroc_by_ranks
),
shared AS (
    SELECT
        p.evaluation_4bit,
        p.evaluation_8bit,
        count(*) FILTER (
            four.label IS DISTINCT FROM eight.label OR four.case_group IS DISTINCT FROM eight.case_group
        ) AS different
    FROM equal_pair AS p
    JOIN evaluation AS e4 ON e4.evaluation_id = p.evaluation_4bit
    JOIN prediction AS four ON four.evaluation_id = p.evaluation_4bit
    LEFT JOIN prediction AS eight ON eight.evaluation_id = p.evaluation_8bit AND eight.case_id = four.case_id
    GROUP BY ALL
)
SELECT evaluation_4bit, evaluation_8bit, 'no figures' AS what
FROM equal_pair ANTI JOIN pair_metric USING (evaluation_4bit, evaluation_8bit)
UNION ALL
SELECT DISTINCT evaluation_4bit, evaluation_8bit, 'not a pair'
FROM pair_metric ANTI JOIN equal_pair USING (evaluation_4bit, evaluation_8bit)
UNION ALL
SELECT evaluation_4bit, evaluation_8bit, 'other cases' FROM shared WHERE different > 0
UNION ALL
SELECT p.evaluation_4bit, p.evaluation_8bit, p.rule || ' ' || p.metric
FROM pair_metric AS p
LEFT JOIN computed AS four
    ON four.evaluation_id = p.evaluation_4bit AND four.rule = p.rule AND four.metric = p.metric
LEFT JOIN computed AS eight
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
