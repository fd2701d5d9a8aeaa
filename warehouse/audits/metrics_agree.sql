-- One row per landed metric that differs from the figure computed from predictions.
--
-- A value without a figure, and a figure without a value, differ too. Checked are the rules whose
-- decisions are stored: all three from scoring version 3 on.
WITH priced AS (
    SELECT
        c.*,
        own.cost,
        least.cost AS least_cost,
        ed.cost AS ed_cost
    FROM confusion_matrix AS c
    LEFT JOIN cost AS own USING (evaluation_id, label, decision)
    LEFT JOIN cost AS least
        ON least.evaluation_id = c.evaluation_id AND least.label = c.label AND least.decision = c.label
    LEFT JOIN cost AS ed
        ON ed.evaluation_id = c.evaluation_id AND ed.label = c.label AND ed.decision = 'ED'
    WHERE rule <> 'primary'
),
by_class AS (
    SELECT
        evaluation_id,
        rule,
        class,
        sum(cases) FILTER (label = class) AS labelled,
        sum(cases) FILTER (decision = class) AS chosen,
        sum(cases) FILTER (label = class AND decision = class) AS hit
    FROM priced CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS classes (class)
    GROUP BY ALL
),
totals AS (
    SELECT
        evaluation_id,
        rule,
        sum(cases) AS n,
        sum(cases * cost) AS spent,
        sum(cases * least_cost) AS least_spent,
        sum(cases * ed_cost) AS spent_on_ed,
        sum(cases) FILTER (label = decision) / n AS accuracy,
        coalesce(sum(cases) FILTER (decision < label), 0) / n AS over_triage, -- the alphabet orders labels by urgency
        coalesce(sum(cases) FILTER (decision > label), 0) / n AS under_triage
    FROM priced
    GROUP BY ALL
),
computed AS (
    SELECT
        evaluation_id,
        rule,
        unnest([
            {metric: 'precision', figure: hit / nullif(chosen, 0)},
            {metric: 'recall', figure: hit / labelled},
            {metric: 'f1', figure: 2 * hit / (labelled + chosen)},
            {metric: 'f2', figure: 5 * hit / (4 * labelled + chosen)},
            {metric: 'false_negative_rate', figure: IF(class = 'ED', 1 - hit / labelled, NULL)}
        ], recursive := true),
        lower(class) || '_' AS of_class
    FROM by_class
    WHERE labelled > 0
    UNION ALL
    SELECT evaluation_id, rule, 'macro_f1', avg(2 * hit / (labelled + chosen)), ''
    FROM by_class
    WHERE labelled > 0
    GROUP BY ALL
    UNION ALL
    SELECT
        evaluation_id,
        rule,
        unnest([
            {metric: 'accuracy', figure: accuracy},
            {metric: 'over_triage', figure: over_triage},
            {metric: 'under_triage', figure: under_triage},
            {metric: 'expected_cost', figure: spent / n},
            {
                metric: 'cost_skill',
                figure: IF(spent_on_ed > least_spent, 1 - (spent - least_spent) / (spent_on_ed - least_spent), NULL)
            }
        ], recursive := true),
        ''
    FROM totals
),
named AS (
    SELECT evaluation_id, rule, of_class || metric AS metric, figure FROM computed WHERE figure IS NOT NULL
),
landed AS (
    SELECT evaluation_id, rule, metric, value
    FROM metric JOIN evaluation USING (evaluation_id)
    WHERE value IS NOT NULL
        AND (scoring_version >= 3 OR rule IN ('argmax', primary_rule))
        AND (
            metric IN ('accuracy', 'macro_f1', 'over_triage', 'under_triage', 'expected_cost', 'cost_skill')
            OR regexp_matches(metric, '^(ed|gp|home)_(precision|recall|f1|f2|false_negative_rate)$')
        )
)
SELECT evaluation_id, rule, metric, value, figure
FROM landed FULL JOIN named USING (evaluation_id, rule, metric)
WHERE value IS NULL OR figure IS NULL OR abs(value - figure) > 1e-9 * greatest(1, abs(value));
