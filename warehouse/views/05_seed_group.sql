-- One row per evaluation: what it shares with other seeds of its recipe, and with both precisions of a pair.
--
-- Seeds of a recipe are compared where all else is equal that decides a training, and where they
-- are judged alike. seed_group names that by one digest.
CREATE OR REPLACE VIEW seed_group AS
SELECT
    e.evaluation_id,
    md5(
        {
            base_model: x.base_model,
            recipe: x.recipe,
            settings_digest: x.settings_digest,
            weights_source: x.weights_source,
            source_digest: x.source_digest,
            original_precision: x.original_precision,
            random_weights: x.random_weights,
            primary_rule: e.primary_rule,
            target: d.target,
            costs: c.costs
        }::VARCHAR
    ) AS seed_group
FROM evaluation AS e
JOIN experiment AS x USING (training_id)
LEFT JOIN decision_rule AS d
    ON d.evaluation_id = e.evaluation_id AND d.rule = 'target_recall'
LEFT JOIN evaluation_costs AS c ON c.evaluation_id = e.evaluation_id;

COMMENT ON COLUMN seed_group.seed_group IS 'digest of base model, weights, recipe, settings, primary rule, target and costs: equal for the seeds of one recipe that are judged alike';
