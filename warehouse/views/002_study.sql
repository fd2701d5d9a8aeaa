-- One row per study: its grid and cases as in its last sweep, and what belongs to it.
--
-- A study has the name of its grid. A result may belong to several studies; study_member has them.
CREATE OR REPLACE VIEW study AS
WITH swept AS (
    SELECT
        study,
        last(grid ORDER BY started_at, sweep_id) AS grid,
        last(grid_digest ORDER BY started_at, sweep_id) AS grid_digest,
        last(dataset_digest ORDER BY started_at, sweep_id)
            FILTER (dataset_digest IS NOT NULL) AS dataset_digest,
        count(*) AS sweeps,
        min(started_at) AS first_sweep,
        max(started_at) AS last_sweep
    FROM sweep
    GROUP BY study
),
held AS (
    SELECT
        study,
        count(*) FILTER (recipe_kind IN ('standard', 'safety')) AS experiments,
        count(*) FILTER (kind = 'evaluation' AND judged_now IS NULL) AS evaluations
    FROM study_member
    LEFT JOIN experiment ON training_id = id
    LEFT JOIN judged_again ON evaluation_id = id
    GROUP BY study
),
known AS (
    SELECT
        dataset_digest,
        min(dataset) AS dataset,
        min(train_cases) AS train_cases,
        min(test_cases) AS test_cases
    FROM dataset
    GROUP BY dataset_digest
)
SELECT
    study,
    grid,
    grid_digest,
    dataset,
    dataset_digest,
    train_cases,
    test_cases,
    coalesce(experiments, 0) AS experiments,
    coalesce(evaluations, 0) AS evaluations,
    coalesce(sweeps, 0) AS sweeps,
    first_sweep,
    last_sweep
FROM swept
FULL JOIN held USING (study)
LEFT JOIN known USING (dataset_digest)
ORDER BY last_sweep DESC NULLS LAST, study;

-- The ids of a study's evaluations, for the table macros: FROM leaderboard_of(evaluations_of('demo')).
CREATE OR REPLACE MACRO evaluations_of(name_of_study) AS (
    SELECT coalesce(list(id ORDER BY id), [])
    FROM study_member
    WHERE study = name_of_study AND kind = 'evaluation'
);

COMMENT ON COLUMN study.grid IS 'name of the grid; NULL for ''earlier''';
COMMENT ON COLUMN study.grid_digest IS 'digest of the grid''s settings in its last sweep';
COMMENT ON COLUMN study.dataset IS 'name of the dataset of its last sweep';
COMMENT ON COLUMN study.dataset_digest IS 'digest of the dataset of its last sweep';
COMMENT ON COLUMN study.experiments IS 'trainings that belong to it, without baselines and moved adapters';
COMMENT ON COLUMN study.evaluations IS 'evaluations that belong to it, baselines and further sets included';
COMMENT ON COLUMN study.sweeps IS 'number of its sweeps';
COMMENT ON COLUMN study.first_sweep IS 'when its first sweep started, UTC; NULL for ''earlier''';
COMMENT ON COLUMN study.last_sweep IS 'when its last sweep started, UTC';
