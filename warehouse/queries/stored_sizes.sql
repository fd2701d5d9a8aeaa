-- How large is each model on the disk, and what is it against 8 bits of the same weights?
WITH eight AS (
    SELECT
        v.variant_id,
        -- The one with groups of the same size, or else the only one there is.
        coalesce(
            any_value(e.stored_bytes) FILTER (e.group_size = v.group_size),
            CASE WHEN count(*) = 1 THEN any_value(e.stored_bytes) END
        ) AS stored_bytes
    FROM variant AS v
    JOIN variant AS e
        ON e.precision = '8bit'
        AND e.base_model = v.base_model
        AND e.weights_source = v.weights_source
        AND e.source_digest IS NOT DISTINCT FROM v.source_digest
        AND e.random_weights IS NOT DISTINCT FROM v.random_weights
    GROUP BY v.variant_id
)
SELECT
    v.base_model,
    v.precision,
    v.group_size,
    v.stored_bytes,
    v.bits_per_weight,
    v.stored_bytes / eight.stored_bytes AS against_8bit,
    v.embedding_bytes / v.stored_bytes AS embedding_share,
    v.parameters,
    v.original_precision,
    v.weights_source
FROM variant AS v
LEFT JOIN eight USING (variant_id)
ORDER BY v.base_model, v.stored_bytes DESC, variant_id;
