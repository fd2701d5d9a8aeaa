-- Is the difference between 4 and 8 bits larger than the spread between seeds?
SELECT
    base_model,
    recipe,
    count(*) AS seeds,
    avg(accuracy_diff) AS accuracy_diff_mean,
    stddev_samp(accuracy_4bit) AS accuracy_sd_4bit,
    stddev_samp(accuracy_8bit) AS accuracy_sd_8bit,
    avg(ed_recall_diff) AS ed_recall_diff_mean,
    stddev_samp(ed_recall_4bit) AS ed_recall_sd_4bit,
    stddev_samp(ed_recall_8bit) AS ed_recall_sd_8bit,
    CASE
        WHEN count(*) < 2 THEN 'one seed: train more to see the spread'
        WHEN abs(avg(ed_recall_diff)) > greatest(ed_recall_sd_4bit, ed_recall_sd_8bit)
            THEN 'larger than the spread'
        ELSE 'within the spread'
    END AS ed_recall
FROM quantization_comparison
JOIN seed_group ON seed_group.evaluation_id = evaluation_4bit
GROUP BY base_model, recipe, set_digest, seed_group
ORDER BY base_model, recipe;
