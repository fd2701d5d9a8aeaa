-- One row per case whose argmax is not a label with the highest probability.
--
-- Where the rules of a moved adapter are chosen again, it is that of the probabilities after the
-- temperature and biases of the rule.
WITH scaled AS (
    SELECT
        evaluation_id,
        case_id,
        argmax,
        p_ed,
        p_gp,
        p_home,
        ln(greatest(p_ed, 1e-12)) / coalesce(temperature, 1) + coalesce(bias_ed, 0) AS ed,
        ln(greatest(p_gp, 1e-12)) / coalesce(temperature, 1) + coalesce(bias_gp, 0) AS gp,
        ln(greatest(p_home, 1e-12)) / coalesce(temperature, 1) + coalesce(bias_home, 0) AS home
    FROM prediction
    LEFT JOIN (FROM decision_rule WHERE rule = 'argmax') AS r USING (evaluation_id)
)
SELECT evaluation_id, case_id, argmax, p_ed, p_gp, p_home
FROM scaled
WHERE CASE argmax WHEN 'ED' THEN ed WHEN 'GP' THEN gp ELSE home END < greatest(ed, gp, home) - 1e-9;
