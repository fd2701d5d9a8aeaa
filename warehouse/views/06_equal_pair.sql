-- One row per 4-bit/8-bit pair of evaluations that are otherwise identical.
--
-- Recipe values, weights, data, engine and scoring are equal, so that nothing else can be mistaken
-- for an effect of the bits. The settings digest covers what has no column: weight decay,
-- clipping, patience, class weights, costs, prompt, and the cases of training and validation.
-- Calibration and evaluation sets have their own digests; the dataset's would separate equal
-- trainings because of a test set that neither of them used. Where the scores of both sides were judged again,
-- only the latest pair has a row. In equal_pair_of(ids) both sides are among these evaluations.
-- Other precisions: reference_pair.
CREATE OR REPLACE MACRO equal_pair_of(ids) AS TABLE
WITH side AS (
    SELECT
        x.* EXCLUDE (cell_id),
        e.* EXCLUDE (training_id),
        {
            group_size: group_size,
            num_layers: num_layers,
            learning_rate: learning_rate,
            batch_size: batch_size,
            rank: rank,
            scale: scale,
            dropout: dropout,
            iterations: iterations,
            target: d.target,
            cost_weight: cost_weight,
            has_cost_matrix: has_cost_matrix,
            has_class_weights: has_class_weights,
            weights_source: weights_source,
            source_digest: source_digest,
            original_precision: original_precision,
            random_weights: random_weights,
            settings_digest: settings_digest,
            calibration_digest: coalesce(d.calibration_digest, dataset_digest),
            engine_version: engine_version,
            compute_path: compute_path,
            set_digest: set_digest,
            primary_rule: primary_rule,
            costs: c.costs,
            scoring_version: scoring_version
        } AS conditions
    FROM experiment AS x
    JOIN evaluation AS e USING (training_id)
    ANTI JOIN sealed_evaluation ON sealed_evaluation.evaluation_id = e.evaluation_id
    -- The target is the evaluation's, since one training may be judged at several.
    LEFT JOIN decision_rule AS d ON d.evaluation_id = e.evaluation_id AND d.rule = 'target_recall'
    LEFT JOIN evaluation_costs_of(ids) AS c ON c.evaluation_id = e.evaluation_id
    WHERE x.status = 'completed'
        AND x.recipe_kind <> 'with_linear'  -- what the bits change in a model is not hidden by what both share
        AND (ids IS NULL OR e.evaluation_id IN (SELECT unnest(ids::VARCHAR[])))
)
SELECT
    base_model,
    recipe,
    seed,
    evaluation_set,
    four.set_digest,
    four.dataset_digest,
    four.training_id AS training_4bit,
    eight.training_id AS training_8bit,
    four.evaluation_id AS evaluation_4bit,
    eight.evaluation_id AS evaluation_8bit,
    four.scoring_version,
    four.random_weights,
    four.backend,
    four.finished_at AS finished_4bit,
    eight.finished_at AS finished_8bit,
    four.created_at AS created_4bit,
    eight.created_at AS created_8bit
FROM side AS four
JOIN side AS eight USING (base_model, recipe, seed, evaluation_set, conditions)
WHERE four.precision = '4bit' AND eight.precision = '8bit'
-- The scores of both sides may have been judged again.
QUALIFY four.scoring_version = max(four.scoring_version) OVER (
    PARTITION BY four.scores_id, eight.scores_id
);

CREATE OR REPLACE VIEW equal_pair AS FROM equal_pair_of(NULL);

COMMENT ON COLUMN equal_pair.training_4bit IS 'training_id of the 4-bit side';
COMMENT ON COLUMN equal_pair.finished_4bit IS 'when the 4-bit training finished, UTC';
COMMENT ON COLUMN equal_pair.created_4bit IS 'when the 4-bit evaluation was made, UTC';
