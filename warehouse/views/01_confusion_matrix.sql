-- One row per evaluation, decision rule, true label and decision: the number of cases.
--
-- The rule 'primary' is the evaluation's own. A rule that could be applied has all nine cells,
-- those without a case with 0; any other rule has none.
CREATE OR REPLACE VIEW confusion_matrix AS
WITH decided AS (
    SELECT
        evaluation_id,
        label,
        unnest([
            {rule: 'primary', choice: decision},
            {rule: 'argmax', choice: argmax},
            {
                rule: 'target_recall',
                choice: coalesce(target_recall, IF(primary_rule = 'target_recall', decision, NULL))
            },
            {
                rule: 'min_cost',
                choice: coalesce(min_cost, IF(primary_rule = 'min_cost', decision, NULL))
            }
        ], recursive := true)
    FROM prediction JOIN evaluation USING (evaluation_id)
),
counted AS (
    SELECT evaluation_id, rule, label, choice, count(*) AS cases
    FROM decided
    WHERE choice IS NOT NULL
    GROUP BY ALL
)
SELECT
    evaluation_id,
    rule,
    truth.label,
    decisions.decision,
    coalesce(
        sum(cases) FILTER (counted.label = truth.label AND choice = decisions.decision), 0
    )::BIGINT AS cases
FROM counted
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS truth (label)
CROSS JOIN (VALUES ('ED'), ('GP'), ('HOME')) AS decisions (decision)
GROUP BY ALL;
