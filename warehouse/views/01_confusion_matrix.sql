-- One row per evaluation, decision rule, true label and decision: the number of cases.
--
-- The rule 'primary' is the evaluation's own. A rule that could be applied has all nine cells,
-- those without a case with 0; any other rule has none.
CREATE OR REPLACE VIEW confusion_matrix AS
SELECT
    evaluation_id,
    rule,
    unnest([
        {label: 'ED', decision: 'ED', cases: ed_as_ed},
        {label: 'ED', decision: 'GP', cases: ed_as_gp},
        {label: 'ED', decision: 'HOME', cases: ed_as_home},
        {label: 'GP', decision: 'ED', cases: gp_as_ed},
        {label: 'GP', decision: 'GP', cases: gp_as_gp},
        {label: 'GP', decision: 'HOME', cases: gp_as_home},
        {label: 'HOME', decision: 'ED', cases: home_as_ed},
        {label: 'HOME', decision: 'GP', cases: home_as_gp},
        {label: 'HOME', decision: 'HOME', cases: home_as_home}
    ], recursive := true)
FROM decision_count;

COMMENT ON COLUMN confusion_matrix.rule IS '''primary'' (the recipe''s own rule), argmax, target_recall or min_cost';
COMMENT ON COLUMN confusion_matrix.decision IS 'the label that the rule decides';
COMMENT ON COLUMN confusion_matrix.cases IS 'cases with this label and decision';
