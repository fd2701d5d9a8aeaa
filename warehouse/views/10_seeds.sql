-- One row per precision and seed_group with several seeds on one set of cases: spread between the seeds.
--
-- A difference between 4 and 8 bits that is smaller than this spread may be due to chance in training.
CREATE OR REPLACE MACRO seeds_of(ids) AS TABLE
SELECT
    base_model,
    bits,
    precision,
    recipe,
    random_weights,
    settings_digest,
    set_digest,
    primary_rule,
    target_ed_recall,
    any_value(cost_matrix) AS cost_matrix, -- equal costs, in whatever order they are written
    seed_group,
    count(*) AS seeds,
    avg(accuracy) AS accuracy_mean,
    stddev_samp(accuracy) AS accuracy_sd,
    avg(ed_recall) AS ed_recall_mean,
    stddev_samp(ed_recall) AS ed_recall_sd,
    min(ed_recall) AS ed_recall_worst,
    avg(ed_f2) AS ed_f2_mean,
    stddev_samp(ed_f2) AS ed_f2_sd,
    avg(over_triage) AS over_triage_mean,
    count(*) FILTER (verdict = 'passes_gates') AS passes_gates,
    count(*) FILTER (verdict = 'unsafe') AS unsafe,
    list_sort(list_distinct(flatten(list(studies)))) AS studies,
    any_value(dataset) AS dataset,
    any_value(dataset_digest) AS dataset_digest
FROM leaderboard_of(ids)
JOIN seed_group USING (evaluation_id)
WHERE recipe_kind IN ('standard', 'safety')
GROUP BY ALL
HAVING count(*) > 1
ORDER BY base_model, recipe, bits, precision;

CREATE OR REPLACE VIEW seeds AS FROM seeds_of(NULL);

COMMENT ON COLUMN seeds.seeds IS 'number of seeds';
COMMENT ON COLUMN seeds.ed_recall_worst IS 'lowest ED recall of a seed';
COMMENT ON COLUMN seeds.passes_gates IS 'number of seeds that pass the gates';
COMMENT ON COLUMN seeds.unsafe IS 'number of seeds that are unsafe';
