-- One row per table and id without its training, evaluation, case or landing folder.
WITH part (tbl, id) AS (
    SELECT 'prediction', evaluation_id FROM prediction
    UNION SELECT 'calibration_prediction', evaluation_id FROM calibration_prediction
    UNION SELECT 'metric', evaluation_id FROM metric
    UNION SELECT 'decision_rule', evaluation_id FROM decision_rule
    UNION SELECT 'gate', evaluation_id FROM gate
    UNION SELECT 'subgroup_metric', evaluation_id FROM subgroup_metric
    UNION SELECT 'reliability', evaluation_id FROM reliability
    UNION SELECT 'net_benefit', evaluation_id FROM net_benefit
    UNION SELECT 'review_flag', evaluation_id FROM review_flag
    UNION SELECT 'conformal', evaluation_id FROM conformal
    UNION SELECT 'cost', evaluation_id FROM cost
),
head (tbl, id) AS (
    SELECT 'experiment', training_id FROM experiment
    UNION SELECT 'evaluation', evaluation_id FROM evaluation
    UNION SELECT 'fidelity', fidelity_id FROM fidelity
    UNION SELECT 'variant', variant_id FROM variant
    UNION SELECT 'benchmark', run_id FROM benchmark
    UNION SELECT 'trial', search_id FROM trial
    UNION SELECT 'sweep', sweep_id FROM sweep
    UNION SELECT 'dataset', dataset_id FROM dataset
    UNION SELECT 'look', look_id FROM look
)
SELECT tbl, id, 'landed' AS lacks FROM head ANTI JOIN landed USING (id)
UNION SELECT tbl, id, 'evaluation' FROM part ANTI JOIN evaluation ON evaluation_id = id
UNION SELECT 'training_curve', training_id, 'experiment' FROM training_curve ANTI JOIN experiment USING (training_id)
UNION SELECT 'evaluation', evaluation_id, 'experiment' FROM evaluation ANTI JOIN experiment USING (training_id)
UNION SELECT 'mc_dropout', evaluation_id, 'prediction' FROM mc_dropout ANTI JOIN prediction USING (evaluation_id, case_id)
UNION SELECT 'sweep_member', sweep_id, 'sweep' FROM sweep_member ANTI JOIN sweep USING (sweep_id)
UNION SELECT 'dataset_set', dataset_id, 'dataset' FROM dataset_set ANTI JOIN dataset USING (dataset_id);
