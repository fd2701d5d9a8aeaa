-- One row per seed_group with pairs of several seeds on one set of cases: 4 bits minus 8 bits.
--
-- Mean and spread over the seeds. _same_sign counts the seeds whose difference has the sign of the
-- mean.
CREATE OR REPLACE MACRO seed_differences_of(ids) AS TABLE
SELECT
    base_model,
    recipe,
    random_weights,
    settings_digest,
    set_digest,
    primary_rule,
    target_ed_recall,
    any_value(cost_matrix) AS cost_matrix, -- equal costs, in whatever order they are written
    seed_group,
    count(*) AS seeds,
    avg(accuracy_diff) AS accuracy_diff_mean,
    stddev_samp(accuracy_diff) AS accuracy_diff_sd,
    sum((sign(accuracy_diff) = sign(mean_accuracy))::INTEGER) AS accuracy_same_sign,
    avg(ed_recall_diff) AS ed_recall_diff_mean,
    stddev_samp(ed_recall_diff) AS ed_recall_diff_sd,
    sum((sign(ed_recall_diff) = sign(mean_ed_recall))::INTEGER) AS ed_recall_same_sign,
    avg(ed_auroc_diff) AS ed_auroc_diff_mean,
    stddev_samp(ed_auroc_diff) AS ed_auroc_diff_sd,
    sum((sign(ed_auroc_diff) = sign(mean_ed_auroc))::INTEGER) AS ed_auroc_same_sign,
    list_sort(list_distinct(flatten(list(studies)))) AS studies,
    any_value(dataset) AS dataset,
    any_value(dataset_digest) AS dataset_digest
FROM (
    SELECT
        *,
        avg(accuracy_diff) OVER alike AS mean_accuracy,
        avg(ed_recall_diff) OVER alike AS mean_ed_recall,
        avg(ed_auroc_diff) OVER alike AS mean_ed_auroc
    FROM quantization_comparison_of(ids)
    JOIN seed_group ON seed_group.evaluation_id = evaluation_4bit
    WINDOW alike AS (PARTITION BY set_digest, seed_group)
)
GROUP BY ALL
HAVING count(*) > 1
ORDER BY base_model, recipe;

CREATE OR REPLACE VIEW seed_differences AS FROM seed_differences_of(NULL);

COMMENT ON COLUMN seed_differences.seeds IS 'number of seeds';
COMMENT ON COLUMN seed_differences.accuracy_same_sign IS 'number of seeds whose difference has the sign of the mean';
COMMENT ON COLUMN seed_differences.ed_recall_same_sign IS 'number of seeds whose difference has the sign of the mean';
COMMENT ON COLUMN seed_differences.ed_auroc_same_sign IS 'number of seeds whose difference has the sign of the mean';
