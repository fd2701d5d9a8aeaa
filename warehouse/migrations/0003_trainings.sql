-- One row per training, also of those that diverged or failed; NULL where a figure was not reached or not measured.
CREATE TABLE experiment (
    training_id          VARCHAR PRIMARY KEY,
    cell_id              VARCHAR NOT NULL,
    base_model           VARCHAR NOT NULL,
    bits                 INTEGER CHECK (bits IN (4, 8)), -- NULL: unquantised reference
    recipe               VARCHAR NOT NULL,
    recipe_kind          VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety')),
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

-- One row per training, iteration and split at which something was reported.
CREATE TABLE training_curve (
    training_id       VARCHAR NOT NULL,
    iteration         INTEGER NOT NULL,
    split             VARCHAR NOT NULL CHECK (split IN ('train', 'valid')),
    loss              DOUBLE, -- the training objective
    label_loss        DOUBLE,
    cost              DOUBLE,
    learning_rate     DOUBLE,
    tokens_per_second DOUBLE,
    ed_share          DOUBLE, -- share of cases that argmax sends to ED
    specificity       DOUBLE,
    PRIMARY KEY (training_id, iteration, split)
);
