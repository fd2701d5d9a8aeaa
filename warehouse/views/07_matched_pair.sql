-- One row per base model, recipe, seed, backend and set of cases: the latest of its equal pairs.
--
-- Random weights have a row of their own. Latest is the pair whose trainings finished last,
-- whichever one a sweep asked for last. Where some seeds of a recipe were trained again under other
-- settings or by another version, their earlier pairs have rows, too, as long as the pair of another seed of their
-- seed_group is the latest: an estimate keeps its seeds. studies are those that both sides belong to. In
-- matched_pair_of(ids) both sides are among these evaluations.
CREATE OR REPLACE MACRO matched_pair_of(ids) AS TABLE
WITH aged AS (
    SELECT
        equal_pair.*,
        seed_group,
        row_number() OVER (
            ORDER BY
                least(finished_4bit, finished_8bit) DESC NULLS LAST,
                greatest(finished_4bit, finished_8bit) DESC NULLS LAST,
                equal_pair.scoring_version DESC,
                least(created_4bit, created_8bit) DESC,
                greatest(created_4bit, created_8bit) DESC,
                evaluation_4bit DESC,
                evaluation_8bit DESC
        ) AS age
    FROM equal_pair
    JOIN seed_group ON seed_group.evaluation_id = evaluation_4bit
    WHERE ids IS NULL
        OR (
            evaluation_4bit IN (SELECT unnest(ids::VARCHAR[]))
            AND evaluation_8bit IN (SELECT unnest(ids::VARCHAR[]))
        )
),
ranked AS (
    SELECT
        *,
        age = min(age) OVER (
            PARTITION BY base_model, recipe, seed, evaluation_set, set_digest, random_weights, backend
        ) AS is_latest,
        age = min(age) OVER (
            PARTITION BY seed, evaluation_set, set_digest, random_weights, seed_group
        ) AS is_latest_of_group
    FROM aged
),
latest AS (
    FROM ranked
    QUALIFY is_latest_of_group
        AND bool_or(is_latest) OVER (PARTITION BY evaluation_set, set_digest, random_weights, seed_group)
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
