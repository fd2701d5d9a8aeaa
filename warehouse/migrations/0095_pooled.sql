-- One row per pool of matched pairs, base model (or 'all'), decision rule and metric: 4 bits minus 8 bits, averaged over the
-- pairs. Computed by the loader from prediction rows (warehouse/pooled.py), never landed.
CREATE TABLE pooled_metric (
    pool           VARCHAR NOT NULL, -- digest of its pairs, as in the view pooled_pair
    base_model     VARCHAR NOT NULL,
    rule           VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax')),
    metric         VARCHAR NOT NULL,
    pairs          INTEGER NOT NULL,
    pairs_left_out INTEGER NOT NULL,
    recipes        INTEGER NOT NULL,
    seeds          INTEGER NOT NULL,
    cases          INTEGER NOT NULL,
    groups         INTEGER,
    value_4bit     DOUBLE,
    value_8bit     DOUBLE,
    difference     DOUBLE,
    standard_error DOUBLE,
    low            DOUBLE,
    high           DOUBLE,
    could_show     DOUBLE,
    seed_sd        DOUBLE,
    margin         DOUBLE NOT NULL,
    p_value        DOUBLE CHECK (p_value BETWEEN 0 AND 1),
    verdict        VARCHAR NOT NULL,
    method         VARCHAR NOT NULL,
    note           VARCHAR,
    PRIMARY KEY (pool, base_model, rule, metric)
);

-- One row per evaluation of a trained model and gate: the bound that allows for all models that were looked at on the same
-- cases. Computed by the loader (warehouse/adjusted_gates.py), never landed.
CREATE TABLE adjusted_bound (
    evaluation_id VARCHAR NOT NULL,
    gate          VARCHAR NOT NULL CHECK (gate IN ('ed_recall', 'ed_f2', 'ed_false_negative_rate')),
    looks         VARCHAR NOT NULL, -- digest of the evaluations that were looked at
    bound         DOUBLE,
    method        VARCHAR NOT NULL,
    note          VARCHAR,
    PRIMARY KEY (evaluation_id, gate)
);
