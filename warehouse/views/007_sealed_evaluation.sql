-- One row per evaluation of a model that a sealed claim is about: every view with figures of models leaves them out.
--
-- They are those of the claim's base model and recipe by its seeds, on any set and at any precision, moved adapters and models together
-- with `linear` included. The tables prediction, metric and others hold them all the same: who looks there has looked, and says so.
CREATE OR REPLACE VIEW sealed_evaluation AS
WITH claimed AS (
    SELECT study, base_model, recipe, unnest(seeds || further_seeds) AS seed
    FROM registered_claim  -- primary_claim reads every result, and nearly all views ask which are sealed
    WHERE sealed
)
SELECT claimed.study, e.evaluation_id
FROM evaluation AS e
JOIN experiment AS x ON x.training_id = e.training_id
JOIN experiment AS trained
    -- An id of scores is that of their training and a digest: a model together with `linear` names its scores alone.
    ON trained.training_id
        = coalesce(x.source_training_id, regexp_replace(x.source_scores_id, '-[^-]*$', ''), x.training_id)
JOIN claimed
    ON claimed.base_model = trained.base_model
    AND claimed.recipe = trained.recipe
    AND claimed.seed = trained.seed;
