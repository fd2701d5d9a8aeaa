-- One row per base model, recipe, seed and set of cases: the latest of its equal pairs.
--
-- Random weights have a row of their own. Latest is the pair whose trainings finished last,
-- whichever one a sweep asked for last. studies are those that both sides belong to. In
-- matched_pair_of(ids) both sides are among these evaluations.
CREATE OR REPLACE MACRO matched_pair_of(ids) AS TABLE
WITH latest AS (
    FROM equal_pair
    WHERE ids IS NULL
        OR (
            evaluation_4bit IN (SELECT unnest(ids::VARCHAR[]))
            AND evaluation_8bit IN (SELECT unnest(ids::VARCHAR[]))
        )
    QUALIFY row_number() OVER (
        PARTITION BY base_model, recipe, seed, evaluation_set, set_digest, random_weights
        ORDER BY
            least(finished_4bit, finished_8bit) DESC NULLS LAST,
            greatest(finished_4bit, finished_8bit) DESC NULLS LAST,
            scoring_version DESC,
            least(created_4bit, created_8bit) DESC,
            greatest(created_4bit, created_8bit) DESC,
            evaluation_4bit DESC,
            evaluation_8bit DESC
    ) = 1
),
origin AS (
    FROM evaluation_origin
)
SELECT
    base_model,
    recipe,
    seed,
    evaluation_set,
    set_digest,
    o4.dataset_digest,
    training_4bit,
    training_8bit,
    evaluation_4bit,
    evaluation_8bit,
    list_filter(o4.studies, lambda study: list_contains(o8.studies, study)) AS studies,
    o4.dataset
FROM latest
JOIN origin AS o4 ON o4.evaluation_id = evaluation_4bit
JOIN origin AS o8 ON o8.evaluation_id = evaluation_8bit;

CREATE OR REPLACE VIEW matched_pair AS FROM matched_pair_of(NULL);
