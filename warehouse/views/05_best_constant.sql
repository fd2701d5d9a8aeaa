-- One row per evaluation: the constant answer with the highest accuracy on its cases.
--
-- A model whose accuracy is not above this one has not been shown to read the messages.
CREATE OR REPLACE VIEW best_constant AS
SELECT
    evaluation_id,
    CASE
        WHEN ed >= gp AND ed >= home THEN 'ED'
        WHEN gp >= home THEN 'GP'
        ELSE 'HOME'
    END AS answer,
    greatest(ed, gp, home) / (ed + gp + home) AS accuracy,
    2 * greatest(ed, gp, home) / (greatest(ed, gp, home) + ed + gp + home)
    / ((ed > 0)::INTEGER + (gp > 0)::INTEGER + (home > 0)::INTEGER) AS macro_f1
FROM (
    SELECT
        evaluation_id,
        ed_as_ed + ed_as_gp + ed_as_home AS ed,
        gp_as_ed + gp_as_gp + gp_as_home AS gp,
        home_as_ed + home_as_gp + home_as_home AS home
    FROM decision_count
    WHERE rule = 'argmax'
);

COMMENT ON COLUMN best_constant.answer IS 'the label that the constant answer gives to every case';
COMMENT ON COLUMN best_constant.accuracy IS 'share (0 to 1) of cases with that label';
COMMENT ON COLUMN best_constant.macro_f1 IS 'macro F1 (0 to 1) of that answer: its F1, and 0 for the other labels that the set has';
