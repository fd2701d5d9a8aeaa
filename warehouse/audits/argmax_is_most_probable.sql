-- One row per case whose argmax is not a label with the highest probability.
SELECT evaluation_id, case_id, argmax, p_ed, p_gp, p_home
FROM prediction
WHERE CASE argmax WHEN 'ED' THEN p_ed WHEN 'GP' THEN p_gp ELSE p_home END < greatest(p_ed, p_gp, p_home);
