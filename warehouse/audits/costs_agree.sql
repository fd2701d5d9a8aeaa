-- One row per evaluation, label and decision whose cost is missing, or not the one of its cost matrix.
WITH stated AS (
    SELECT
        evaluation_id,
        label,
        decision,
        json_extract_string(cost_matrix, '$.' || label || '.' || decision)::DOUBLE AS stated_cost
    FROM evaluation
    CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS truths (label)
    CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS decisions (decision)
    WHERE cost_matrix IS NOT NULL
)
SELECT evaluation_id, label, decision, stated_cost, cost
FROM stated FULL JOIN cost USING (evaluation_id, label, decision)
WHERE stated_cost IS DISTINCT FROM cost;
