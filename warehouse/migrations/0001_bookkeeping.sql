-- What has been applied to this file and what has been loaded into it.

-- One row per applied migration; version 0 stands for the views, which are replaced whenever their text changes.
CREATE TABLE schema_migrations (
    version        INTEGER PRIMARY KEY,
    name           VARCHAR NOT NULL,
    sha256         VARCHAR NOT NULL,
    applied_at     TIMESTAMP NOT NULL, -- UTC, as every timestamp here
    duckdb_version VARCHAR NOT NULL
);

-- One row per loaded landing folder.
CREATE TABLE landed (
    id              VARCHAR PRIMARY KEY,
    kind            VARCHAR NOT NULL CHECK (kind IN ('training', 'evaluation', 'variant', 'benchmark')),
    manifest_digest VARCHAR NOT NULL,
    loaded_at       TIMESTAMP NOT NULL
);
