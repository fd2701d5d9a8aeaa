-- Which emergencies are sent home, and how sure was the model?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    case_id,
    case_group,
    case_answer.p_home,
    case_answer.p_ed,
    review AS marked_for_review
FROM case_answer
LEFT JOIN mc_dropout USING (evaluation_id, case_id)
WHERE label = 'ED' AND decision = 'HOME'
ORDER BY case_answer.p_home DESC, case_id, base_model, precision, recipe, seed;
