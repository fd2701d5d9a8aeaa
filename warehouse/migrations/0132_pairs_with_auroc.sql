-- Pairs and pools compare the AUROC of emergencies, too. Pairs are made again now, and pools by the next command that shows
-- them.

DROP TABLE pair_metric;
CREATE TABLE pair_metric (
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
    CHECK (metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost', 'ed_auroc')),
    CHECK (mcnemar_p BETWEEN 0 AND 1),
    CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude'))
);

DROP TABLE reference_metric;
CREATE TABLE reference_metric (
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
    CHECK (metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost', 'ed_auroc', 'over_triage', 'loss')),
    CHECK (mcnemar_p BETWEEN 0 AND 1),
    CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude'))
);

DELETE FROM pooled_metric;
