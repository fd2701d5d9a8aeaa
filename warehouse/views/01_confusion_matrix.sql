-- One row per evaluation, decision rule, true label and decision: the number of cases.
--
-- The rule 'primary' is the evaluation's own. A rule that could be applied has all nine cells,
-- those without a case with 0; any other rule has none.
CREATE OR REPLACE VIEW confusion_matrix AS
SELECT
    evaluation_id,
    rule,
    upper(split_part(cell, '_as_', 1)) AS label,
    upper(split_part(cell, '_as_', 2)) AS decision,
    cases
FROM (UNPIVOT decision_count ON COLUMNS('_as_') INTO NAME cell VALUE cases)
ANTI JOIN sealed_evaluation USING (evaluation_id);

COMMENT ON COLUMN confusion_matrix.rule IS '''primary'' (the recipe''s own rule), argmax, target_recall or min_cost';
COMMENT ON COLUMN confusion_matrix.decision IS 'the label that the rule decides';
COMMENT ON COLUMN confusion_matrix.cases IS 'cases with this label and decision';
