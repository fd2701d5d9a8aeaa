-- One row per evaluation and decision rule: its confusion matrix and mean loss. Computed by the loader from prediction rows
-- (view recounted_decisions), never landed: one pass over all predictions takes seconds in a large warehouse.
CREATE TABLE decision_count (
    evaluation_id VARCHAR NOT NULL,
    rule          VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax', 'target_recall', 'min_cost')),
    ed_as_ed      BIGINT NOT NULL, -- label ED, decision ED
    ed_as_gp      BIGINT NOT NULL,
    ed_as_home    BIGINT NOT NULL,
    gp_as_ed      BIGINT NOT NULL,
    gp_as_gp      BIGINT NOT NULL,
    gp_as_home    BIGINT NOT NULL,
    home_as_ed    BIGINT NOT NULL,
    home_as_gp    BIGINT NOT NULL,
    home_as_home  BIGINT NOT NULL,
    loss          DOUBLE,
    PRIMARY KEY (evaluation_id, rule)
);

-- A primary key on (evaluation_id, case_id) doubles the size of a row. The loader refuses a landing folder with a case twice,
-- and the audit duplicate_keys finds one.
CREATE TABLE prediction_without_index (
    evaluation_id VARCHAR NOT NULL,
    case_id       VARCHAR NOT NULL,
    case_digest   VARCHAR,
    case_group    VARCHAR,
    label         VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    p_ed          DOUBLE NOT NULL CHECK (p_ed BETWEEN 0 AND 1.000001),
    p_gp          DOUBLE NOT NULL CHECK (p_gp BETWEEN 0 AND 1.000001),
    p_home        DOUBLE NOT NULL CHECK (p_home BETWEEN 0 AND 1.000001),
    nll           DOUBLE,
    argmax        VARCHAR NOT NULL CHECK (argmax IN ('ED', 'GP', 'HOME')),
    decision      VARCHAR CHECK (decision IN ('ED', 'GP', 'HOME')),
    target_recall VARCHAR,
    min_cost      VARCHAR
);
INSERT INTO prediction_without_index BY NAME SELECT * FROM prediction ORDER BY evaluation_id, case_id;
DROP TABLE prediction;
ALTER TABLE prediction_without_index RENAME TO prediction;
