-- One row per evaluation: the studies that it belongs to, and the dataset that its cases are of.
--
-- Among datasets with the same judged and calibration cases, the one counts that the training names,
-- else the one with the fewest further sets. A training may name another dataset, since untuned
-- models and trainings are shared by datasets: where that one is known to lack these cases, the
-- dataset is NULL.
CREATE OR REPLACE VIEW evaluation_origin AS
WITH calibrated AS (
    SELECT evaluation_id, any_value(calibration_digest) AS calibration_digest
    FROM decision_rule
    GROUP BY evaluation_id
),
judged AS (
    SELECT
        evaluation.evaluation_id,
        evaluation_set,
        set_digest,
        calibration_digest,
        dataset_digest AS trained_on
    FROM evaluation
    LEFT JOIN experiment USING (training_id)
    LEFT JOIN calibrated ON calibrated.evaluation_id = evaluation.evaluation_id
),
holding AS (
    SELECT
        evaluation_id,
        first(
            d.dataset_digest
            ORDER BY d.dataset_digest IS DISTINCT FROM trained_on, d.further_sets, d.dataset_digest
        ) AS dataset_digest
    FROM judged
    JOIN dataset_set AS cases
        ON cases.name = evaluation_set AND cases.set_digest = judged.set_digest
    JOIN dataset AS d USING (dataset_id)
    JOIN dataset_set AS calibration
        ON calibration.dataset_id = d.dataset_id AND calibration.name = 'calibration'
    WHERE calibration_digest IS NULL OR calibration.set_digest = calibration_digest
    GROUP BY evaluation_id
),
known AS (
    SELECT dataset_digest, min(dataset) AS dataset FROM dataset GROUP BY dataset_digest
),
membership AS (
    SELECT id, list(study ORDER BY study) AS studies FROM study_member GROUP BY id
)
SELECT
    judged.evaluation_id,
    membership.studies,
    own.dataset,
    coalesce(
        holding.dataset_digest, CASE WHEN named.dataset_digest IS NULL THEN trained_on END
    ) AS dataset_digest
FROM judged
LEFT JOIN holding USING (evaluation_id)
LEFT JOIN known AS own ON own.dataset_digest = holding.dataset_digest
LEFT JOIN known AS named ON named.dataset_digest = trained_on
LEFT JOIN membership ON membership.id = judged.evaluation_id;

COMMENT ON COLUMN evaluation_origin.studies IS 'names of the studies that it belongs to; of a pair: those that both sides belong to';
COMMENT ON COLUMN evaluation_origin.dataset IS 'name of the dataset that the judged cases are of; NULL where it is not known';
COMMENT ON COLUMN evaluation_origin.dataset_digest IS 'digest of the dataset that the judged cases are of; NULL where it is not known';
