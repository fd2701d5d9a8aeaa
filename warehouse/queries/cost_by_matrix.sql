-- What does each model cost for a case, under every cost matrix of the warehouse?
WITH matrix AS (
    -- The same costs are one matrix, in whatever order their text has them.
    SELECT cost_matrix, label, decision, cost
    FROM cost
    JOIN evaluation USING (evaluation_id)
    WHERE evaluation_id IN (SELECT min(evaluation_id) FROM evaluation_costs GROUP BY costs)
)
SELECT
    base_model,
    precision,
    recipe,
    seed,
    leaderboard.primary_rule,
    sum(cost * confusion_matrix.cases) / sum(confusion_matrix.cases) AS cost_of_a_case,
    matrix.cost_matrix
FROM confusion_matrix
JOIN leaderboard USING (evaluation_id)
JOIN matrix USING (label, decision)
WHERE rule = 'primary'
GROUP BY base_model, precision, recipe, seed, leaderboard.primary_rule, evaluation_id, matrix.cost_matrix
ORDER BY matrix.cost_matrix, cost_of_a_case, base_model, precision, recipe, seed;
