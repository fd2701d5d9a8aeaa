-- One row per pair of a precision and its reference (bfloat16), rule and metric: the precision minus the reference on the
-- same cases. Computed by the loader from prediction rows (warehouse/paired.py), never landed.
CREATE TABLE reference_metric (
    evaluation_id        VARCHAR NOT NULL,
    reference_evaluation VARCHAR NOT NULL,
    rule                 VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax')),
    metric               VARCHAR NOT NULL CHECK (
        metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'expected_cost', 'over_triage', 'loss')
    ),
    value                DOUBLE,
    reference_value      DOUBLE,
    difference           DOUBLE,
    low                  DOUBLE, -- the wider of both intervals below
    high                 DOUBLE,
    bootstrap_low        DOUBLE,
    bootstrap_high       DOUBLE,
    tango_low            DOUBLE, -- proportions only
    tango_high           DOUBLE,
    method               VARCHAR NOT NULL,
    n                    INTEGER NOT NULL,
    groups               INTEGER, -- resampled units where cases are grouped, else NULL
    right_only           INTEGER, -- cases right at the precision only
    reference_right_only INTEGER, -- cases right at the reference only
    mcnemar_p            DOUBLE CHECK (mcnemar_p BETWEEN 0 AND 1), -- exact, two-sided
    margin               DOUBLE,
    verdict              VARCHAR CHECK (verdict IN ('not inferior', 'inferior', 'cannot conclude')),
    note                 VARCHAR,
    PRIMARY KEY (evaluation_id, reference_evaluation, rule, metric)
);
