-- One row per model and case of a test set: what the model answers.
--
-- The models are those of the leaderboard, untuned ones too, without baselines that are no model. A
-- case that stands in two test sets is one case, which case_key names, and the model's latest answer
-- counts. case_id counts within a set, so two cases may share it.
CREATE OR REPLACE VIEW case_answer AS
SELECT
    evaluation_id,
    cell_id,
    base_model,
    precision,
    recipe,
    seed,
    random_weights,
    dataset,
    coalesce(case_digest, set_digest) AS case_key,
    case_id,
    case_group,
    label,
    argmax,
    decision,
    p_ed,
    p_gp,
    p_home
FROM prediction
JOIN leaderboard USING (evaluation_id)
WHERE precision IS NOT NULL
QUALIFY row_number() OVER (
    PARTITION BY cell_id, random_weights, case_id, case_key
    ORDER BY finished_at DESC NULLS LAST, created_at DESC, evaluation_id
) = 1;

COMMENT ON COLUMN case_answer.case_key IS 'which case it is across test sets: case_digest, or set_digest where there is none';
