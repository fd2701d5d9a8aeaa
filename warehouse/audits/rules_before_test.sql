-- One row per decision rule that lacks its record, or whose record contradicts the decisions.
--
-- A rule is chosen before the scoring of the cases that it decides begins, with all that it needs.
-- Evaluations of a scoring version below 3 have no record.
WITH weighed AS (
    SELECT
        evaluation_id,
        case_id,
        min_cost AS choice,
        exp(ln(greatest(p_ed, 1e-12)) / temperature + bias_ed) AS ed,
        exp(ln(greatest(p_gp, 1e-12)) / temperature + bias_gp) AS gp,
        exp(ln(greatest(p_home, 1e-12)) / temperature + bias_home) AS home
    FROM prediction JOIN decision_rule USING (evaluation_id)
    WHERE rule = 'min_cost' AND temperature IS NOT NULL
),
price AS (
    PIVOT cost ON label IN ('ED', 'GP', 'HOME') USING any_value(cost) GROUP BY evaluation_id, decision
),
priced AS (
    SELECT
        weighed.evaluation_id,
        case_id,
        choice,
        actions.action,
        weighed.ed * price.ED + weighed.gp * price.GP + weighed.home * price.HOME AS cost
    FROM weighed
    CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS actions (action)
    LEFT JOIN price ON price.evaluation_id = weighed.evaluation_id AND price.decision = actions.action
)
SELECT evaluation_id, rule, 'no record' AS what
FROM evaluation
CROSS JOIN (VALUES ('argmax'), ('target_recall'), ('min_cost')) AS rules (rule)
ANTI JOIN decision_rule USING (evaluation_id, rule)
WHERE scoring_version >= 3
UNION ALL
SELECT evaluation_id, rule, 'chosen after the test was scored' FROM decision_rule WHERE chosen_at > test_scored_at
UNION ALL
SELECT evaluation_id, rule, 'nothing chosen and no reason'
FROM decision_rule
WHERE note IS NULL
    AND CASE rule WHEN 'target_recall' THEN threshold IS NULL WHEN 'min_cost' THEN temperature IS NULL ELSE false END
UNION ALL
SELECT evaluation_id, rule, 'more misses than allowed' FROM decision_rule WHERE misses > allowed_misses
UNION ALL
SELECT evaluation_id, any_value(rule), 'not chosen on its calibration cases'
FROM decision_rule JOIN calibration_prediction USING (evaluation_id)
WHERE threshold IS NOT NULL
GROUP BY evaluation_id
HAVING any_value(misses) <> count(*) FILTER (label = 'ED' AND p_ed < threshold)
    OR count(*) FILTER (label = 'ED' AND p_ed = threshold) = 0
UNION ALL
SELECT evaluation_id, rule, 'another threshold'
FROM evaluation AS e JOIN decision_rule AS r USING (evaluation_id)
WHERE r.rule = e.primary_rule AND e.threshold IS DISTINCT FROM r.threshold
UNION ALL
SELECT DISTINCT evaluation_id, primary_rule, 'another decision'
FROM prediction JOIN evaluation USING (evaluation_id)
WHERE scoring_version >= 3
    AND decision IS DISTINCT FROM CASE primary_rule
        WHEN 'argmax' THEN argmax WHEN 'target_recall' THEN target_recall ELSE min_cost
    END
UNION ALL
SELECT DISTINCT evaluation_id, rule, 'not what the threshold decides'
FROM prediction JOIN decision_rule USING (evaluation_id)
WHERE rule = 'target_recall'
    AND threshold IS NOT NULL
    AND target_recall IS DISTINCT FROM CASE WHEN p_ed >= threshold THEN 'ED' WHEN p_gp >= p_home THEN 'GP' ELSE 'HOME' END
UNION ALL
SELECT DISTINCT evaluation_id, 'min_cost', 'not the least expected cost'
FROM priced
GROUP BY evaluation_id, case_id
HAVING coalesce(any_value(cost) FILTER (action = choice) > (1 + 1e-9) * min(cost), true);
