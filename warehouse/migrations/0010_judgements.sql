-- How far the figures of an evaluation can be trusted, and what may be done with its probabilities.

-- One row per evaluation, subgroup field and value: a figure of the primary rule among those cases. value NULL means
-- "not available", and note says why.
CREATE TABLE subgroup_metric (
    evaluation_id VARCHAR NOT NULL,
    field         VARCHAR NOT NULL, -- age_band, voice, spelling, or what a user's own set has
    subgroup      VARCHAR NOT NULL,
    metric        VARCHAR NOT NULL CHECK (metric IN ('ed_recall')),
    value         DOUBLE,
    low           DOUBLE,
    high          DOUBLE,
    method        VARCHAR,
    n             INTEGER NOT NULL,
    note          VARCHAR,
    CHECK (value IS NOT NULL OR note IS NOT NULL),
    PRIMARY KEY (evaluation_id, field, subgroup, metric)
);

-- One row per evaluation and bin low <= p(ED) < high (the last bin includes 1), narrow where p(ED) is small.
CREATE TABLE reliability (
    evaluation_id VARCHAR NOT NULL,
    low           DOUBLE NOT NULL,
    high          DOUBLE NOT NULL,
    n             INTEGER NOT NULL,
    mean_p_ed     DOUBLE,
    ed_share      DOUBLE,
    share_low     DOUBLE, -- exact 95 % interval
    share_high    DOUBLE,
    PRIMARY KEY (evaluation_id, low)
);

-- One row per evaluation and score that could flag cases for review, on the cases that went through dropout. The vote
-- entropy flags by its threshold; its rivals flag as many cases.
CREATE TABLE review_flag (
    evaluation_id     VARCHAR NOT NULL,
    score             VARCHAR NOT NULL CHECK (score IN ('vote_entropy', 'max_probability', 'single_pass_entropy')),
    cases             INTEGER NOT NULL,
    load              DOUBLE NOT NULL CHECK (load BETWEEN 0 AND 1),
    aurc              DOUBLE NOT NULL, -- area under the risk-coverage curve, lower is better
    error_kept        DOUBLE, -- NULL where no case is kept
    error_flagged     DOUBLE,
    missed_ed         INTEGER NOT NULL,
    missed_ed_flagged DOUBLE, -- share of missed emergencies that are flagged; NULL where none was missed
    aurc_difference   DOUBLE, -- this score's minus the vote entropy's, NULL for the vote entropy itself
    difference_low    DOUBLE,
    difference_high   DOUBLE,
    verdict           VARCHAR, -- which of both is better, or 'cannot tell'
    note              VARCHAR,
    PRIMARY KEY (evaluation_id, score)
);

-- One row per evaluation: conformal sets whose expected ED miss rate is at most `miss_rate` on exchangeable cases.
CREATE TABLE conformal (
    evaluation_id   VARCHAR PRIMARY KEY,
    miss_rate       DOUBLE NOT NULL CHECK (miss_rate BETWEEN 0 AND 1),
    threshold_ed    DOUBLE, -- a label is in a case's set if its probability reaches its threshold
    threshold_gp    DOUBLE,
    threshold_home  DOUBLE,
    calibration_ed  INTEGER NOT NULL,
    ed_cases        INTEGER NOT NULL,
    ed_missed       INTEGER, -- ED cases of the set whose conformal set lacks ED
    ed_miss_rate    DOUBLE,
    miss_low        DOUBLE, -- exact 95 % interval
    miss_high       DOUBLE,
    abstain_rate    DOUBLE, -- share of cases whose set is not one label
    mean_set_size   DOUBLE,
    error_decided   DOUBLE, -- error rate among the cases whose set is one label
    note            VARCHAR
);

-- Beside the votes by argmax: what the primary rule decides in each pass, NULL where it gives no decision.
ALTER TABLE mc_dropout ADD COLUMN decision_majority VARCHAR;
ALTER TABLE mc_dropout ADD COLUMN decision_confidence DOUBLE;
ALTER TABLE mc_dropout ADD COLUMN decision_entropy_nats DOUBLE;
