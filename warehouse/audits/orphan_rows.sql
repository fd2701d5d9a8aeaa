-- Rows whose training, evaluation or landing folder is not there.
WITH owned AS (
    SELECT 'training_curve' AS tbl, training_id AS id, 'experiment' AS owner, training_id IN (SELECT training_id FROM experiment) AS found FROM training_curve
    UNION ALL
    SELECT 'evaluation', evaluation_id, 'experiment', training_id IN (SELECT training_id FROM experiment) FROM evaluation
    UNION ALL
    SELECT 'prediction', evaluation_id, 'evaluation', evaluation_id IN (SELECT evaluation_id FROM evaluation) FROM prediction
    UNION ALL
    SELECT 'metric', evaluation_id, 'evaluation', evaluation_id IN (SELECT evaluation_id FROM evaluation) FROM metric
    UNION ALL
    SELECT 'gate', evaluation_id, 'evaluation', evaluation_id IN (SELECT evaluation_id FROM evaluation) FROM gate
    UNION ALL
    SELECT 'mc_dropout', evaluation_id, 'prediction', (evaluation_id, case_id) IN (SELECT (evaluation_id, case_id) FROM prediction) FROM mc_dropout
    UNION ALL
    SELECT 'experiment', training_id, 'landed', training_id IN (SELECT id FROM landed) FROM experiment
    UNION ALL
    SELECT 'evaluation', evaluation_id, 'landed', evaluation_id IN (SELECT id FROM landed) FROM evaluation
    UNION ALL
    SELECT 'variant', variant_id, 'landed', variant_id IN (SELECT id FROM landed) FROM variant
    UNION ALL
    SELECT 'benchmark', run_id, 'landed', run_id IN (SELECT id FROM landed) FROM benchmark
)
SELECT DISTINCT tbl, id, owner FROM owned WHERE NOT found;
