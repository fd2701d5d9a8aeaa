-- An index for a primary key is written anew at each closing of the file after a load, and takes most of that time in a
-- large warehouse: 30 ms for the metrics of 10,000 evaluations. Tables with rows of every training, evaluation or pair do
-- without, as prediction does (0097); landed keeps the one index of ids. All rows of one id are replaced together, so a key
-- occurs twice only where one landing folder has it twice: the loader refuses that, and the audit duplicate_keys finds it.

-- One row per training.
CREATE TABLE experiment_without_index (
    training_id          VARCHAR NOT NULL,
    cell_id              VARCHAR NOT NULL,
    base_model           VARCHAR NOT NULL,
    bits                 INTEGER,
    precision            VARCHAR,
    recipe               VARCHAR NOT NULL,
    recipe_kind          VARCHAR NOT NULL,
    seed                 BIGINT NOT NULL,
    group_size           INTEGER,
    num_layers           INTEGER,
    learning_rate        DOUBLE,
    batch_size           INTEGER,
    rank                 INTEGER,
    scale                DOUBLE,
    peft_alpha           DOUBLE,
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
    status               VARCHAR NOT NULL,
    error                VARCHAR,
    compute_path         VARCHAR,
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
    finished_at          TIMESTAMP,
    cache_memory_bytes   BIGINT,
    memory_budget_bytes  BIGINT,
    checkpointed_blocks  BOOLEAN,
    settings_digest      VARCHAR,
    source_training_id   VARCHAR,
    source_digest        VARCHAR,
    source_scores_id     VARCHAR,
    CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    CHECK (recipe_kind IN ('standard', 'safety', 'baseline', 'moved_adapter')),
    CHECK (status IN ('completed', 'diverged', 'failed')),
    CHECK (compute_path IN ('packed', 'dequantised_f32'))
);
INSERT INTO experiment_without_index BY NAME SELECT * FROM experiment;
DROP TABLE experiment;
ALTER TABLE experiment_without_index RENAME TO experiment;

-- One row per evaluation.
CREATE TABLE evaluation_without_index (
    evaluation_id     VARCHAR NOT NULL,
    training_id       VARCHAR NOT NULL,
    evaluation_set    VARCHAR NOT NULL,
    set_digest        VARCHAR NOT NULL,
    cases             INTEGER NOT NULL,
    calibration_cases INTEGER,
    has_groups        BOOLEAN NOT NULL,
    loss              DOUBLE,
    perplexity        DOUBLE,
    accuracy          DOUBLE,
    primary_rule      VARCHAR NOT NULL,
    threshold         DOUBLE,
    verdict           VARCHAR NOT NULL,
    mc_status         VARCHAR,
    mc_reason         VARCHAR,
    mc_passes         INTEGER,
    mc_cases          INTEGER,
    ed_prevalence     DOUBLE,
    score_seconds     DOUBLE,
    mc_seconds        DOUBLE,
    scoring_version   INTEGER NOT NULL,
    created_at        TIMESTAMP NOT NULL,
    cost_matrix       VARCHAR,
    shortened_cases   INTEGER,
    scores_id         VARCHAR,
    CHECK (cases > 0),
    CHECK (accuracy BETWEEN 0 AND 1),
    CHECK (primary_rule IN ('argmax', 'target_recall', 'min_cost')),
    CHECK (verdict IN ('passes_gates', 'provisional', 'unsafe')),
    CHECK (mc_status IN ('available', 'not available')),
    CHECK (ed_prevalence BETWEEN 0 AND 1)
);
INSERT INTO evaluation_without_index BY NAME SELECT * FROM evaluation;
DROP TABLE evaluation;
ALTER TABLE evaluation_without_index RENAME TO evaluation;

-- One row per training, iteration and split at which something was reported.
CREATE TABLE training_curve_without_index (
    training_id       VARCHAR NOT NULL,
    iteration         INTEGER NOT NULL,
    split             VARCHAR NOT NULL,
    loss              DOUBLE,
    label_loss        DOUBLE,
    cost              DOUBLE,
    learning_rate     DOUBLE,
    tokens_per_second DOUBLE,
    ed_share          DOUBLE,
    specificity       DOUBLE,
    other_loss        DOUBLE,
    CHECK (split IN ('train', 'valid'))
);
INSERT INTO training_curve_without_index BY NAME SELECT * FROM training_curve;
DROP TABLE training_curve;
ALTER TABLE training_curve_without_index RENAME TO training_curve;

