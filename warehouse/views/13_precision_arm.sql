-- One row per evaluation of an adapter at a precision, and arm of the comparison that it belongs to.
--
-- In the arm 'own' each precision has an adapter that was trained at it. In an arm such as 'from
-- 4bit' one adapter, which was trained at 4 bits, is judged at every precision by the same rule with
-- the same threshold, so that only the weights differ; in 'from 4bit, threshold chosen again' by the
-- same rule, chosen again on calibration at each precision. Evaluations of an arm may be compared where
-- their conditions are equal: how they were judged, and in the arm 'own' all that decides a training
-- but the precision. The precision 'unpacked Q4_1' is bfloat16 of weights that were quantised before
-- they were fetched; note says what cannot follow from it. precision_arm_of(ids) shows these
-- evaluations alone.
CREATE OR REPLACE MACRO precision_arm_of(ids) AS TABLE
WITH judged AS (
    SELECT
        e.evaluation_id,
        e.evaluation_set,
        e.scores_id,
        e.scoring_version,
        e.created_at,
        x.training_id,
        x.base_model,
        x.recipe,
        x.seed,
        x.precision AS precision_key,
        CASE
            WHEN x.precision = 'bf16' AND regexp_matches(x.original_precision, 'Q\d')
                THEN 'unpacked ' || x.original_precision
            ELSE x.precision
        END AS precision,
        x.random_weights,
        x.compute_path,
        x.backend,
        x.machine,
        x.stored_bytes,
        x.bits_per_weight,
        CASE
            WHEN regexp_matches(x.original_precision, 'Q\d')
                THEN 'reference already ' || regexp_extract(x.original_precision, 'Q(\d)', 1)
                || '-bit: nothing follows about '
                || CASE WHEN regexp_extract(x.original_precision, 'Q(\d)', 1) < '8' THEN 8 ELSE 16 END
                || ' bits or more'
        END AS note,
        coalesce(x.source_training_id, x.training_id) AS adapter_id,
        CASE WHEN x.source_training_id IS NOT NULL THEN coalesce(x.moved_rules, 'kept') END AS moved_rules,
        {
            set_digest: e.set_digest,
            primary_rule: e.primary_rule,
            target: d.target,
            costs: c.costs,
            calibration_digest: coalesce(d.calibration_digest, x.dataset_digest),
            scoring_version: e.scoring_version,
            random_weights: x.random_weights
        } AS judged_by,
        {
            settings_digest: x.settings_digest,
            weights_source: x.weights_source,
            source_digest: x.source_digest,
            original_precision: x.original_precision,
            engine_version: x.engine_version
        } AS trained_by,
        e.set_digest
    FROM experiment AS x
    JOIN evaluation AS e USING (training_id)
    ANTI JOIN sealed_evaluation ON sealed_evaluation.evaluation_id = e.evaluation_id
    -- The target is the evaluation's, since one training may be judged at several.
    LEFT JOIN decision_rule AS d ON d.evaluation_id = e.evaluation_id AND d.rule = 'target_recall'
    LEFT JOIN evaluation_costs_of(ids) AS c ON c.evaluation_id = e.evaluation_id
    WHERE x.status = 'completed'
        AND x.precision IS NOT NULL
        AND x.recipe_kind IN ('standard', 'safety', 'moved_adapter')
        AND (ids IS NULL OR e.evaluation_id IN (SELECT unnest(ids::VARCHAR[])))
),
arm AS (
    SELECT DISTINCT adapter_id, moved_rules FROM judged WHERE moved_rules IS NOT NULL
)
SELECT
    * EXCLUDE (adapter_id, moved_rules, judged_by, trained_by, set_digest),
    'own' AS adapter,
    {judged: judged_by, trained: trained_by, adapter_id: NULL::VARCHAR} AS conditions,
    set_digest
FROM judged
WHERE moved_rules IS NULL
UNION ALL
SELECT
    judged.* EXCLUDE (adapter_id, moved_rules, judged_by, trained_by, set_digest)
        REPLACE (trained.recipe AS recipe),
    'from ' || trained.precision || CASE arm.moved_rules WHEN 'kept' THEN '' ELSE ', threshold chosen again' END,
    {judged: judged_by, trained: NULL, adapter_id: judged.adapter_id},
    set_digest
FROM judged
-- At its own precision an adapter has the rules of its training in either arm.
JOIN arm
    ON arm.adapter_id = judged.adapter_id
    AND coalesce(judged.moved_rules, arm.moved_rules) = arm.moved_rules
JOIN experiment AS trained ON trained.training_id = judged.adapter_id;

CREATE OR REPLACE VIEW precision_arm AS FROM precision_arm_of(NULL);

COMMENT ON COLUMN precision_arm.precision_key IS 'name of the precision in ids: bf16 whatever the weights were before';
COMMENT ON COLUMN precision_arm.note IS 'what cannot follow from weights that were quantised before they were fetched; NULL for others';
COMMENT ON COLUMN precision_arm.adapter IS '''own'': trained at this precision; ''from 4bit'': one adapter, trained at that precision, with its own threshold; ''from 4bit, threshold chosen again'': with one chosen at this precision';
COMMENT ON COLUMN precision_arm.conditions IS 'what must be equal for two rows of one arm to be compared';
