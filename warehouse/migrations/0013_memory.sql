-- Where the memory of a training went, beside its weights, MLX's peak and the process's peak.
ALTER TABLE experiment ADD COLUMN cache_memory_bytes BIGINT; -- freed buffers that MLX kept at the end
ALTER TABLE experiment ADD COLUMN memory_budget_bytes BIGINT; -- what the training was given; decides the micro-batch
ALTER TABLE experiment ADD COLUMN checkpointed_blocks BOOLEAN; -- computed again in the backward pass, to save memory
