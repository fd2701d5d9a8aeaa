-- One row per base model, recipe, seed, arm, set and precision: bytes against ED recall and macro F1.
--
-- dominated_by names the precisions of the same row's arm that need no more bytes, catch no fewer
-- emergencies and have no lower macro F1, and are better in one of the three; a precision is on the
-- frontier where there are none. ED recall and macro F1 follow the primary rule, and are points
-- without intervals: precision_comparison has those of the differences. The arm (adapter) is that of
-- precision_arm, and the latest evaluations that may be compared count.
CREATE OR REPLACE MACRO frontier_of(ids) AS TABLE
WITH comparable AS (
    FROM precision_arm
    WHERE ids IS NULL OR evaluation_id IN (SELECT unnest(ids::VARCHAR[]))
    QUALIFY conditions = first(conditions) OVER (
        PARTITION BY base_model, recipe, seed, adapter, evaluation_set, set_digest, random_weights
        ORDER BY scoring_version DESC, created_at DESC, evaluation_id DESC
    )
),
latest AS (
    FROM comparable
    QUALIFY row_number() OVER (
        PARTITION BY
            base_model, recipe, seed, adapter, evaluation_set, set_digest, random_weights, precision
        ORDER BY scoring_version DESC, created_at DESC, evaluation_id DESC
    ) = 1
),
placed AS (
    SELECT latest.*, f.cases, f.ed_cases, f.ed_recall, f.macro_f1, f.over_triage
    FROM latest
    LEFT JOIN prediction_figures AS f ON f.evaluation_id = latest.evaluation_id AND f.rule = 'primary'
),
dominance AS (
    SELECT
        one.evaluation_id,
        one.adapter,
        list(other.precision ORDER BY other.stored_bytes, other.precision) AS dominated_by
    FROM placed AS one
    JOIN placed AS other USING (base_model, recipe, seed, adapter, evaluation_set, conditions)
    WHERE other.stored_bytes <= one.stored_bytes
        AND other.ed_recall >= one.ed_recall
        AND other.macro_f1 >= one.macro_f1
        AND (
            other.stored_bytes < one.stored_bytes
            OR other.ed_recall > one.ed_recall
            OR other.macro_f1 > one.macro_f1
        )
    GROUP BY one.evaluation_id, one.adapter
)
SELECT
    base_model,
    recipe,
    seed,
    placed.adapter,
    evaluation_set,
    precision,
    stored_bytes,
    bits_per_weight,
    cases,
    ed_cases,
    ed_recall,
    macro_f1,
    over_triage,
    CASE
        WHEN ed_recall IS NULL OR macro_f1 IS NULL THEN NULL
        ELSE dominated_by IS NOT NULL
    END AS dominated,
    array_to_string(dominated_by, ', ') AS dominated_by,
    compute_path,
    note,
    random_weights,
    placed.evaluation_id,
    o.studies,
    o.dataset,
    o.dataset_digest,
    set_digest
FROM placed
JOIN evaluation_origin AS o ON o.evaluation_id = placed.evaluation_id
LEFT JOIN dominance
    ON dominance.evaluation_id = placed.evaluation_id AND dominance.adapter = placed.adapter
ORDER BY base_model, recipe, seed, placed.adapter, evaluation_set, set_digest, stored_bytes DESC, precision;

CREATE OR REPLACE VIEW frontier AS FROM frontier_of(NULL);

COMMENT ON COLUMN frontier.macro_f1 IS 'mean of the F1 of the classes that the set has cases of (0 to 1)';
COMMENT ON COLUMN frontier.dominated IS 'whether another precision needs no more bytes, is as good in both figures and better in one of the three';
COMMENT ON COLUMN frontier.dominated_by IS 'the precisions that dominate it, smallest first; NULL where it is on the frontier';
COMMENT ON COLUMN frontier.note IS 'what cannot follow from weights that were quantised before they were fetched by the study';
