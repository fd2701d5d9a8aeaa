-- Which trainings diverged or failed, how far did they come, and why?
SELECT
    cell_id,
    status,
    last_iteration,
    iterations,
    valid_loss,
    error,
    finished_at,
    training_id
FROM experiment
WHERE status <> 'completed'
ORDER BY finished_at DESC NULLS LAST, training_id;
