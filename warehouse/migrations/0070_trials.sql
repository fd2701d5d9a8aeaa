-- One row per trial of a search: a choice of values for the searched settings of one recipe. Its training has the id of
-- its full length, however far it was trained. Values are of `valid`; the test set is never scored by a search.
CREATE TABLE trial (
    search_id        VARCHAR NOT NULL,
    number           INTEGER NOT NULL CHECK (number >= 0),
    training_id      VARCHAR NOT NULL,
    grid             VARCHAR NOT NULL,
    base_model       VARCHAR NOT NULL,
    bits             INTEGER NOT NULL CHECK (bits IN (4, 8)),
    recipe           VARCHAR NOT NULL,
    recipe_kind      VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety')),
    seed             BIGINT NOT NULL,
    settings         VARCHAR NOT NULL, -- JSON: value by dotted key
    objective        VARCHAR NOT NULL,
    higher_is_better BOOLEAN NOT NULL,
    state            VARCHAR NOT NULL CHECK (state IN ('finished', 'paused', 'failed')),
    is_best          BOOLEAN NOT NULL, -- the best of those that came furthest
    value            DOUBLE,           -- of the objective at the last rung that was reached
    valid_loss       DOUBLE,           -- lowest validation value of the recipe's own objective so far
    updates          INTEGER NOT NULL, -- trained so far
    iterations       INTEGER NOT NULL, -- of the whole training
    rungs            VARCHAR NOT NULL, -- JSON: update, value and seconds at each rung
    seconds          DOUBLE NOT NULL,  -- of the steps, with loading and scoring
    train_seconds    DOUBLE,
    error            VARCHAR,
    PRIMARY KEY (search_id, number)
);

-- Searches land too. A CHECK cannot be changed in place.
CREATE TABLE landed_with_searches (
    id              VARCHAR PRIMARY KEY,
    kind            VARCHAR NOT NULL
        CHECK (kind IN ('training', 'evaluation', 'variant', 'benchmark', 'fidelity', 'search')),
    manifest_digest VARCHAR NOT NULL,
    loaded_at       TIMESTAMP NOT NULL
);
INSERT INTO landed_with_searches BY NAME SELECT * FROM landed;
DROP TABLE landed;
ALTER TABLE landed_with_searches RENAME TO landed;
