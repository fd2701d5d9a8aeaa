-- One row per evaluation and rule whose stored counts, or loss, are not those of the rows of its cases.
WITH stored AS (
    SELECT evaluation_id, rule, [*COLUMNS('_as_')] AS counts, loss FROM decision_count
),
recounted AS (
    SELECT evaluation_id, rule, [*COLUMNS('_as_')] AS counts, loss FROM recounted_decisions_of(NULL)
)
SELECT evaluation_id, rule
FROM stored FULL JOIN recounted USING (evaluation_id, rule)
WHERE stored.counts IS DISTINCT FROM recounted.counts
    OR (stored.loss IS NULL) <> (recounted.loss IS NULL)
    OR abs(stored.loss - recounted.loss) > 1e-9;