-- One row per evaluation, decision rule and metric.
CREATE TABLE metric_without_index (
    evaluation_id  VARCHAR NOT NULL,
    rule           VARCHAR NOT NULL,
    metric         VARCHAR NOT NULL,
    value          DOUBLE,
    low            DOUBLE,
    high           DOUBLE,
    method         VARCHAR,
    n              INTEGER,
    note           VARCHAR,
    exact_low      DOUBLE,
    exact_high     DOUBLE,
    clustered_low  DOUBLE,
    clustered_high DOUBLE,
    CHECK (rule IN ('argmax', 'target_recall', 'min_cost')),
    CHECK (value IS NOT NULL OR note IS NOT NULL)
);
INSERT INTO metric_without_index BY NAME SELECT * FROM metric;
DROP TABLE metric;
ALTER TABLE metric_without_index RENAME TO metric;

-- One row per evaluation and decision rule.
CREATE TABLE decision_rule_without_index (
    evaluation_id      VARCHAR NOT NULL,
    rule               VARCHAR NOT NULL,
    target             DOUBLE,
    threshold          DOUBLE,
    allowed_misses     INTEGER,
    misses             INTEGER,
    n_ed               INTEGER,
    bound              DOUBLE,
    temperature        DOUBLE,
    bias_ed            DOUBLE,
    bias_gp            DOUBLE,
    bias_home          DOUBLE,
    at_bound           BOOLEAN,
    calibration_digest VARCHAR NOT NULL,
    chosen_at          TIMESTAMP NOT NULL,
    test_scored_at     TIMESTAMP NOT NULL,
    note               VARCHAR,
    CHECK (rule IN ('argmax', 'target_recall', 'min_cost'))
);
INSERT INTO decision_rule_without_index BY NAME SELECT * FROM decision_rule;
DROP TABLE decision_rule;
ALTER TABLE decision_rule_without_index RENAME TO decision_rule;

-- One row per evaluation and gate.
CREATE TABLE gate_without_index (
    evaluation_id  VARCHAR NOT NULL,
    gate           VARCHAR NOT NULL,
    state          VARCHAR NOT NULL,
    threshold      DOUBLE NOT NULL,
    value          DOUBLE,
    bound          DOUBLE,
    successes      INTEGER,
    n              INTEGER,
    method         VARCHAR,
    note           VARCHAR,
    exact_low      DOUBLE,
    exact_high     DOUBLE,
    clustered_low  DOUBLE,
    clustered_high DOUBLE,
    CHECK (gate IN ('ed_recall', 'ed_f2', 'ed_false_negative_rate')),
    CHECK (state IN ('PASS', 'PROVISIONAL', 'FAIL', 'NOT AVAILABLE'))
);
INSERT INTO gate_without_index BY NAME SELECT * FROM gate;
DROP TABLE gate;
ALTER TABLE gate_without_index RENAME TO gate;

-- One row per evaluation and case that went through Monte Carlo dropout.
CREATE TABLE mc_dropout_without_index (
    evaluation_id           VARCHAR NOT NULL,
    case_id                 VARCHAR NOT NULL,
    passes                  INTEGER NOT NULL,
    majority                VARCHAR NOT NULL,
    confidence              DOUBLE NOT NULL,
    confidence_se           DOUBLE,
    entropy_nats            DOUBLE NOT NULL,
    p_ed                    DOUBLE NOT NULL,
    p_gp                    DOUBLE NOT NULL,
    p_home                  DOUBLE NOT NULL,
    predictive_entropy_nats DOUBLE,
    mutual_information_nats DOUBLE,
    review                  BOOLEAN NOT NULL,
    decision_majority       VARCHAR,
    decision_confidence     DOUBLE,
    decision_entropy_nats   DOUBLE,
    CHECK (passes >= 2),
    CHECK (majority IN ('ED', 'GP', 'HOME')),
    CHECK (confidence BETWEEN 0 AND 1),
    CHECK (entropy_nats BETWEEN 0 AND 1.098613)
);
INSERT INTO mc_dropout_without_index BY NAME SELECT * FROM mc_dropout;
DROP TABLE mc_dropout;
ALTER TABLE mc_dropout_without_index RENAME TO mc_dropout;

