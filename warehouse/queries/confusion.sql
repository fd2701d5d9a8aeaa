-- What does a model decide for each true label under its primary rule?
-- $experiment TEXT = NULL: beginning of a cell or training id; NULL: every model
SELECT
    base_model,
    precision,
    recipe,
    seed,
    label,
    sum(confusion_matrix.cases) FILTER (decision = 'ED') AS decided_ed,
    sum(confusion_matrix.cases) FILTER (decision = 'GP') AS decided_gp,
    sum(confusion_matrix.cases) FILTER (decision = 'HOME') AS decided_home,
    evaluation_id
FROM confusion_matrix
JOIN leaderboard USING (evaluation_id)
WHERE rule = 'primary' AND starts_with(training_id, coalesce($experiment, ''))
GROUP BY base_model, precision, recipe, seed, evaluation_id, label
ORDER BY base_model, precision, recipe, seed, evaluation_id, label;
