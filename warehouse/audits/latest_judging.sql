-- One row per evaluation that judged_again has and should not, or the other way round.
WITH latest AS (
    SELECT
        evaluation_id,
        first(evaluation_id) OVER (
            PARTITION BY scores_id ORDER BY scoring_version DESC, evaluation_id
        ) AS judged_now
    FROM evaluation
)
SELECT evaluation_id, stored.judged_now, latest.judged_now AS should_be
FROM judged_again AS stored
FULL JOIN (FROM latest WHERE evaluation_id <> judged_now) AS latest USING (evaluation_id)
WHERE stored.judged_now IS DISTINCT FROM latest.judged_now;
