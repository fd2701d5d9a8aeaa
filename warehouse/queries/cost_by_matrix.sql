-- What does each model cost for a case, under every cost matrix of the warehouse?
WITH matrix AS (
    SELECT DISTINCT cost_matrix FROM evaluation WHERE cost_matrix IS NOT NULL
),
cost AS (
    SELECT
        cost_matrix,
        label,
        decision,
        json_extract_string(cost_matrix, '$.' || label || '.' || decision)::DOUBLE AS cost
    FROM matrix
    CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS truths (label)
    CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS decisions (decision)
)
SELECT
    base_model,
    precision,
    recipe,
    seed,
    leaderboard.primary_rule,
    sum(cost * confusion_matrix.cases) / sum(confusion_matrix.cases) AS cost_of_a_case,
    cost.cost_matrix
FROM confusion_matrix
JOIN leaderboard USING (evaluation_id)
JOIN cost USING (label, decision)
WHERE rule = 'primary'
GROUP BY base_model, precision, recipe, seed, leaderboard.primary_rule, evaluation_id, cost.cost_matrix
ORDER BY cost.cost_matrix, cost_of_a_case, base_model, precision, recipe, seed;
