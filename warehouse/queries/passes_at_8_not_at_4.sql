-- Which adapters pass the gates at 8 bits and not at 4?
SELECT
    base_model,
    recipe,
    seed,
    verdict_8bit,
    verdict_4bit,
    ed_recall_8bit,
    ed_recall_4bit,
    ed_recall_diff,
    ed_recall_verdict
FROM quantization_comparison
WHERE verdict_8bit = 'passes_gates' AND verdict_4bit <> 'passes_gates'
ORDER BY ed_recall_diff, base_model, recipe, seed;
