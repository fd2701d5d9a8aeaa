-- One row per key that occurs twice, and per text with two labels in one evaluation.
--
-- Only a broken index lets a key occur twice.
SELECT 'experiment' AS tbl, training_id AS key FROM experiment GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'evaluation', evaluation_id FROM evaluation GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'prediction', evaluation_id || ' ' || case_id FROM prediction GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'metric', evaluation_id || ' ' || rule || ' ' || metric FROM metric GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'gate', evaluation_id || ' ' || gate FROM gate GROUP BY ALL HAVING count(*) > 1
UNION ALL
SELECT 'mc_dropout', evaluation_id || ' ' || case_id FROM mc_dropout GROUP BY ALL HAVING count(*) > 1
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
