-- One row per evaluation whose counts, groups or accuracy contradict the rows of its cases.
--
-- A set with one grouped case has groups: each case without one is then a group of its own.
WITH predicted AS (
    SELECT
        evaluation_id,
        count(*) AS predictions,
        count(case_group) AS grouped,
        avg((label = 'ED')::DOUBLE) AS prevalence,
        avg((label = argmax)::DOUBLE) AS right_share
    FROM prediction
    GROUP BY evaluation_id
),
sampled AS (
    SELECT evaluation_id, count(*) AS dropout_cases FROM mc_dropout GROUP BY evaluation_id
)
SELECT evaluation_id, cases, predictions, accuracy, right_share, ed_prevalence, prevalence, mc_cases, dropout_cases
FROM evaluation
LEFT JOIN predicted USING (evaluation_id)
LEFT JOIN sampled USING (evaluation_id)
WHERE cases IS DISTINCT FROM predictions
    OR abs(accuracy - right_share) > 1e-9
    OR abs(ed_prevalence - prevalence) > 1e-9
    OR has_groups <> (grouped > 0)
    OR (dropout_cases IS NOT NULL) <> (mc_status IS NOT DISTINCT FROM 'available')
    OR mc_cases IS DISTINCT FROM dropout_cases;
