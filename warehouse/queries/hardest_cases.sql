-- Which cases are hardest over all models: wrong most often, with the least p(true label)?
-- $top INTEGER = 20: number of cases
WITH answer AS (
    SELECT case_id, case_group, label, argmax, p_ed, p_gp, p_home, dataset, coalesce(case_digest, set_digest) AS case_key
    FROM prediction
    JOIN leaderboard USING (evaluation_id)
    WHERE precision IS NOT NULL
    -- Of a case that stands in two test sets, each model has one answer.
    QUALIFY row_number() OVER (
        PARTITION BY cell_id, random_weights, case_id, coalesce(case_digest, set_digest)
        ORDER BY finished_at DESC NULLS LAST, created_at DESC, evaluation_id
    ) = 1
)
SELECT
    case_id,
    case_group,
    label,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg((argmax <> label)::INTEGER) AS wrong,
    avg(CASE label WHEN 'ED' THEN p_ed WHEN 'GP' THEN p_gp ELSE p_home END) AS mean_p_true,
    mode(argmax) AS most_frequent_answer
FROM answer
GROUP BY case_id, case_group, label, case_key
ORDER BY wrong DESC, mean_p_true, case_id
LIMIT $top;
