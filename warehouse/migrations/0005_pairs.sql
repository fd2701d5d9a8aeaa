-- One row per matched pair of evaluations, rule and metric: 4 bits minus 8 bits on the same cases. Computed by the
-- loader from prediction rows (warehouse/paired.py), never landed.
CREATE TABLE pair_metric (
    base_model      VARCHAR NOT NULL,
    recipe          VARCHAR NOT NULL,
    seed            BIGINT NOT NULL,
    evaluation_set  VARCHAR NOT NULL,
    evaluation_4bit VARCHAR NOT NULL,
    evaluation_8bit VARCHAR NOT NULL,
    rule            VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax')),
    metric          VARCHAR NOT NULL CHECK (metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost')),
    value_4bit      DOUBLE,
    value_8bit      DOUBLE,
    difference      DOUBLE,
    low             DOUBLE, -- the wider of both intervals below
    high            DOUBLE,
    bootstrap_low   DOUBLE,
    bootstrap_high  DOUBLE,
    tango_low       DOUBLE, -- proportions only
    tango_high      DOUBLE,
    method          VARCHAR NOT NULL,
    n               INTEGER NOT NULL,
    groups          INTEGER, -- resampled units where cases are grouped, else NULL
    b               INTEGER, -- cases right at 4 bits only
    c               INTEGER, -- cases right at 8 bits only
    mcnemar_p       DOUBLE CHECK (mcnemar_p BETWEEN 0 AND 1), -- exact, two-sided
    margin          DOUBLE,
    verdict         VARCHAR CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude')),
    note            VARCHAR,
    PRIMARY KEY (evaluation_4bit, evaluation_8bit, rule, metric)
);
