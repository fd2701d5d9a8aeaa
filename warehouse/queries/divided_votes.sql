-- On which cases do the dropout passes disagree most?
-- $top INTEGER = 20: number of cases
WITH answer AS (
    SELECT
        case_id,
        label,
        prediction.decision,
        dataset,
        entropy_nats,
        confidence,
        mutual_information_nats,
        review,
        coalesce(case_digest, set_digest) AS case_key
    FROM mc_dropout
    JOIN prediction USING (evaluation_id, case_id)
    JOIN leaderboard USING (evaluation_id)
    -- Of a case that stands in two test sets, each model has one answer.
    QUALIFY row_number() OVER (
        PARTITION BY cell_id, random_weights, case_id, coalesce(case_digest, set_digest)
        ORDER BY finished_at DESC NULLS LAST, created_at DESC, evaluation_id
    ) = 1
)
SELECT
    case_id,
    label,
    any_value(dataset) AS dataset,
    count(*) AS models,
    avg(entropy_nats) AS mean_entropy_nats,
    avg(confidence) AS mean_confidence,
    avg(mutual_information_nats) AS mean_mutual_information_nats,
    sum(review::INTEGER) AS marked_for_review,
    avg((decision <> label)::INTEGER) AS wrong
FROM answer
GROUP BY case_id, label, case_key
ORDER BY mean_entropy_nats DESC, case_id
LIMIT $top;
