-- What does each pair of a study say about 4 against 8 bits?
-- $study TEXT = NULL of study: one study; NULL: that of the last sweep
-- 0 rows: the study has no pair of otherwise equal experiments at 4 and 8 bits
SELECT
    base_model,
    recipe,
    seed,
    accuracy_diff,
    accuracy_verdict,
    ed_recall_diff,
    ed_recall_verdict
FROM quantization_comparison_of(
    evaluations_of(
        coalesce($study, (SELECT study FROM study ORDER BY last_sweep DESC NULLS LAST, study LIMIT 1))
    )
)
ORDER BY base_model, recipe, seed;
