-- One row per benchmark run, case and metric, in long form: runs on other machines and versions stay comparable.
CREATE TABLE benchmark (
    run_id     VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    machine    VARCHAR NOT NULL,
    versions   VARCHAR NOT NULL,
    name       VARCHAR NOT NULL,
    "case"     VARCHAR NOT NULL, -- a reserved word: quote it in SQL
    metric     VARCHAR NOT NULL,
    value      DOUBLE,
    unit       VARCHAR,
    n          INTEGER,
    note       VARCHAR,
    PRIMARY KEY (run_id, name, "case", metric)
);
