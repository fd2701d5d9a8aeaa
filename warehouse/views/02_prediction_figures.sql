-- One row per evaluation and rule ('primary', 'argmax'): figures computed from predictions alone.
--
-- 'primary' is the primary rule of the recipe; there is no row where it could not be applied. ED
-- figures are NULL where the set has no ED case. macro_f1 averages the classes that the set has
-- cases of. over_triage and under_triage are the shares of all cases whose decision is more
-- urgent, or less urgent, than their label. loss is the mean over cases of the negative
-- log-likelihood per completion token, in nats.
CREATE OR REPLACE VIEW prediction_figures AS
WITH decided AS (
    SELECT evaluation_id, 'primary' AS rule, label, decision AS choice, nll
    FROM prediction
    WHERE decision IS NOT NULL
    UNION ALL
    SELECT evaluation_id, 'argmax' AS rule, label, argmax AS choice, nll FROM prediction
),
by_class AS (
    SELECT
        evaluation_id,
        rule,
        class,
        count(*) FILTER (label = class) AS labelled,
        count(*) FILTER (choice = class) AS chosen,
        count(*) FILTER (label = class AND choice = class) AS hit
    FROM decided CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS classes (class)
    GROUP BY ALL
),
f1 AS (
    SELECT evaluation_id, rule, avg(2 * hit / (labelled + chosen)) AS macro_f1
    FROM by_class
    WHERE labelled > 0
    GROUP BY ALL
),
totals AS (
    SELECT
        evaluation_id,
        rule,
        count(*) AS cases,
        avg((choice = label)::DOUBLE) AS accuracy,
        avg((choice < label)::DOUBLE) AS over_triage, -- ED < GP < HOME in the alphabet, by urgency
        avg((choice > label)::DOUBLE) AS under_triage,
        avg(nll) AS loss
    FROM decided
    GROUP BY ALL
)
SELECT
    evaluation_id,
    rule,
    totals.cases,
    ed.labelled AS ed_cases,
    ed.labelled - ed.hit AS ed_missed,
    totals.accuracy,
    f1.macro_f1,
    ed.hit / nullif(ed.labelled, 0) AS ed_recall,
    CASE WHEN ed.labelled > 0 THEN ed.hit / nullif(ed.chosen, 0) END AS ed_precision,
    CASE WHEN ed.labelled > 0 THEN 5 * ed.hit / (4 * ed.labelled + ed.chosen) END AS ed_f2,
    totals.over_triage,
    totals.under_triage,
    totals.loss
FROM totals
JOIN f1 USING (evaluation_id, rule)
JOIN by_class AS ed USING (evaluation_id, rule)
WHERE ed.class = 'ED';
