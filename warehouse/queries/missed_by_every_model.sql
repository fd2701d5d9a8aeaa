-- Which emergencies does every model of one precision miss under its primary rule?
-- $precision TEXT = 4bit of leaderboard: precision of the models
-- 0 rows: each emergency is sent to ED by some model of this precision, be it an untuned one
WITH answer AS (
    SELECT case_id, case_group, decision, p_ed, dataset, coalesce(case_digest, set_digest) AS case_key
    FROM prediction
    JOIN leaderboard USING (evaluation_id)
    WHERE label = 'ED' AND decision IS NOT NULL AND precision = $precision
    -- Of a case that stands in two test sets, each model has one answer.
    QUALIFY row_number() OVER (
        PARTITION BY cell_id, random_weights, case_id, coalesce(case_digest, set_digest)
        ORDER BY finished_at DESC NULLS LAST, created_at DESC, evaluation_id
    ) = 1
)
SELECT
    case_id,
    case_group,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg(p_ed) AS mean_p_ed,
    max(p_ed) AS highest_p_ed
FROM answer
GROUP BY case_id, case_group, case_key
HAVING bool_and(decision <> 'ED')
ORDER BY mean_p_ed, case_id;
