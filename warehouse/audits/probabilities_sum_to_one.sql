-- One row per case whose label probabilities, scored or averaged over passes, do not sum to 1.
SELECT 'prediction' AS tbl, evaluation_id, case_id FROM prediction WHERE NOT abs(p_ed + p_gp + p_home - 1) <= 1e-6
UNION ALL
SELECT 'mc_dropout', evaluation_id, case_id FROM mc_dropout WHERE NOT abs(p_ed + p_gp + p_home - 1) <= 1e-6;
