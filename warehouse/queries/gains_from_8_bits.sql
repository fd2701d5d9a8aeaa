-- Which recipe gains most from 8 bits, on each test set?
SELECT
    any_value(dataset) AS dataset,
    recipe,
    random_weights,
    count(*) AS pairs,
    -avg(accuracy_diff) AS accuracy_gain,
    -avg(ed_recall_diff) AS ed_recall_gain,
    -avg(ed_f2_diff) AS ed_f2_gain,
    avg(over_triage_diff) AS over_triage_saved,
    1 / avg(bytes_ratio) AS times_the_bytes
FROM quantization_comparison
GROUP BY set_digest, recipe, random_weights
ORDER BY ed_recall_gain DESC NULLS LAST, dataset, recipe;
