-- One row per base model, recipe, seed and evaluation set: the latest of its equal pairs.
--
-- Random weights have a row of their own. Latest is the pair whose trainings finished last,
-- whichever one a sweep asked for last. Where only_evaluations is set, both sides are among these.
CREATE OR REPLACE VIEW matched_pair AS
SELECT
    base_model,
    recipe,
    seed,
    evaluation_set,
    set_digest,
    dataset_digest,
    training_4bit,
    training_8bit,
    evaluation_4bit,
    evaluation_8bit
FROM equal_pair
WHERE coalesce(
    list_has_all(
        getvariable('only_evaluations')::VARCHAR[], [evaluation_4bit, evaluation_8bit]
    ),
    true
)
QUALIFY row_number() OVER (
    PARTITION BY base_model, recipe, seed, evaluation_set, random_weights
    ORDER BY
        least(finished_4bit, finished_8bit) DESC NULLS LAST,
        greatest(finished_4bit, finished_8bit) DESC NULLS LAST,
        least(created_4bit, created_8bit) DESC,
        greatest(created_4bit, created_8bit) DESC,
        evaluation_4bit DESC,
        evaluation_8bit DESC
) = 1;
