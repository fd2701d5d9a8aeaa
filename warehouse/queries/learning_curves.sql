-- How did two trainings learn, update by update?
-- $first TEXT = NULL: beginning of a cell or training id; NULL: the best training
-- $second TEXT = NULL: beginning of another; NULL: the second best
WITH evaluated AS (
    SELECT training_id, row_number() OVER () AS place
    FROM (FROM leaderboard WHERE recipe_kind IN ('standard', 'safety'))
),
ranked AS (
    SELECT training_id, row_number() OVER (ORDER BY min(place)) AS place
    FROM evaluated
    GROUP BY training_id
),
chosen AS (
    SELECT training_id, cell_id
    FROM experiment
    LEFT JOIN ranked USING (training_id)
    ANTI JOIN (FROM evaluation SEMI JOIN sealed_evaluation USING (evaluation_id)) USING (training_id)
    WHERE CASE WHEN $first IS NULL THEN place = 1 ELSE starts_with(training_id, $first) END
        OR CASE WHEN $second IS NULL THEN place = 2 ELSE starts_with(training_id, $second) END
)
SELECT
    iteration,
    split,
    cell_id,
    training_id,
    loss,
    label_loss,
    cost,
    ed_share,
    specificity
FROM training_curve
JOIN chosen USING (training_id)
ORDER BY split DESC, iteration, training_id;
