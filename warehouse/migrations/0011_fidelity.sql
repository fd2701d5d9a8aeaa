-- One row per quantised variant, set of cases and distribution: what quantisation changes before any training, against
-- the most exact weights to be had. KL(reference || variant) in nats, computed in float32 from full logits.
CREATE TABLE fidelity (
    fidelity_id          VARCHAR NOT NULL,
    base_model           VARCHAR NOT NULL,
    bits                 INTEGER NOT NULL CHECK (bits IN (4, 8)),
    distribution         VARCHAR NOT NULL CHECK (distribution IN ('vocabulary', 'labels')), -- at the label's position
    reference_precision  VARCHAR NOT NULL, -- of the weights that the reference was made from, e.g. bf16 or Q4_1
    random_weights       BOOLEAN NOT NULL,
    variant_digest       VARCHAR NOT NULL,
    reference_digest     VARCHAR NOT NULL,
    dataset_digest       VARCHAR NOT NULL,
    cases                INTEGER NOT NULL CHECK (cases > 0),
    set_cases            INTEGER NOT NULL, -- more than `cases` where these are a sample
    kl_mean              DOUBLE,
    kl_median            DOUBLE,
    kl_p95               DOUBLE,
    kl_p99               DOUBLE,
    kl_p999              DOUBLE,
    kl_max               DOUBLE,
    same_top1            DOUBLE CHECK (same_top1 BETWEEN 0 AND 1),
    text_tokens          BIGINT, -- of the patients' messages, behind the perplexities
    perplexity           DOUBLE,
    reference_perplexity DOUBLE,
    perplexity_ratio     DOUBLE,
    note                 VARCHAR,
    PRIMARY KEY (fidelity_id, bits, distribution)
);
