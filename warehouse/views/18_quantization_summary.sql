-- One row per metric, decision rule, set of cases and recipe under one setting: 4 bits minus 8 bits, the mean over its seeds.
--
-- The seeds are those of pooled_pair. The interval (low, high) is over trainings and groups, crossed;
-- with one seed it is over groups alone, and leaves out chance in training, as note says. Chance in
-- calibration, from which thresholds come, is always left out. Recipes and base models are never
-- averaged. `linear` is the evaluation of the baseline on these cases; where there is none, that of
-- `tfidf_lr`, which an earlier version fitted. A pool whose figures are not made yet has no row; `triage compare`
-- makes them. quantization_summary_of(ids) shows the pools of these evaluations; stored are those of
-- all evaluations, of each study, and of the last sweep.
CREATE OR REPLACE MACRO quantization_summary_of(ids) AS TABLE
WITH recipe AS (
    SELECT
        evaluation_set,
        set_digest,
        random_weights,
        seed_group,
        any_value(primary_rule) AS primary_rule,
        any_value(evaluation_4bit) AS one_evaluation,
        list_sort(list_distinct(flatten(list(studies)))) AS studies,
        any_value(dataset) AS dataset,
        pool
    FROM pooled_pair_of(ids)
    GROUP BY evaluation_set, set_digest, random_weights, seed_group, pool
),
baseline AS (
    SELECT e.evaluation_set, e.set_digest, e.evaluation_id
    FROM evaluation AS e
    JOIN experiment AS x ON x.training_id = e.training_id
    WHERE x.recipe IN ('linear', 'tfidf_lr')
    QUALIFY row_number() OVER (
        PARTITION BY e.evaluation_set, e.set_digest
        ORDER BY
            x.recipe = 'linear' DESC,
            list_contains(ids::VARCHAR[], e.evaluation_id) DESC NULLS LAST,
            e.scoring_version DESC,
            e.created_at DESC,
            e.evaluation_id
    ) = 1
),
baseline_figure AS (
    UNPIVOT (
        SELECT evaluation_id, rule, accuracy, ed_recall, ed_f2, macro_f1, over_triage FROM prediction_figures
    )
    ON accuracy, ed_recall, ed_f2, macro_f1, over_triage INTO NAME metric VALUE figure
    UNION ALL BY NAME
    SELECT evaluation_id, rule, metric, value AS figure FROM metric WHERE metric = 'ed_auroc'
),
gain AS (
    SELECT
        recipe.pool,
        recipe.seed_group,
        least(m.value_4bit, m.value_8bit) - constant.macro_f1 AS of_models,
        f.figure - constant.macro_f1 AS of_linear
    FROM recipe
    JOIN pooled_metric AS m
        ON m.pool = recipe.pool AND m.seed_group = recipe.seed_group AND m.rule = 'argmax' AND m.metric = 'macro_f1'
    JOIN best_constant AS constant ON constant.evaluation_id = recipe.one_evaluation
    JOIN baseline ON baseline.evaluation_set = recipe.evaluation_set AND baseline.set_digest = recipe.set_digest
    JOIN baseline_figure AS f
        ON f.evaluation_id = baseline.evaluation_id AND f.rule = 'argmax' AND f.metric = 'macro_f1'
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY pool ORDER BY p_value NULLS LAST, seed_group, rule, metric) AS place,
        count(p_value) OVER (PARTITION BY pool) AS tests
    FROM pooled_metric
    WHERE pool IN (SELECT pool FROM recipe)
)
SELECT
    recipe.evaluation_set,
    recipe.set_digest,
    recipe.random_weights,
    m.* EXCLUDE (pool, place, tests),
    gain.of_models >= 0.5 * gain.of_linear AS qualifies,
    f.figure AS linear_value,
    m.margin / nullif(greatest(IF(m.metric = 'over_triage', -1, 1) * (m.value_8bit - f.figure), 0), 0) AS margin_share,
    IF(
        m.p_value IS NULL,
        NULL,
        least(1, max(m.p_value * (tests - place + 1)) OVER (PARTITION BY m.pool ORDER BY place))
    ) AS holm_p,
    recipe.studies,
    recipe.dataset,
    recipe.pool
FROM recipe
JOIN ranked AS m ON m.pool = recipe.pool AND m.seed_group = recipe.seed_group
LEFT JOIN gain ON gain.pool = recipe.pool AND gain.seed_group = recipe.seed_group
LEFT JOIN baseline ON baseline.evaluation_set = recipe.evaluation_set AND baseline.set_digest = recipe.set_digest
LEFT JOIN baseline_figure AS f
    ON f.evaluation_id = baseline.evaluation_id
    AND f.metric = m.metric
    AND f.rule = CASE
        WHEN m.rule = 'primary' THEN recipe.primary_rule
        ELSE m.rule
    END
ORDER BY
    recipe.evaluation_set,
    recipe.set_digest,
    recipe.random_weights,
    m.base_model,
    m.recipe,
    m.seed_group,
    m.rule,
    m.metric;

CREATE OR REPLACE VIEW quantization_summary AS FROM quantization_summary_of(NULL);

COMMENT ON COLUMN quantization_summary.rule IS '''primary'' (the recipe''s own rule), ''argmax'', or ''target_recall'' (by the threshold of each model); ed_auroc, which depends on no rule, has ''argmax''';
COMMENT ON COLUMN quantization_summary.cases IS 'cases that the metric is computed from: emergencies, or all';
COMMENT ON COLUMN quantization_summary.groups IS 'groups of cases that the interval rests on; NULL where cases have none, and each counts as independent';
COMMENT ON COLUMN quantization_summary.value_4bit IS 'mean of the figure over the seeds at 4 bits';
COMMENT ON COLUMN quantization_summary.difference IS 'mean over the seeds of 4 bits minus 8 bits on the same cases';
COMMENT ON COLUMN quantization_summary.low IS 'lower end of the 95 % interval over trainings and groups; with one seed over groups alone';
COMMENT ON COLUMN quantization_summary.high IS 'upper end of the 95 % interval over trainings and groups; with one seed over groups alone';
COMMENT ON COLUMN quantization_summary.qualifies IS 'whether both sides gain at least half of what the linear baseline gains in macro F1 (argmax) over the best constant answer; NULL without a baseline on these cases';
COMMENT ON COLUMN quantization_summary.linear_value IS 'the figure of the linear baseline by the same rule';
COMMENT ON COLUMN quantization_summary.margin_share IS 'margin as a share of what the model at 8 bits gains over the linear baseline by the same rule; NULL where it gains nothing';
COMMENT ON COLUMN quantization_summary.holm_p IS 'p_value adjusted for all figures of the set (Holm)';
