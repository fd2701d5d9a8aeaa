-- One row per study with a primary claim: as it is registered (registered_claim), and whether results were there before.
CREATE OR REPLACE VIEW primary_claim AS
WITH result AS (
    SELECT study, min(created_at) AS first_at
    FROM study_member
    JOIN evaluation ON evaluation_id = id
    JOIN experiment USING (training_id)
    WHERE recipe_kind <> 'baseline'
    GROUP BY study
)
SELECT
    claim.*,
    -- Evaluations have whole seconds: one of the same second may be later.
    coalesce(first_at < date_trunc('second', registered_at), false) AS changed_after_results
FROM registered_claim AS claim
LEFT JOIN result USING (study)
ORDER BY claim.study;

COMMENT ON COLUMN primary_claim.changed_after_results IS 'whether an evaluation of a trained model of the study is older than the registration: the claim was made or changed after results existed';
