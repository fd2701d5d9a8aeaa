-- Pools also compare the models where a threshold chosen on `calibration` decides in each. The next command that shows them
-- makes them again.
DROP TABLE pooled_metric;
CREATE TABLE pooled_metric (
    pool           VARCHAR NOT NULL,
    base_model     VARCHAR NOT NULL,
    rule           VARCHAR NOT NULL,
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
    p_value        DOUBLE,
    verdict        VARCHAR NOT NULL,
    method         VARCHAR NOT NULL,
    note           VARCHAR,
    PRIMARY KEY (pool, base_model, rule, metric),
    CHECK (rule IN ('primary', 'argmax', 'target_recall')),
    CHECK (p_value BETWEEN 0 AND 1)
);
