-- One row per key that occurs twice, and per text with two labels in one evaluation.
--
-- Most tables have no index for their key: the loader refuses a landing folder that has one twice.
SELECT 'experiment' AS tbl, training_id AS key FROM experiment GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'evaluation', evaluation_id FROM evaluation GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'prediction', evaluation_id || ' ' || case_id FROM prediction GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'training_curve', training_id || ' ' || iteration || ' ' || split
FROM training_curve
GROUP BY ALL
HAVING count(*) > 1
UNION ALL
SELECT 'metric', evaluation_id || ' ' || rule || ' ' || metric FROM metric GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'decision_rule', evaluation_id || ' ' || rule FROM decision_rule GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'gate', evaluation_id || ' ' || gate FROM gate GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'mc_dropout', evaluation_id || ' ' || case_id FROM mc_dropout GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'subgroup_metric', evaluation_id || ' ' || field || ' ' || subgroup || ' ' || metric
FROM subgroup_metric
GROUP BY ALL
HAVING count(*) > 1
UNION ALL
SELECT 'reliability', evaluation_id || ' ' || low FROM reliability GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'net_benefit', evaluation_id || ' ' || threshold FROM net_benefit GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'review_flag', evaluation_id || ' ' || score FROM review_flag GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'conformal', evaluation_id FROM conformal GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'cost', evaluation_id || ' ' || label || ' ' || decision FROM cost GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'decision_count', evaluation_id || ' ' || rule FROM decision_count GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'pair_metric', evaluation_4bit || ' ' || evaluation_8bit || ' ' || rule || ' ' || metric
FROM pair_metric
GROUP BY ALL
HAVING count(*) > 1
UNION ALL
SELECT 'reference_metric', evaluation_id || ' ' || reference_evaluation || ' ' || rule || ' ' || metric
FROM reference_metric
GROUP BY ALL
HAVING count(*) > 1
UNION ALL
SELECT 'trial', search_id || ' ' || number FROM trial GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'look', look_id FROM look GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'prediction', evaluation_id || ' text ' || case_digest
FROM prediction
WHERE case_digest IS NOT NULL
GROUP BY ALL
HAVING count(DISTINCT label) > 1;
