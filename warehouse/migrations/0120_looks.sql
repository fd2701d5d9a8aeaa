-- Looks are counted: who picks a model by some figures and then reads its test figures has looked at the test set once.

-- One row per `triage best`: what was asked, what was ranked on `valid`, and the one model whose test figures were shown.
CREATE TABLE look (
    look_id       VARCHAR PRIMARY KEY,
    looked_at     TIMESTAMP NOT NULL, -- UTC
    study         VARCHAR NOT NULL,
    precision     VARCHAR, -- NULL: any
    max_megabytes DOUBLE,  -- NULL: any
    objective     VARCHAR NOT NULL,
    ranked        VARCHAR NOT NULL, -- JSON: [{"training_id": ..., "value": ...}], the best first
    candidates    INTEGER NOT NULL CHECK (candidates > 0),
    evaluation_id VARCHAR NOT NULL, -- of the chosen one
    training_id   VARCHAR NOT NULL,
    value         DOUBLE NOT NULL,  -- of the objective on `valid`
    valid_digest  VARCHAR NOT NULL,
    set_digest    VARCHAR NOT NULL  -- of the test set that was looked at
);

-- A CHECK cannot be changed in place.
CREATE TABLE landed_with_looks (
    id              VARCHAR PRIMARY KEY,
    kind            VARCHAR NOT NULL CHECK (
        kind IN ('training', 'evaluation', 'variant', 'benchmark', 'fidelity', 'search', 'sweep', 'dataset', 'look')
    ),
    manifest_digest VARCHAR NOT NULL,
    loaded_at       TIMESTAMP NOT NULL
);
INSERT INTO landed_with_looks BY NAME SELECT * FROM landed;
DROP TABLE landed;
ALTER TABLE landed_with_looks RENAME TO landed;
