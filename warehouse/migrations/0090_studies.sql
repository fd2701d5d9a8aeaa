-- Studies are kept apart: which sweeps there were, what each of them asked for, and on which cases. A landed result is
-- immutable and may belong to several studies, so membership lands by itself.

-- One row per sweep. Its study has the name of the grid.
CREATE TABLE sweep (
    sweep_id       VARCHAR PRIMARY KEY,
    study          VARCHAR NOT NULL,
    grid           VARCHAR NOT NULL,
    grid_digest    VARCHAR NOT NULL, -- of the settings, with what the command changed
    dataset_digest VARCHAR,
    experiments    INTEGER NOT NULL, -- that the sweep asked for
    failures       INTEGER, -- NULL until it has finished
    started_at     TIMESTAMP NOT NULL,
    finished_at    TIMESTAMP
);

-- One row per sweep and training, evaluation or fidelity that it made, or found.
CREATE TABLE sweep_member (
    sweep_id VARCHAR NOT NULL,
    id       VARCHAR NOT NULL,
    PRIMARY KEY (sweep_id, id)
);

-- One row per prepared dataset. dataset_digest is the one of its folder and of its manifest.
CREATE TABLE dataset (
    dataset_id        VARCHAR PRIMARY KEY,
    dataset_digest    VARCHAR NOT NULL,
    dataset           VARCHAR NOT NULL, -- its name
    sets_digest       VARCHAR NOT NULL, -- of its four own sets: so rows of earlier versions name it
    is_embedded       BOOLEAN NOT NULL,
    seed              BIGINT NOT NULL,
    train_cases       INTEGER NOT NULL,
    valid_cases       INTEGER NOT NULL,
    calibration_cases INTEGER NOT NULL,
    test_cases        INTEGER NOT NULL,
    further_sets      INTEGER NOT NULL, -- evaluation sets beside test
    created_at        TIMESTAMP
);

-- One row per dataset and set.
CREATE TABLE dataset_set (
    dataset_id VARCHAR NOT NULL,
    name       VARCHAR NOT NULL,
    set_digest VARCHAR NOT NULL,
    cases      INTEGER NOT NULL,
    ed_cases   INTEGER NOT NULL,
    gp_cases   INTEGER NOT NULL,
    home_cases INTEGER NOT NULL,
    groups     INTEGER, -- NULL: its cases have none
    is_further BOOLEAN NOT NULL,
    PRIMARY KEY (dataset_id, name)
);

-- One row per evaluation with a cost matrix, true label and decision. Computed by the loader, never landed.
CREATE TABLE cost (
    evaluation_id VARCHAR NOT NULL,
    label         VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    decision      VARCHAR NOT NULL CHECK (decision IN ('ED', 'GP', 'HOME')),
    cost          DOUBLE NOT NULL,
    PRIMARY KEY (evaluation_id, label, decision)
);
INSERT INTO cost
SELECT
    evaluation_id,
    label,
    decision,
    json_extract_string(matrix, '$.' || label || '.' || decision)::DOUBLE
FROM (SELECT evaluation_id, TRY_CAST(cost_matrix AS JSON) AS matrix FROM evaluation)
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS truths (label)
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS decisions (decision)
WHERE TRY_CAST(json_extract_string(matrix, '$.' || label || '.' || decision) AS DOUBLE) IS NOT NULL;

-- Sweeps and datasets land too. A CHECK cannot be changed in place.
CREATE TABLE landed_with_sweeps (
    id              VARCHAR PRIMARY KEY,
    kind            VARCHAR NOT NULL CHECK (
        kind IN ('training', 'evaluation', 'variant', 'benchmark', 'fidelity', 'search', 'sweep', 'dataset')
    ),
    manifest_digest VARCHAR NOT NULL,
    loaded_at       TIMESTAMP NOT NULL
);
INSERT INTO landed_with_sweeps BY NAME SELECT * FROM landed;
DROP TABLE landed;
ALTER TABLE landed_with_sweeps RENAME TO landed;
