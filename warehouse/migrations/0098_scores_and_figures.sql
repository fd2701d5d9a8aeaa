-- What a model computes and how it is judged have versions of their own, and more figures are landed.

-- The scores that were judged: the name of their folder. The same scores may be judged again by a later version. Before
-- scoring version 7 they had the name of the evaluation.
ALTER TABLE evaluation ADD COLUMN scores_id VARCHAR;
UPDATE evaluation SET scores_id = evaluation_id;

-- One row per evaluation whose scores a later version judged again. The other evaluation took its place: views show that one
-- alone. Computed by the loader, never landed.
CREATE TABLE judged_again (
    evaluation_id VARCHAR PRIMARY KEY,
    judged_now    VARCHAR NOT NULL
);

-- The scores whose rules judge a moved adapter, those of the adapter itself. NULL in rows of earlier versions.
ALTER TABLE experiment ADD COLUMN source_scores_id VARCHAR;

-- One row per evaluation, subgroup field, value and metric: every metric of the primary rule, and those of p(ED), among these
-- cases. value NULL means "not available", and note says why. A CHECK, which allowed ED recall alone, cannot be changed in
-- place.
CREATE TABLE subgroup_metric_of_all (
    evaluation_id VARCHAR NOT NULL,
    field         VARCHAR NOT NULL, -- age_band, voice, spelling, or what a user's own set has
    subgroup      VARCHAR NOT NULL,
    metric        VARCHAR NOT NULL,
    value         DOUBLE,
    low           DOUBLE,
    high          DOUBLE,
    method        VARCHAR,
    n             INTEGER NOT NULL,
    note          VARCHAR,
    CHECK (value IS NOT NULL OR note IS NOT NULL),
    PRIMARY KEY (evaluation_id, field, subgroup, metric)
);
INSERT INTO subgroup_metric_of_all BY NAME SELECT * FROM subgroup_metric;
DROP TABLE subgroup_metric;
ALTER TABLE subgroup_metric_of_all RENAME TO subgroup_metric;

-- One row per evaluation and threshold on p(ED): the decision curve of sending to ED where p(ED) reaches the threshold.
CREATE TABLE net_benefit (
    evaluation_id       VARCHAR NOT NULL,
    threshold           DOUBLE NOT NULL CHECK (threshold > 0 AND threshold < 1),
    n                   INTEGER NOT NULL,
    net_benefit         DOUBLE NOT NULL, -- per case; sending nobody to ED has 0
    low                 DOUBLE,
    high                DOUBLE,
    always_ed           DOUBLE NOT NULL, -- net benefit of sending everybody to ED
    over_always_ed      DOUBLE NOT NULL, -- net_benefit - always_ed, on the same cases
    over_always_ed_low  DOUBLE,
    over_always_ed_high DOUBLE,
    method              VARCHAR NOT NULL,
    note                VARCHAR,
    PRIMARY KEY (evaluation_id, threshold)
);
