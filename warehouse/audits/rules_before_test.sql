-- Decision rules without a record, chosen after the scoring of the cases that they decide had begun, without what they
-- need, or other than those that decided. Evaluations of a scoring version below 3 have no record.
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
SELECT evaluation_id, rule, 'another threshold'
FROM evaluation AS e JOIN decision_rule AS r USING (evaluation_id)
WHERE r.rule = e.primary_rule AND e.threshold IS DISTINCT FROM r.threshold
UNION ALL
SELECT DISTINCT evaluation_id, r.rule, 'another decision'
FROM prediction
JOIN evaluation AS e USING (evaluation_id)
JOIN decision_rule AS r USING (evaluation_id)
WHERE r.rule = 'target_recall'
    AND e.primary_rule = 'target_recall'
    AND r.threshold IS NOT NULL
    AND (decision = 'ED') IS DISTINCT FROM (p_ed >= r.threshold);
