-- Precisions beside bits: bits of more widths, NULL where weights are not quantised, and the name of the precision. A CHECK
-- cannot be widened in place, so the four tables are copied. Fidelity gets the standard errors of its means.
CREATE TABLE variant_of_every_precision (
    variant_id VARCHAR PRIMARY KEY,
    base_model VARCHAR NOT NULL,
    bits INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    group_size INTEGER,
    weights_source VARCHAR,
    original_precision VARCHAR,
    random_weights BOOLEAN NOT NULL,
    weights_digest VARCHAR,
    licence VARCHAR,
    parameters BIGINT,
    stored_bytes BIGINT CHECK (stored_bytes > 0),
    embedding_bytes BIGINT,
    projection_bytes BIGINT,
    norm_bytes BIGINT,
    bits_per_weight DOUBLE,
    source_digest VARCHAR,
    terms VARCHAR,
    terms_shown_at TIMESTAMP,
    embedding_bits INTEGER -- those of a value of the embedding
);
INSERT INTO variant_of_every_precision BY NAME SELECT *, coalesce(bits || 'bit', 'bf16') AS precision FROM variant;
DROP TABLE variant;
ALTER TABLE variant_of_every_precision RENAME TO variant;

CREATE TABLE experiment_of_every_precision (
    training_id VARCHAR PRIMARY KEY,
    cell_id VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR, -- its name; NULL for a baseline without a language model
    recipe VARCHAR NOT NULL,
    recipe_kind VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety', 'baseline', 'moved_adapter')),
    seed BIGINT NOT NULL,
    group_size INTEGER,
    num_layers INTEGER,
    learning_rate DOUBLE,
    batch_size INTEGER,
    rank INTEGER,
    scale DOUBLE,
    peft_alpha DOUBLE,
    dropout DOUBLE,
    iterations INTEGER,
    target_ed_recall DOUBLE,
    cost_weight DOUBLE,
    has_cost_matrix BOOLEAN,
    has_class_weights BOOLEAN,
    weights_source VARCHAR,
    original_precision VARCHAR,
    random_weights BOOLEAN,
    weights_digest VARCHAR,
    dataset_digest VARCHAR,
    status VARCHAR NOT NULL CHECK (status IN ('completed', 'diverged', 'failed')),
    error VARCHAR,
    compute_path VARCHAR CHECK (compute_path IN ('packed', 'dequantised_f32')),
    backend VARCHAR,
    compute_dtype VARCHAR,
    blas VARCHAR,
    gflops DOUBLE,
    machine VARCHAR,
    triage_version VARCHAR,
    mlx_version VARCHAR,
    mlx_lm_version VARCHAR,
    engine_version INTEGER,
    stored_bytes BIGINT,
    bits_per_weight DOUBLE,
    trainable_parameters BIGINT,
    train_loss DOUBLE,
    valid_loss DOUBLE,
    best_iteration INTEGER,
    last_iteration INTEGER,
    train_seconds DOUBLE,
    tokens_per_second DOUBLE,
    weights_memory_bytes BIGINT,
    peak_memory_bytes BIGINT,
    peak_rss_bytes BIGINT,
    micro_batch INTEGER,
    shortened_cases INTEGER,
    padding_share DOUBLE,
    started_at TIMESTAMP,
    finished_at TIMESTAMP,
    cache_memory_bytes BIGINT,
    memory_budget_bytes BIGINT,
    checkpointed_blocks BOOLEAN,
    settings_digest VARCHAR,
    source_training_id VARCHAR,
    source_digest VARCHAR
);
INSERT INTO experiment_of_every_precision BY NAME SELECT *, bits || 'bit' AS precision FROM experiment;
DROP TABLE experiment;
ALTER TABLE experiment_of_every_precision RENAME TO experiment;

CREATE TABLE fidelity_of_every_precision (
    fidelity_id VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER NOT NULL CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    distribution VARCHAR NOT NULL CHECK (distribution IN ('vocabulary', 'labels')),
    reference_precision VARCHAR NOT NULL,
    random_weights BOOLEAN NOT NULL,
    variant_digest VARCHAR NOT NULL,
    reference_digest VARCHAR NOT NULL,
    dataset_digest VARCHAR NOT NULL,
    cases INTEGER NOT NULL CHECK (cases > 0),
    set_cases INTEGER NOT NULL,
    kl_mean DOUBLE,
    kl_median DOUBLE,
    kl_p95 DOUBLE,
    kl_p99 DOUBLE,
    kl_p999 DOUBLE,
    kl_max DOUBLE,
    same_top1 DOUBLE CHECK (same_top1 BETWEEN 0 AND 1),
    text_tokens BIGINT,
    perplexity DOUBLE,
    reference_perplexity DOUBLE,
    perplexity_ratio DOUBLE,
    note VARCHAR,
    created_at TIMESTAMP,
    kl_mean_se DOUBLE, -- standard errors, over the cases
    same_top1_se DOUBLE,
    perplexity_ratio_se DOUBLE,
    PRIMARY KEY (fidelity_id, bits, distribution)
);
INSERT INTO fidelity_of_every_precision BY NAME SELECT *, bits || 'bit' AS precision FROM fidelity;
DROP TABLE fidelity;
ALTER TABLE fidelity_of_every_precision RENAME TO fidelity;

CREATE TABLE trial_of_every_precision (
    search_id        VARCHAR NOT NULL,
    number           INTEGER NOT NULL CHECK (number >= 0),
    training_id      VARCHAR NOT NULL,
    grid             VARCHAR NOT NULL,
    base_model       VARCHAR NOT NULL,
    bits             INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision        VARCHAR,
    recipe           VARCHAR NOT NULL,
    recipe_kind      VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety')),
    seed             BIGINT NOT NULL,
    settings         VARCHAR NOT NULL, -- JSON: value by dotted key
    objective        VARCHAR NOT NULL,
    higher_is_better BOOLEAN NOT NULL,
    state            VARCHAR NOT NULL CHECK (state IN ('finished', 'paused', 'failed')),
    is_best          BOOLEAN NOT NULL, -- the best of those that came furthest
    value            DOUBLE,           -- of the objective at the last rung that was reached
    valid_loss       DOUBLE,           -- lowest validation value of the recipe's own objective so far
    updates          INTEGER NOT NULL, -- trained so far
    iterations       INTEGER NOT NULL, -- of the whole training
    rungs            VARCHAR NOT NULL, -- JSON: update, value and seconds at each rung
    seconds          DOUBLE NOT NULL,  -- of the steps, with loading and scoring
    train_seconds    DOUBLE,
    error            VARCHAR,
    PRIMARY KEY (search_id, number)
);
INSERT INTO trial_of_every_precision BY NAME SELECT *, bits || 'bit' AS precision FROM trial;
DROP TABLE trial;
ALTER TABLE trial_of_every_precision RENAME TO trial;
