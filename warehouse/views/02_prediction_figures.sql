-- One row per evaluation and rule ('primary', 'argmax', 'target_recall'): figures of its decisions on all cases.
--
-- 'primary' is the primary rule of the recipe; there is no row of a rule that could not be applied. ED
-- figures are NULL where the set has no ED case. macro_f1 averages the classes that the set has
-- cases of. over_triage and under_triage are the shares of all cases whose decision is more
-- urgent, or less urgent, than their label. loss is the mean over cases of the negative
-- log-likelihood per completion token, in nats. All follow from decision_count.
CREATE OR REPLACE VIEW prediction_figures AS
WITH margins AS (
    SELECT
        *,
        ed_as_ed + ed_as_gp + ed_as_home AS ed_cases,
        gp_as_ed + gp_as_gp + gp_as_home AS gp_cases,
        home_as_ed + home_as_gp + home_as_home AS home_cases,
        ed_as_ed + gp_as_ed + home_as_ed AS chosen_ed,
        ed_as_gp + gp_as_gp + home_as_gp AS chosen_gp,
        ed_as_home + gp_as_home + home_as_home AS chosen_home,
        ed_cases + gp_cases + home_cases AS cases
    FROM decision_count ANTI JOIN sealed_evaluation USING (evaluation_id)
    WHERE rule IN ('primary', 'argmax', 'target_recall')
)
SELECT
    evaluation_id,
    rule,
    cases,
    ed_cases,
    ed_cases - ed_as_ed AS ed_missed,
    (ed_as_ed + gp_as_gp + home_as_home) / cases AS accuracy,
    list_avg([
        CASE WHEN ed_cases > 0 THEN 2 * ed_as_ed / (ed_cases + chosen_ed) END,
        CASE WHEN gp_cases > 0 THEN 2 * gp_as_gp / (gp_cases + chosen_gp) END,
        CASE WHEN home_cases > 0 THEN 2 * home_as_home / (home_cases + chosen_home) END
    ]) AS macro_f1,
    ed_as_ed / nullif(ed_cases, 0) AS ed_recall,
    CASE WHEN ed_cases > 0 THEN ed_as_ed / nullif(chosen_ed, 0) END AS ed_precision,
    CASE WHEN ed_cases > 0 THEN 5 * ed_as_ed / (4 * ed_cases + chosen_ed) END AS ed_f2,
    (gp_as_ed + home_as_ed + home_as_gp) / cases AS over_triage,
    (ed_as_gp + ed_as_home + gp_as_home) / cases AS under_triage,
    loss
FROM margins;

COMMENT ON COLUMN prediction_figures.rule IS '''primary'' (the recipe''s own rule), argmax or target_recall';
COMMENT ON COLUMN prediction_figures.ed_missed IS 'emergencies that are decided GP or HOME';
COMMENT ON COLUMN prediction_figures.accuracy IS 'share (0 to 1) of decisions that are right';
COMMENT ON COLUMN prediction_figures.macro_f1 IS 'mean of the F1 of the classes that the set has cases of (0 to 1)';
COMMENT ON COLUMN prediction_figures.ed_recall IS 'share (0 to 1) of emergencies that are decided ED (sensitivity)';
COMMENT ON COLUMN prediction_figures.ed_precision IS 'share (0 to 1) of ED decisions that are emergencies';
COMMENT ON COLUMN prediction_figures.ed_f2 IS 'F2 of ED by the primary rule (0 to 1): recall counts four times as much as precision';
COMMENT ON COLUMN prediction_figures.over_triage IS 'share (0 to 1) of all cases that are decided more urgent than their label';
COMMENT ON COLUMN prediction_figures.under_triage IS 'share (0 to 1) of all cases that are decided less urgent than their label';
COMMENT ON COLUMN prediction_figures.loss IS 'mean negative log-likelihood for each completion token, in nats';
