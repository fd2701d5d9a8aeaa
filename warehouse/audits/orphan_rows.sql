-- One row per table and id without its training, evaluation, case or landing folder.
SELECT 'training_curve' AS tbl, training_id AS id, 'experiment' AS lacks
FROM training_curve ANTI JOIN experiment USING (training_id)
UNION
SELECT 'evaluation', evaluation_id, 'experiment' FROM evaluation ANTI JOIN experiment USING (training_id)
UNION
SELECT 'prediction', evaluation_id, 'evaluation' FROM prediction ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'metric', evaluation_id, 'evaluation' FROM metric ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'decision_rule', evaluation_id, 'evaluation' FROM decision_rule ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'gate', evaluation_id, 'evaluation' FROM gate ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'mc_dropout', evaluation_id, 'prediction' FROM mc_dropout ANTI JOIN prediction USING (evaluation_id, case_id)
UNION
SELECT 'subgroup_metric', evaluation_id, 'evaluation' FROM subgroup_metric ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'reliability', evaluation_id, 'evaluation' FROM reliability ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'net_benefit', evaluation_id, 'evaluation' FROM net_benefit ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'review_flag', evaluation_id, 'evaluation' FROM review_flag ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'conformal', evaluation_id, 'evaluation' FROM conformal ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'cost', evaluation_id, 'evaluation' FROM cost ANTI JOIN evaluation USING (evaluation_id)
UNION
SELECT 'sweep_member', sweep_id, 'sweep' FROM sweep_member ANTI JOIN sweep USING (sweep_id)
UNION
SELECT 'dataset_set', dataset_id, 'dataset' FROM dataset_set ANTI JOIN dataset USING (dataset_id)
UNION
SELECT 'fidelity', fidelity_id, 'landed' FROM fidelity WHERE fidelity_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'experiment', training_id, 'landed' FROM experiment WHERE training_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'evaluation', evaluation_id, 'landed' FROM evaluation WHERE evaluation_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'variant', variant_id, 'landed' FROM variant WHERE variant_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'benchmark', run_id, 'landed' FROM benchmark WHERE run_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'trial', search_id, 'landed' FROM trial WHERE search_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'sweep', sweep_id, 'landed' FROM sweep WHERE sweep_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'dataset', dataset_id, 'landed' FROM dataset WHERE dataset_id NOT IN (SELECT id FROM landed)
UNION
SELECT 'look', look_id, 'landed' FROM look WHERE look_id NOT IN (SELECT id FROM landed);
