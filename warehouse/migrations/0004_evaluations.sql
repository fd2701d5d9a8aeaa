-- One row per evaluation of a trained adapter on one evaluation set.
CREATE TABLE evaluation (
    evaluation_id     VARCHAR PRIMARY KEY,
    training_id       VARCHAR NOT NULL,
    evaluation_set    VARCHAR NOT NULL,
    set_digest        VARCHAR NOT NULL,
    cases             INTEGER NOT NULL CHECK (cases > 0),
    calibration_cases INTEGER,
    has_groups        BOOLEAN NOT NULL,
    loss              DOUBLE, -- nats per completion token
    perplexity        DOUBLE,
    accuracy          DOUBLE CHECK (accuracy BETWEEN 0 AND 1), -- of the argmax
    primary_rule      VARCHAR NOT NULL CHECK (primary_rule IN ('argmax', 'target_recall', 'min_cost')),
    threshold         DOUBLE,
    verdict           VARCHAR NOT NULL CHECK (verdict IN ('passes_gates', 'provisional', 'unsafe')),
    mc_status         VARCHAR CHECK (mc_status IN ('available', 'not available')),
    mc_reason         VARCHAR,
    mc_passes         INTEGER,
    mc_cases          INTEGER,
    ed_prevalence     DOUBLE CHECK (ed_prevalence BETWEEN 0 AND 1),
    score_seconds     DOUBLE,
    mc_seconds        DOUBLE,
    scoring_version   INTEGER NOT NULL,
    created_at        TIMESTAMP NOT NULL,
    cost_matrix       VARCHAR -- JSON {truth: {decision: cost}} behind expected_cost, NULL where none applies
);

-- One row per evaluation and case. Cases are known by id and digest: no patient text here.
CREATE TABLE prediction (
    evaluation_id VARCHAR NOT NULL,
    case_id       VARCHAR NOT NULL,
    case_digest   VARCHAR,
    case_group    VARCHAR, -- the condition; cases of one group are not independent
    label         VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    p_ed          DOUBLE NOT NULL CHECK (p_ed BETWEEN 0 AND 1.000001),
    p_gp          DOUBLE NOT NULL CHECK (p_gp BETWEEN 0 AND 1.000001),
    p_home        DOUBLE NOT NULL CHECK (p_home BETWEEN 0 AND 1.000001),
    nll           DOUBLE NOT NULL,
    argmax        VARCHAR NOT NULL CHECK (argmax IN ('ED', 'GP', 'HOME')),
    decision      VARCHAR CHECK (decision IN ('ED', 'GP', 'HOME')), -- by the primary rule, NULL where it gives none
    PRIMARY KEY (evaluation_id, case_id)
);

-- One row per evaluation, decision rule and metric; value NULL means "not available", and note says why.
CREATE TABLE metric (
    evaluation_id VARCHAR NOT NULL,
    rule          VARCHAR NOT NULL CHECK (rule IN ('argmax', 'target_recall', 'min_cost')),
    metric        VARCHAR NOT NULL,
    value         DOUBLE,
    low           DOUBLE,
    high          DOUBLE,
    method        VARCHAR,
    n             INTEGER,
    note          VARCHAR,
    CHECK (value IS NOT NULL OR note IS NOT NULL),
    PRIMARY KEY (evaluation_id, rule, metric)
);

-- One row per evaluation and gate, judged on the primary rule.
CREATE TABLE gate (
    evaluation_id VARCHAR NOT NULL,
    gate          VARCHAR NOT NULL CHECK (gate IN ('ed_recall', 'ed_f2', 'ed_false_negative_rate')),
    state         VARCHAR NOT NULL CHECK (state IN ('PASS', 'PROVISIONAL', 'FAIL', 'NOT AVAILABLE')),
    threshold     DOUBLE NOT NULL,
    value         DOUBLE,
    bound         DOUBLE, -- the less favourable end of the 95 % interval
    successes     INTEGER,
    n             INTEGER,
    method        VARCHAR,
    note          VARCHAR,
    PRIMARY KEY (evaluation_id, gate)
);

-- One row per evaluation and case that went through Monte Carlo dropout.
CREATE TABLE mc_dropout (
    evaluation_id           VARCHAR NOT NULL,
    case_id                 VARCHAR NOT NULL,
    passes                  INTEGER NOT NULL CHECK (passes >= 2),
    majority                VARCHAR NOT NULL CHECK (majority IN ('ED', 'GP', 'HOME')),
    confidence              DOUBLE NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    confidence_se           DOUBLE,
    entropy_nats            DOUBLE NOT NULL CHECK (entropy_nats BETWEEN 0 AND 1.098613), -- ln 3
    p_ed                    DOUBLE NOT NULL,
    p_gp                    DOUBLE NOT NULL,
    p_home                  DOUBLE NOT NULL,
    predictive_entropy_nats DOUBLE,
    mutual_information_nats DOUBLE,
    review                  BOOLEAN NOT NULL,
    PRIMARY KEY (evaluation_id, case_id)
);
