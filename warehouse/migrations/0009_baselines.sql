-- Baselines and moved adapters are experiments of their own kind, and what quantisation alone does is landed too. A CHECK
-- cannot be widened in place, so the two tables are copied.
CREATE TABLE experiment_of_every_kind (
    training_id          VARCHAR PRIMARY KEY,
    cell_id              VARCHAR NOT NULL,
    base_model           VARCHAR NOT NULL,
    bits                 INTEGER CHECK (bits IN (4, 8)), -- NULL: unquantised reference
    recipe               VARCHAR NOT NULL,
    recipe_kind          VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety', 'baseline', 'moved_adapter')),
    seed                 BIGINT NOT NULL,
    group_size           INTEGER,
    num_layers           INTEGER,
    learning_rate        DOUBLE,
    batch_size           INTEGER,
    rank                 INTEGER,
    scale                DOUBLE, -- multiplies the update directly
    peft_alpha           DOUBLE, -- scale x rank
    dropout              DOUBLE,
    iterations           INTEGER,
    target_ed_recall     DOUBLE,
    cost_weight          DOUBLE,
    has_cost_matrix      BOOLEAN,
    has_class_weights    BOOLEAN,
    weights_source       VARCHAR,
    original_precision   VARCHAR,
    random_weights       BOOLEAN,
    weights_digest       VARCHAR,
    dataset_digest       VARCHAR,
    status               VARCHAR NOT NULL CHECK (status IN ('completed', 'diverged', 'failed')),
    error                VARCHAR,
    compute_path         VARCHAR CHECK (compute_path IN ('packed', 'dequantised_f32')),
    backend              VARCHAR,
    compute_dtype        VARCHAR,
    blas                 VARCHAR,
    gflops               DOUBLE,
    machine              VARCHAR,
    triage_version       VARCHAR,
    mlx_version          VARCHAR,
    mlx_lm_version       VARCHAR,
    engine_version       INTEGER,
    stored_bytes         BIGINT,
    bits_per_weight      DOUBLE,
    trainable_parameters BIGINT,
    train_loss           DOUBLE,
    valid_loss           DOUBLE,
    best_iteration       INTEGER,
    last_iteration       INTEGER,
    train_seconds        DOUBLE,
    tokens_per_second    DOUBLE,
    weights_memory_bytes BIGINT,
    peak_memory_bytes    BIGINT,
    peak_rss_bytes       BIGINT,
    micro_batch          INTEGER,
    shortened_cases      INTEGER,
    padding_share        DOUBLE,
    started_at           TIMESTAMP,
    finished_at          TIMESTAMP
);
INSERT INTO experiment_of_every_kind BY NAME SELECT * FROM experiment;
DROP TABLE experiment;
ALTER TABLE experiment_of_every_kind RENAME TO experiment;

CREATE TABLE landed_of_every_kind (
    id              VARCHAR PRIMARY KEY,
    kind            VARCHAR NOT NULL CHECK (kind IN ('training', 'evaluation', 'variant', 'benchmark', 'fidelity')),
    manifest_digest VARCHAR NOT NULL,
    loaded_at       TIMESTAMP NOT NULL
);
INSERT INTO landed_of_every_kind BY NAME SELECT * FROM landed;
DROP TABLE landed;
ALTER TABLE landed_of_every_kind RENAME TO landed;

-- A rule without a language model has no likelihood of a completion.
ALTER TABLE prediction ALTER nll DROP NOT NULL;
