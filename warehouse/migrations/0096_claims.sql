-- One row per claim and measurement, as `triage claims` measured them last; one without figures where there was none.
CREATE TABLE claim (
    claim       VARCHAR NOT NULL,
    measurement INTEGER NOT NULL,
    sentence    VARCHAR NOT NULL,
    verdict     VARCHAR NOT NULL CHECK (
        verdict IN ('supported', 'refuted', 'cannot conclude', 'not measured here')
    ),
    least       DOUBLE NOT NULL,
    most        DOUBLE NOT NULL,
    value       DOUBLE,
    low         DOUBLE,
    high        DOUBLE,
    row_verdict VARCHAR NOT NULL,
    about       VARCHAR,
    measured_at TIMESTAMP NOT NULL,
    PRIMARY KEY (claim, measurement)
);
