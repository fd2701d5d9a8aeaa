-- One row per pair of evaluations before and after a change of precision: changed decisions.
--
-- Both decided the same cases by their primary rule. change '8 to 4 bits' compares two trainings,
-- as in matched_pair. 'adapter moved ...' compares one adapter at two precisions, judged by the
-- same rule with the same threshold, so that only the weights differ, or with its threshold chosen
-- again on calibration, as change says; the latest such pair counts.
-- ed_lost counts correct ED decisions that became wrong. harmless counts flips between two wrong
-- decisions that cost no more; it is NULL without a cost matrix. flip_cost sums the costs of all
-- flips by the evaluation's matrix. studies are those that both sides belong to. Flagged are cases
-- that either side marks for review, among those that went through dropout.
CREATE OR REPLACE MACRO flips_of(ids) AS TABLE
WITH judged AS (
    SELECT summary.*, e.scores_id, x.source_scores_id, price.costs
    FROM evaluation_summary_of(ids) AS summary
    JOIN evaluation AS e ON e.evaluation_id = summary.evaluation_id
    JOIN experiment AS x ON x.training_id = summary.training_id
    LEFT JOIN evaluation_costs AS price ON price.evaluation_id = summary.evaluation_id
    WHERE summary.evaluation_set = 'test'
),
compared AS (
    SELECT
        base_model,
        recipe,
        seed,
        '8 to 4 bits' AS change,
        evaluation_8bit AS before,
        evaluation_4bit AS after
    FROM matched_pair_of(ids)
    WHERE evaluation_set = 'test'
    UNION ALL
    SELECT
        original.base_model,
        original.recipe,
        original.seed,
        CASE
            WHEN original.precision IN ('4bit', '8bit') AND moved.precision IN ('4bit', '8bit')
                THEN 'adapter moved from ' || original.bits || ' to ' || moved.bits || ' bits'
            ELSE 'adapter moved from ' || original.precision || ' to ' || moved.precision
        END || CASE moved.moved_rules WHEN 'kept' THEN '' ELSE ', threshold chosen again' END,
        original.evaluation_id,
        moved.evaluation_id
    FROM judged AS original
    JOIN judged AS moved
        ON moved.source_training_id = original.training_id
        AND moved.random_weights IS NOT DISTINCT FROM original.random_weights
        AND moved.set_digest = original.set_digest
        AND moved.scoring_version = original.scoring_version
        AND CASE
            WHEN moved.source_scores_id IS NOT NULL
                THEN moved.source_scores_id = original.scores_id
            -- A row of an earlier version does not say whose rules judge the moved adapter.
            ELSE moved.primary_rule = original.primary_rule
                AND moved.target_ed_recall IS NOT DISTINCT FROM original.target_ed_recall
                AND moved.costs IS NOT DISTINCT FROM original.costs
        END
    QUALIFY row_number() OVER (
        PARTITION BY moved.set_digest, moved.cell_id, moved.random_weights
        ORDER BY
            original.finished_at DESC NULLS LAST,
            original.training_id DESC,
            least(original.created_at, moved.created_at) DESC,
            moved.created_at DESC,
            moved.evaluation_id DESC
    ) = 1
),
reviewed AS (
    SELECT before, after, case_id, bool_or(review) AS flagged
    FROM compared JOIN mc_dropout AS m ON m.evaluation_id IN (before, after)
    GROUP BY ALL
),
decided AS (
    SELECT
        c.*,
        b.label,
        b.decision IS DISTINCT FROM a.decision AS flipped,
        b.decision = b.label AND a.decision <> a.label AS correct_to_wrong,
        b.decision <> b.label AND a.decision = a.label AS wrong_to_correct,
        after_cost.cost - before_cost.cost AS cost,
        r.flagged
    FROM compared AS c
    JOIN prediction AS b ON b.evaluation_id = c.before
    JOIN prediction AS a ON a.evaluation_id = c.after AND a.case_id = b.case_id
    LEFT JOIN cost AS after_cost
        ON after_cost.evaluation_id = c.before
        AND after_cost.label = b.label
        AND after_cost.decision = a.decision
    LEFT JOIN cost AS before_cost
        ON before_cost.evaluation_id = c.before
        AND before_cost.label = b.label
        AND before_cost.decision = b.decision
    LEFT JOIN reviewed AS r ON r.before = c.before AND r.after = c.after AND r.case_id = b.case_id
    WHERE a.decision IS NOT NULL AND b.decision IS NOT NULL
),
counted AS (
    SELECT
        base_model,
        recipe,
        seed,
        change,
        count(*) AS cases,
        count(*) FILTER (label = 'ED') AS ed_cases,
        count(*) FILTER (flipped) AS flips,
        count(*) FILTER (correct_to_wrong) AS correct_to_wrong,
        count(*) FILTER (wrong_to_correct) AS wrong_to_correct,
        count(*) FILTER (correct_to_wrong AND label = 'ED') AS ed_lost,
        count(*) FILTER (wrong_to_correct AND label = 'ED') AS ed_gained,
        CASE
            WHEN count(cost) = count(*)
                THEN count(*) FILTER (
                    flipped AND NOT correct_to_wrong AND NOT wrong_to_correct AND cost <= 0
                )
        END AS harmless,
        sum(cost) AS flip_cost,
        count(flagged) AS dropout_cases,
        count(*) FILTER (flipped AND flagged) AS flips_flagged,
        count(*) FILTER (flipped AND NOT flagged) AS flips_not_flagged,
        count(*) FILTER (correct_to_wrong AND label = 'ED' AND flagged) AS ed_lost_flagged,
        count(*) FILTER (correct_to_wrong AND label = 'ED' AND NOT flagged) AS ed_lost_not_flagged,
        before AS evaluation_before,
        after AS evaluation_after
    FROM decided
    GROUP BY base_model, recipe, seed, change, before, after
)
SELECT
    counted.*,
    list_filter(ob.studies, lambda study: list_contains(oa.studies, study)) AS studies,
    ob.dataset,
    ob.dataset_digest
