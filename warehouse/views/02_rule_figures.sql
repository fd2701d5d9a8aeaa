-- One row per evaluation, rule and metric: the figures of prediction_figures, and the AUROC, from predictions.
--
-- Audits compare stored figures with it.
CREATE OR REPLACE VIEW rule_figures AS
UNPIVOT (
    SELECT evaluation_id, rule, accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss FROM prediction_figures
)
ON accuracy, ed_recall, ed_f2, macro_f1, over_triage, loss INTO NAME metric VALUE figure
UNION ALL BY NAME
SELECT evaluation_id, 'argmax' AS rule, 'ed_auroc' AS metric, ed_auroc AS figure FROM auroc_by_ranks;

COMMENT ON COLUMN rule_figures.rule IS '''primary'' (the recipe''s own rule), argmax or target_recall';
COMMENT ON COLUMN rule_figures.figure IS 'the metric by the rule';
