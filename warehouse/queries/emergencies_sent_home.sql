-- Which emergencies are sent home, and how sure was the model?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    case_id,
    case_group,
    prediction.p_home,
    prediction.p_ed,
    review AS marked_for_review
FROM prediction
JOIN leaderboard USING (evaluation_id)
LEFT JOIN mc_dropout USING (evaluation_id, case_id)
WHERE label = 'ED' AND decision = 'HOME'
ORDER BY prediction.p_home DESC, case_id, base_model, precision, recipe, seed;
