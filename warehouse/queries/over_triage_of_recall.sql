-- What does an ED recall cost in over-triage, if a threshold on p(ED) reaches it on these very cases?
-- $recall DOUBLE = 0.95: the share of emergencies to catch
WITH emergency AS (
    SELECT
        evaluation_id,
        p_ed AS threshold,
        row_number() OVER (PARTITION BY evaluation_id ORDER BY p_ed DESC, case_id)
        / count(*) OVER (PARTITION BY evaluation_id) AS recall
    FROM prediction
    WHERE label = 'ED'
),
reaching AS (
    SELECT evaluation_id, max(threshold) AS threshold
    FROM emergency
    WHERE recall >= $recall
    GROUP BY evaluation_id
)
SELECT
    base_model,
    precision,
    recipe,
    seed,
    threshold,
    avg((p_ed >= threshold)::INTEGER) FILTER (label = 'ED') AS ed_recall,
    avg((p_ed >= threshold)::INTEGER) FILTER (label <> 'ED') AS others_sent_to_ed,
    avg((p_ed >= threshold AND label <> 'ED')::INTEGER) AS over_triage_to_ed
FROM reaching
JOIN leaderboard USING (evaluation_id)
JOIN prediction USING (evaluation_id)
GROUP BY base_model, precision, recipe, seed, threshold, evaluation_id
ORDER BY over_triage_to_ed, base_model, precision, recipe, seed;
