-- One row per cell (base model, precision, recipe, seed): its latest evaluation on the set 'test'.
--
-- Random weights have a row of their own. Latest is the evaluation of the training that finished
-- last, whichever one a sweep asked for last: a sweep that repeats finished trainings changes
-- nothing here, and evaluation_summary has what it asked for.
--
-- The order of the leaderboard is decided here. First come evaluations that pass the gates, by
-- over-triage (never by cost, which is nearly minimal if every case is sent to ED), then
-- provisional ones, then unsafe ones, both by ED recall; baselines come last, in the same order.
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
