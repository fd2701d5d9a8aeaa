-- Which recipe gains most from 8 bits?
SELECT
    recipe,
    count(*) AS pairs,
    -avg(accuracy_diff) AS accuracy_gain,
    -avg(ed_recall_diff) AS ed_recall_gain,
    -avg(ed_f2_diff) AS ed_f2_gain,
    avg(over_triage_diff) AS over_triage_saved,
    1 / avg(bytes_ratio) AS times_the_bytes
FROM quantization_comparison
GROUP BY recipe
ORDER BY ed_recall_gain DESC NULLS LAST, recipe;
