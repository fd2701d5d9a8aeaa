-- One row per evaluation of a trained model and gate: its bound, and one that allows for all models looked at.
--
-- models counts the evaluations of trained models on the same cases, of which a reader picks the
-- best; one whose scores were judged again counts once. bound_adjusted holds for all of them at once with 95 % confidence: for ED recall the exact
-- bound or Student's over groups, both at 0.05 / models (Bonferroni), whichever is less favourable; for
-- F2 the latter. It is NULL where it is not made yet or cannot be, and
-- adjusted_note says why. reaches_adjusted says whether it reaches the gate's threshold.
CREATE OR REPLACE VIEW gate_bounds AS
WITH look AS (
    SELECT
        e.evaluation_id,
        e.set_digest,
        x.random_weights,
        coalesce(l.manifest_digest, e.evaluation_id) AS content
    FROM evaluation AS e
    ANTI JOIN judged_again ON judged_again.evaluation_id = e.evaluation_id
    ANTI JOIN sealed_evaluation ON sealed_evaluation.evaluation_id = e.evaluation_id
    JOIN experiment AS x ON x.training_id = e.training_id AND x.status = 'completed'
    LEFT JOIN landed AS l ON l.id = e.evaluation_id
    WHERE x.recipe_kind <> 'baseline'
),
looked AS (
    SELECT
        set_digest,
        random_weights,
        count(*) AS models,
        md5(string_agg(content, ' ' ORDER BY content)) AS looks
    FROM look
    GROUP BY set_digest, random_weights
)
SELECT
    g.evaluation_id,
    g.gate,
    g.state,
    g.threshold,
    g.value,
    g.bound,
    looked.models,
    a.bound AS bound_adjusted,
    CASE
        WHEN g.gate = 'ed_false_negative_rate' THEN a.bound <= g.threshold + 1e-9
        ELSE a.bound >= g.threshold - 1e-9
    END AS reaches_adjusted,
    a.method AS adjusted_method,
    a.note AS adjusted_note,
    looked.looks
FROM gate AS g
JOIN look USING (evaluation_id)
JOIN looked
    ON looked.set_digest = look.set_digest
    AND looked.random_weights IS NOT DISTINCT FROM look.random_weights
LEFT JOIN adjusted_bound AS a
    ON a.evaluation_id = g.evaluation_id AND a.gate = g.gate AND a.looks = looked.looks;

COMMENT ON COLUMN gate_bounds.threshold IS 'what the value must reach (for the false negative rate: not exceed)';
COMMENT ON COLUMN gate_bounds.bound IS 'the less favourable end of the 95 % interval';
COMMENT ON COLUMN gate_bounds.models IS 'evaluations of trained models on the same cases, of which a reader picks the best';
COMMENT ON COLUMN gate_bounds.bound_adjusted IS 'the bound that holds for all models looked at together, with 95 % confidence';
COMMENT ON COLUMN gate_bounds.reaches_adjusted IS 'whether bound_adjusted reaches the gate''s threshold';
COMMENT ON COLUMN gate_bounds.adjusted_method IS 'how bound_adjusted was made';
COMMENT ON COLUMN gate_bounds.adjusted_note IS 'why bound_adjusted is missing, or what to mind';
