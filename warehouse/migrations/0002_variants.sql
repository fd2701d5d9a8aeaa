-- One row per base model and precision, as quantised: exact sizes.
CREATE TABLE variant (
    variant_id         VARCHAR PRIMARY KEY,
    base_model         VARCHAR NOT NULL,
    bits               INTEGER CHECK (bits IN (4, 8)), -- NULL: unquantised reference
    group_size         INTEGER,
    weights_source     VARCHAR,
    original_precision VARCHAR,
    random_weights     BOOLEAN NOT NULL,
    weights_digest     VARCHAR,
    licence            VARCHAR,
    parameters         BIGINT,
    stored_bytes       BIGINT CHECK (stored_bytes > 0),
    embedding_bytes    BIGINT,
    projection_bytes   BIGINT,
    norm_bytes         BIGINT,
    bits_per_weight    DOUBLE
);
