-- One row per evaluation and decision rule: the table decision_count as the rows of prediction give it.
--
-- The loader fills that table from recounted_decisions_of(ids), and an audit compares the two, sealed
-- evaluations too. The rule 'primary' is the evaluation's own; a rule that could not be applied has no
-- row. Queries read decision_count.
CREATE OR REPLACE MACRO recounted_decisions_of(ids) AS TABLE
WITH alike AS (
    SELECT
        evaluation_id,
        label,
        argmax,
        decision,
        target_recall,
        min_cost,
        count(*) AS cases,
        count(nll) AS scored,
        sum(nll::DECIMAL(38, 15)) AS nll -- the same in any order of rows
    FROM prediction
    WHERE ids IS NULL OR evaluation_id IN (SELECT unnest(ids::VARCHAR[]))
    GROUP BY evaluation_id, label, argmax, decision, target_recall, min_cost
),
decided AS (
    SELECT
        evaluation_id,
        label,
        alike.cases,
        scored,
        nll,
        unnest([
            {rule: 'primary', choice: decision},
            {rule: 'argmax', choice: argmax},
            {
                rule: 'target_recall',
                choice: coalesce(
                    target_recall, CASE WHEN primary_rule = 'target_recall' THEN decision END
                )
            },
            {
                rule: 'min_cost',
                choice: coalesce(min_cost, CASE WHEN primary_rule = 'min_cost' THEN decision END)
            }
        ], recursive := true)
    FROM alike LEFT JOIN evaluation USING (evaluation_id)
)
SELECT
    evaluation_id,
    rule,
    coalesce(sum(cases) FILTER (label = 'ED' AND choice = 'ED'), 0)::BIGINT AS ed_as_ed,
    coalesce(sum(cases) FILTER (label = 'ED' AND choice = 'GP'), 0)::BIGINT AS ed_as_gp,
    coalesce(sum(cases) FILTER (label = 'ED' AND choice = 'HOME'), 0)::BIGINT AS ed_as_home,
    coalesce(sum(cases) FILTER (label = 'GP' AND choice = 'ED'), 0)::BIGINT AS gp_as_ed,
    coalesce(sum(cases) FILTER (label = 'GP' AND choice = 'GP'), 0)::BIGINT AS gp_as_gp,
    coalesce(sum(cases) FILTER (label = 'GP' AND choice = 'HOME'), 0)::BIGINT AS gp_as_home,
    coalesce(sum(cases) FILTER (label = 'HOME' AND choice = 'ED'), 0)::BIGINT AS home_as_ed,
    coalesce(sum(cases) FILTER (label = 'HOME' AND choice = 'GP'), 0)::BIGINT AS home_as_gp,
    coalesce(sum(cases) FILTER (label = 'HOME' AND choice = 'HOME'), 0)::BIGINT AS home_as_home,
    (sum(nll) / nullif(sum(scored), 0))::DOUBLE AS loss
FROM decided
WHERE choice IS NOT NULL
GROUP BY evaluation_id, rule;

CREATE OR REPLACE VIEW recounted_decisions AS
FROM recounted_decisions_of(NULL) ANTI JOIN sealed_evaluation USING (evaluation_id);

COMMENT ON COLUMN recounted_decisions.rule IS '''primary'' (the recipe''s own rule), argmax, target_recall or min_cost';
COMMENT ON COLUMN recounted_decisions.loss IS 'mean negative log-likelihood for each completion token, in nats';