-- One row per evaluation, subgroup field, value and metric.
CREATE TABLE subgroup_metric_without_index (
    evaluation_id VARCHAR NOT NULL,
    field         VARCHAR NOT NULL,
    subgroup      VARCHAR NOT NULL,
    metric        VARCHAR NOT NULL,
    value         DOUBLE,
    low           DOUBLE,
    high          DOUBLE,
    method        VARCHAR,
    n             INTEGER NOT NULL,
    note          VARCHAR,
    CHECK (value IS NOT NULL OR note IS NOT NULL)
);
INSERT INTO subgroup_metric_without_index BY NAME SELECT * FROM subgroup_metric;
DROP TABLE subgroup_metric;
ALTER TABLE subgroup_metric_without_index RENAME TO subgroup_metric;

-- One row per evaluation and bin of p(ED).
CREATE TABLE reliability_without_index (
    evaluation_id VARCHAR NOT NULL,
    low           DOUBLE NOT NULL,
    high          DOUBLE NOT NULL,
    n             INTEGER NOT NULL,
    mean_p_ed     DOUBLE,
    ed_share      DOUBLE,
    share_low     DOUBLE,
    share_high    DOUBLE
);
INSERT INTO reliability_without_index BY NAME SELECT * FROM reliability;
DROP TABLE reliability;
ALTER TABLE reliability_without_index RENAME TO reliability;

-- One row per evaluation and threshold on p(ED).
CREATE TABLE net_benefit_without_index (
    evaluation_id       VARCHAR NOT NULL,
    threshold           DOUBLE NOT NULL,
    n                   INTEGER NOT NULL,
    net_benefit         DOUBLE NOT NULL,
    low                 DOUBLE,
    high                DOUBLE,
    always_ed           DOUBLE NOT NULL,
    over_always_ed      DOUBLE NOT NULL,
    over_always_ed_low  DOUBLE,
    over_always_ed_high DOUBLE,
    method              VARCHAR NOT NULL,
    note                VARCHAR,
    CHECK (threshold > 0 AND threshold < 1)
);
INSERT INTO net_benefit_without_index BY NAME SELECT * FROM net_benefit;
DROP TABLE net_benefit;
ALTER TABLE net_benefit_without_index RENAME TO net_benefit;

-- One row per evaluation and score that flags cases for review.
CREATE TABLE review_flag_without_index (
    evaluation_id     VARCHAR NOT NULL,
    score             VARCHAR NOT NULL,
    cases             INTEGER NOT NULL,
    load              DOUBLE NOT NULL,
    aurc              DOUBLE NOT NULL,
    error_kept        DOUBLE,
    error_flagged     DOUBLE,
    missed_ed         INTEGER NOT NULL,
    missed_ed_flagged DOUBLE,
    aurc_difference   DOUBLE,
    difference_low    DOUBLE,
    difference_high   DOUBLE,
    verdict           VARCHAR,
    note              VARCHAR,
    CHECK (score IN ('vote_entropy', 'max_probability', 'single_pass_entropy')),
    CHECK (load BETWEEN 0 AND 1)
);
INSERT INTO review_flag_without_index BY NAME SELECT * FROM review_flag;
DROP TABLE review_flag;
ALTER TABLE review_flag_without_index RENAME TO review_flag;

-- One row per evaluation.
CREATE TABLE conformal_without_index (
    evaluation_id  VARCHAR NOT NULL,
    miss_rate      DOUBLE NOT NULL,
    threshold_ed   DOUBLE,
    threshold_gp   DOUBLE,
    threshold_home DOUBLE,
    calibration_ed INTEGER NOT NULL,
    ed_cases       INTEGER NOT NULL,
    ed_missed      INTEGER,
    ed_miss_rate   DOUBLE,
    miss_low       DOUBLE,
    miss_high      DOUBLE,
    abstain_rate   DOUBLE,
    mean_set_size  DOUBLE,
    error_decided  DOUBLE,
    note           VARCHAR,
    miss_method    VARCHAR,
    abstain_low    DOUBLE,
    abstain_high   DOUBLE,
    error_low      DOUBLE,
    error_high     DOUBLE,
    CHECK (miss_rate BETWEEN 0 AND 1)
);
INSERT INTO conformal_without_index BY NAME SELECT * FROM conformal;
DROP TABLE conformal;
ALTER TABLE conformal_without_index RENAME TO conformal;