FROM counted
JOIN evaluation_origin AS ob ON ob.evaluation_id = evaluation_before
JOIN evaluation_origin AS oa ON oa.evaluation_id = evaluation_after
ORDER BY base_model, recipe, seed, change;

CREATE OR REPLACE VIEW flips AS FROM flips_of(NULL);

COMMENT ON COLUMN flips.change IS '''8 to 4 bits'', or the move of one adapter between precisions';
COMMENT ON COLUMN flips.flips IS 'cases that are decided otherwise after than before';
COMMENT ON COLUMN flips.correct_to_wrong IS 'cases that are decided rightly before and wrongly after';
COMMENT ON COLUMN flips.wrong_to_correct IS 'cases that are decided wrongly before and rightly after';
COMMENT ON COLUMN flips.ed_lost IS 'emergencies that are caught before and missed after';
COMMENT ON COLUMN flips.ed_gained IS 'emergencies that are missed before and caught after';
COMMENT ON COLUMN flips.harmless IS 'flips between two wrong decisions that cost no more after; NULL without a cost matrix';
COMMENT ON COLUMN flips.flip_cost IS 'sum of the costs of all flips by the cost matrix; NULL without one';
COMMENT ON COLUMN flips.dropout_cases IS 'cases that went through dropout passes';
COMMENT ON COLUMN flips.flips_flagged IS 'of flips: those that either side marks for review';
COMMENT ON COLUMN flips.flips_not_flagged IS 'of flips: those that went through dropout and that neither side marks for review';
COMMENT ON COLUMN flips.ed_lost_flagged IS 'of ed_lost: those that either side marks for review';
COMMENT ON COLUMN flips.ed_lost_not_flagged IS 'of ed_lost: those that went through dropout and that neither side marks for review';
COMMENT ON COLUMN flips.evaluation_before IS 'evaluation_id before the change';
COMMENT ON COLUMN flips.evaluation_after IS 'evaluation_id after the change';
