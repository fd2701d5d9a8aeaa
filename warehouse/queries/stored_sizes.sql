-- How large is each model on the disk, and what is it against 8 bits?
SELECT
    base_model,
    precision,
    stored_bytes,
    bits_per_weight,
    stored_bytes / any_value(stored_bytes) FILTER (precision = '8bit') OVER (PARTITION BY base_model)
        AS against_8bit,
    embedding_bytes / stored_bytes AS embedding_share,
    parameters,
    original_precision,
    weights_source
FROM variant
ORDER BY base_model, stored_bytes DESC, variant_id;
