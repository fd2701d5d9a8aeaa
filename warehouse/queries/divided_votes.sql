-- On which cases do the dropout passes disagree most?
-- $top INTEGER = 20: number of cases
SELECT
    case_id,
    label,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg(entropy_nats) AS mean_entropy_nats,
    avg(confidence) AS mean_confidence,
    avg(mutual_information_nats) AS mean_mutual_information_nats,
    sum(review::INTEGER) AS marked_for_review,
    avg((case_answer.decision <> label)::INTEGER) AS wrong
FROM case_answer
JOIN mc_dropout USING (evaluation_id, case_id)
GROUP BY case_id, label, case_key
ORDER BY mean_entropy_nats DESC, case_id
LIMIT $top;
