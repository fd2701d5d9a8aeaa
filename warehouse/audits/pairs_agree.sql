-- One row per pair, or figure of one, that contradicts the predictions.
--
-- Pairs are of 4 and 8 bits, and of a precision and its reference. A pair has figures and the same
-- cases on both sides, figures belong to a pair, and they equal those computed from predictions.
WITH pair AS (
    SELECT evaluation_4bit AS first, evaluation_8bit AS second FROM equal_pair
    UNION ALL
    SELECT evaluation_id, reference_evaluation FROM reference_pair
),
stored AS (
    SELECT
        evaluation_4bit AS first,
        evaluation_8bit AS second,
        value_4bit AS first_value,
        value_8bit AS second_value,
        * EXCLUDE (base_model, recipe, seed, evaluation_set, evaluation_4bit, evaluation_8bit, value_4bit, value_8bit)
    FROM pair_metric
    UNION ALL BY NAME
    SELECT
        evaluation_id AS first,
        reference_evaluation AS second,
        value AS first_value,
        reference_value AS second_value,
        right_only AS b,
        reference_right_only AS c,
        * EXCLUDE (evaluation_id, reference_evaluation, value, reference_value, right_only, reference_right_only)
    FROM reference_metric
),
shared AS (
    SELECT
        pair.first,
        pair.second,
        count(*) FILTER (
            one.label IS DISTINCT FROM other.label OR one.case_group IS DISTINCT FROM other.case_group
        ) AS different
    FROM pair
    JOIN prediction AS one ON one.evaluation_id = pair.first
    LEFT JOIN prediction AS other ON other.evaluation_id = pair.second AND other.case_id = one.case_id
    GROUP BY ALL
)
SELECT first, second, 'no figures' AS what FROM pair ANTI JOIN stored USING (first, second)
UNION ALL
SELECT DISTINCT first, second, 'not a pair' FROM stored ANTI JOIN pair USING (first, second)
UNION ALL
SELECT first, second, 'other cases' FROM shared WHERE different > 0
UNION ALL
SELECT first, second, s.rule || ' ' || s.metric
FROM stored AS s
LEFT JOIN rule_figures AS one ON one.evaluation_id = first AND one.rule = s.rule AND one.metric = s.metric
LEFT JOIN rule_figures AS other ON other.evaluation_id = second AND other.rule = s.rule AND other.metric = s.metric
WHERE s.metric <> 'expected_cost'
    AND (
        (difference IS NULL) <> (one.figure IS NULL OR other.figure IS NULL)
        OR abs(first_value - one.figure) > 1e-9
        OR abs(second_value - other.figure) > 1e-9
        OR abs(difference - (first_value - second_value)) > 1e-9
        OR abs((b - c) / cases - difference) > 1e-9
        OR low > high
    );
