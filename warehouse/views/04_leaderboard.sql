-- One row per cell (base model, bits, recipe, seed), and another where its weights were random: the latest evaluation on
-- the set 'test' of the latest completed training. Latest is what was finished last, not what was asked for last: a
-- sweep that finds all its trainings done changes nothing here, and what it asked for is in evaluation_summary.
--
-- The order of the leaderboard is decided here: first those that pass the gates, by over-triage (never by cost: always-ED
-- is nearly optimal there), then provisional ones, then unsafe ones, both by ED recall; baselines at the foot, in the same
-- order.
CREATE OR REPLACE VIEW leaderboard AS
SELECT *
FROM evaluation_summary
WHERE evaluation_set = 'test'
QUALIFY row_number() OVER (
    PARTITION BY cell_id, random_weights
    ORDER BY finished_at DESC NULLS LAST, training_id DESC, created_at DESC, evaluation_id DESC
) = 1
ORDER BY
    recipe_kind = 'baseline',
    CASE verdict WHEN 'passes_gates' THEN 1 WHEN 'provisional' THEN 2 ELSE 3 END,
    CASE WHEN verdict = 'passes_gates' THEN over_triage END NULLS LAST,
    ed_recall DESC NULLS LAST,
    cell_id;
