-- One row per base model, recipe, seed and evaluation set, and another where weights were random: the latest two evaluations that differ in bits and in
-- nothing that could be mistaken for an effect of bits: recipe values, weights, data, engine and scoring are equal. The
-- settings digest also covers what has no column: decay, clipping, patience, class weights, costs, prompt and the like.
CREATE OR REPLACE VIEW matched_pair AS
WITH side AS (
    SELECT
        x.* EXCLUDE (cell_id),
        e.* EXCLUDE (training_id),
        {
            group_size: group_size, num_layers: num_layers, learning_rate: learning_rate, batch_size: batch_size,
            rank: rank, scale: scale, dropout: dropout, iterations: iterations, target_ed_recall: target_ed_recall,
            cost_weight: cost_weight, has_cost_matrix: has_cost_matrix, has_class_weights: has_class_weights,
            weights_source: weights_source, original_precision: original_precision, random_weights: random_weights,
            settings_digest: settings_digest, dataset_digest: dataset_digest, engine_version: engine_version,
            compute_path: compute_path,
            set_digest: set_digest, primary_rule: primary_rule, cost_matrix: cost_matrix,
            scoring_version: scoring_version
        }::VARCHAR AS conditions
    FROM experiment AS x
    JOIN evaluation AS e USING (training_id)
    WHERE x.status = 'completed'
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
    eight.evaluation_id AS evaluation_8bit
FROM side AS four
JOIN side AS eight USING (base_model, recipe, seed, evaluation_set, conditions)
WHERE four.bits = 4 AND eight.bits = 8
QUALIFY row_number() OVER (
    PARTITION BY base_model, recipe, seed, evaluation_set, four.random_weights
    ORDER BY
        least(four.finished_at, eight.finished_at) DESC NULLS LAST,
        greatest(four.finished_at, eight.finished_at) DESC NULLS LAST,
        least(four.created_at, eight.created_at) DESC,
        greatest(four.created_at, eight.created_at) DESC,
        four.evaluation_id DESC,
        eight.evaluation_id DESC
) = 1;
