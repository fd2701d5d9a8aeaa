-- What did each training take in time and memory, and where was it computed?
SELECT
    cell_id,
    train_seconds,
    tokens_per_second,
    peak_memory_bytes,
    weights_memory_bytes,
    trainable_parameters,
    best_iteration,
    last_iteration,
    compute_path,
    machine
FROM experiment
WHERE train_seconds IS NOT NULL
ORDER BY train_seconds DESC, training_id;
