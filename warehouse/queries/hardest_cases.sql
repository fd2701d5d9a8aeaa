-- Which cases are hardest over all models: wrong most often, with the least p(true label)?
-- $top INTEGER = 20: number of cases
SELECT
    case_id,
    case_group,
    label,
    any_value(dataset) AS dataset,
    count(*) FILTER (argmax <> label) AS wrong,
    count(*) AS models,
    avg(CASE label WHEN 'ED' THEN p_ed WHEN 'GP' THEN p_gp ELSE p_home END) AS mean_p_true,
    mode(argmax) AS most_frequent_answer
FROM case_answer
GROUP BY case_id, case_group, label, case_key
ORDER BY wrong / models DESC, mean_p_true, case_id
LIMIT $top;
