-- Which models beat the best constant answer, which needs no model at all?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    leaderboard.accuracy,
    accuracy_low,
    answer AS constant_answer,
    best_constant.accuracy AS constant_accuracy,
    CASE
        WHEN accuracy_low > best_constant.accuracy THEN 'beats it'
        WHEN accuracy_high < best_constant.accuracy THEN 'is worse'
        ELSE 'cannot conclude'
    END AS against_constant,
    evaluation_id
FROM leaderboard
JOIN best_constant USING (evaluation_id)
ORDER BY leaderboard.accuracy DESC, base_model, precision, recipe, seed;
