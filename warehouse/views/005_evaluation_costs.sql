-- One row per evaluation with a cost matrix: its nine costs, in the order of label and decision.
--
-- Two evaluations were judged with the same matrix where these are equal, however its text in
-- evaluation.cost_matrix is written. evaluation_costs_of(ids) shows these evaluations alone.
CREATE OR REPLACE MACRO evaluation_costs_of(ids) AS TABLE
SELECT evaluation_id, list(cost ORDER BY label, decision) AS costs
FROM cost
WHERE ids IS NULL OR evaluation_id IN (SELECT unnest(ids::VARCHAR[]))
GROUP BY evaluation_id;

CREATE OR REPLACE VIEW evaluation_costs AS FROM evaluation_costs_of(NULL);

COMMENT ON COLUMN evaluation_costs.costs IS 'the costs of ED as ED, as GP, as HOME, then of GP and of HOME likewise';