-- One row per evaluation, true label and decision.
CREATE TABLE cost_without_index (
    evaluation_id VARCHAR NOT NULL,
    label         VARCHAR NOT NULL,
    decision      VARCHAR NOT NULL,
    cost          DOUBLE NOT NULL,
    CHECK (label IN ('ED', 'GP', 'HOME')),
    CHECK (decision IN ('ED', 'GP', 'HOME'))
);
INSERT INTO cost_without_index BY NAME SELECT * FROM cost;
DROP TABLE cost;
ALTER TABLE cost_without_index RENAME TO cost;

-- One row per evaluation and decision rule.
CREATE TABLE decision_count_without_index (
    evaluation_id VARCHAR NOT NULL,
    rule          VARCHAR NOT NULL,
    ed_as_ed      BIGINT NOT NULL,
    ed_as_gp      BIGINT NOT NULL,
    ed_as_home    BIGINT NOT NULL,
    gp_as_ed      BIGINT NOT NULL,
    gp_as_gp      BIGINT NOT NULL,
    gp_as_home    BIGINT NOT NULL,
    home_as_ed    BIGINT NOT NULL,
    home_as_gp    BIGINT NOT NULL,
    home_as_home  BIGINT NOT NULL,
    loss          DOUBLE,
    CHECK (rule IN ('primary', 'argmax', 'target_recall', 'min_cost'))
);
INSERT INTO decision_count_without_index BY NAME SELECT * FROM decision_count;
DROP TABLE decision_count;
ALTER TABLE decision_count_without_index RENAME TO decision_count;

-- One row per pair of 4 and 8 bits, rule and metric.
CREATE TABLE pair_metric_without_index (
    base_model      VARCHAR NOT NULL,
    recipe          VARCHAR NOT NULL,
    seed            BIGINT NOT NULL,
    evaluation_set  VARCHAR NOT NULL,
    evaluation_4bit VARCHAR NOT NULL,
    evaluation_8bit VARCHAR NOT NULL,
    rule            VARCHAR NOT NULL,
    metric          VARCHAR NOT NULL,
    value_4bit      DOUBLE,
    value_8bit      DOUBLE,
    difference      DOUBLE,
    low             DOUBLE,
    high            DOUBLE,
    bootstrap_low   DOUBLE,
    bootstrap_high  DOUBLE,
    tango_low       DOUBLE,
    tango_high      DOUBLE,
    method          VARCHAR NOT NULL,
    n               INTEGER NOT NULL,
    groups          INTEGER,
    b               INTEGER,
    c               INTEGER,
    mcnemar_p       DOUBLE,
    margin          DOUBLE,
    verdict         VARCHAR,
    note            VARCHAR,
    CHECK (rule IN ('primary', 'argmax')),
    CHECK (metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost')),
    CHECK (mcnemar_p BETWEEN 0 AND 1),
    CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude'))
);
INSERT INTO pair_metric_without_index BY NAME SELECT * FROM pair_metric;
DROP TABLE pair_metric;
ALTER TABLE pair_metric_without_index RENAME TO pair_metric;

-- One row per pair with the reference, rule and metric.
CREATE TABLE reference_metric_without_index (
    evaluation_id        VARCHAR NOT NULL,
    reference_evaluation VARCHAR NOT NULL,
    rule                 VARCHAR NOT NULL,
    metric               VARCHAR NOT NULL,
    value                DOUBLE,
    reference_value      DOUBLE,
    difference           DOUBLE,
    low                  DOUBLE,
    high                 DOUBLE,
    bootstrap_low        DOUBLE,
    bootstrap_high       DOUBLE,
    tango_low            DOUBLE,
    tango_high           DOUBLE,
    method               VARCHAR NOT NULL,
    n                    INTEGER NOT NULL,
    groups               INTEGER,
    right_only           INTEGER,
    reference_right_only INTEGER,
    mcnemar_p            DOUBLE,
    margin               DOUBLE,
    verdict              VARCHAR,
    note                 VARCHAR,
    CHECK (rule IN ('primary', 'argmax')),
    CHECK (metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost', 'over_triage', 'loss')),
    CHECK (mcnemar_p BETWEEN 0 AND 1),
    CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude'))
);
INSERT INTO reference_metric_without_index BY NAME SELECT * FROM reference_metric;
DROP TABLE reference_metric;
ALTER TABLE reference_metric_without_index RENAME TO reference_metric;
