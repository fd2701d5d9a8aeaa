-- Which emergencies does every model of one precision miss under its primary rule?
-- $precision TEXT = 4bit of leaderboard: precision of the models
-- 0 rows: each emergency is sent to ED by some model of this precision, be it an untuned one
SELECT
    case_id,
    case_group,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg(p_ed) AS mean_p_ed,
    max(p_ed) AS highest_p_ed
FROM case_answer
WHERE label = 'ED' AND decision IS NOT NULL AND precision = $precision
GROUP BY case_id, case_group, case_key
HAVING bool_and(decision <> 'ED')
ORDER BY mean_p_ed, case_id;
