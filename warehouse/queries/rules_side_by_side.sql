-- How do the decision rules differ in ED recall, over-triage and cost?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    rule,
    rule = leaderboard.primary_rule AS is_primary,
    any_value(value) FILTER (metric = 'ed_recall') AS ed_recall,
    any_value(low) FILTER (metric = 'ed_recall') AS ed_recall_low,
    any_value(value) FILTER (metric = 'over_triage') AS over_triage,
    any_value(value) FILTER (metric = 'ed_f2') AS ed_f2,
    any_value(value) FILTER (metric = 'expected_cost') AS expected_cost,
    any_value(note) FILTER (metric = 'ed_recall') AS note
FROM metric
JOIN leaderboard USING (evaluation_id)
GROUP BY base_model, precision, recipe, seed, evaluation_id, rule, leaderboard.primary_rule
ORDER BY base_model, precision, recipe, seed, evaluation_id, rule;
