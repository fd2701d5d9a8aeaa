-- Evaluations whose stated counts or accuracy differ from their prediction and dropout rows.
WITH counted AS (
    SELECT
        e.*,
        (SELECT count(*) FROM prediction AS p WHERE p.evaluation_id = e.evaluation_id) AS predictions,
        (SELECT avg((label = 'ED')::DOUBLE) FROM prediction AS p WHERE p.evaluation_id = e.evaluation_id) AS prevalence,
        (SELECT avg((label = argmax)::DOUBLE) FROM prediction AS p WHERE p.evaluation_id = e.evaluation_id) AS right_share,
        (SELECT count(case_group) FROM prediction AS p WHERE p.evaluation_id = e.evaluation_id) AS grouped,
        (SELECT count(*) FROM mc_dropout AS m WHERE m.evaluation_id = e.evaluation_id) AS sampled
    FROM evaluation AS e
)
SELECT evaluation_id, cases, predictions, accuracy, right_share, ed_prevalence, prevalence, mc_status, mc_cases, sampled
FROM counted
WHERE cases <> predictions
    OR abs(accuracy - right_share) > 1e-9
    OR abs(ed_prevalence - prevalence) > 1e-9
    OR (has_groups AND grouped < cases)
    OR (sampled > 0) <> (mc_status IS NOT DISTINCT FROM 'available')
    OR coalesce(mc_cases, 0) <> sampled;
