-- One row per test set and cell (base model, precision, recipe, seed): its latest evaluation.
--
-- Figures on other cases cannot be compared, so each test set has a leaderboard of its own, the one
-- judged last first, where a sweep that finds its models judged already judges them again. Random
-- weights have a row of their own. Latest is the evaluation of the training that finished last,
-- whichever one a sweep asked for last: a sweep that repeats finished trainings changes no row. Of
-- one training, the latest way to judge comes first. leaderboard_of(evaluations_of('demo')) is that
-- of one study.
--
-- The order of a leaderboard is decided here. First come evaluations that pass the gates, by
-- over-triage (never by cost, which is nearly minimal if every case is sent to ED), then
-- provisional ones, then unsafe ones, both by ED recall; baselines come last, in the same order.
CREATE OR REPLACE MACRO leaderboard_of(ids) AS TABLE
SELECT * EXCLUDE (asked_at)
FROM evaluation_summary_of(ids)
LEFT JOIN (
    SELECT id AS evaluation_id, max(started_at) AS asked_at
    FROM sweep_member
    JOIN sweep USING (sweep_id)
    GROUP BY id
) USING (evaluation_id)
WHERE evaluation_set = 'test'
QUALIFY row_number() OVER (
    PARTITION BY set_digest, cell_id, random_weights
    ORDER BY
        finished_at DESC NULLS LAST,
        training_id DESC,
        scoring_version DESC,
        created_at DESC,
        evaluation_id DESC
) = 1
ORDER BY
    max(greatest(created_at, asked_at)) OVER (PARTITION BY set_digest) DESC,
    max(created_at) OVER (PARTITION BY set_digest) DESC,
    set_digest,
    recipe_kind = 'baseline',
    CASE verdict WHEN 'passes_gates' THEN 1 WHEN 'provisional' THEN 2 ELSE 3 END,
    CASE WHEN verdict = 'passes_gates' THEN over_triage END NULLS LAST,
    ed_recall DESC NULLS LAST,
    cell_id;

CREATE OR REPLACE VIEW leaderboard AS FROM leaderboard_of(NULL);

COMMENT ON COLUMN leaderboard.macro_f1 IS 'mean of the F1 of the classes that the set has cases of (0 to 1)';
