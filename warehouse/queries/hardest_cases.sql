-- Which cases are hardest over all models: wrong most often, with the least p(true label)?
-- $top INTEGER = 20: number of cases
SELECT
    case_id,
    case_group,
    label,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg((argmax <> label)::INTEGER) AS wrong,
    avg(CASE label WHEN 'ED' THEN p_ed WHEN 'GP' THEN p_gp ELSE p_home END) AS mean_p_true,
    mode(argmax) AS most_frequent_answer
FROM case_answer
GROUP BY case_id, case_group, label, case_key
ORDER BY wrong DESC, mean_p_true, case_id
LIMIT $top;
