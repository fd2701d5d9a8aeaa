-- Which cases are decided otherwise at 4 bits than at 8, and are emergencies lost?
-- $label TEXT = NULL: only cases with this true label; NULL: all
SELECT
    pair.base_model,
    pair.recipe,
    pair.seed,
    eight.case_id,
    eight.label,
    eight.decision AS at_8bit,
    four.decision AS at_4bit,
    eight.p_ed AS p_ed_8bit,
    four.p_ed AS p_ed_4bit,
    CASE
        WHEN eight.decision = eight.label THEN 'right at 8 bits only'
        WHEN four.decision = four.label THEN 'right at 4 bits only'
        ELSE 'wrong at both'
    END AS effect
FROM quantization_comparison AS pair
JOIN prediction AS eight ON eight.evaluation_id = pair.evaluation_8bit
JOIN prediction AS four
    ON four.evaluation_id = pair.evaluation_4bit AND four.case_id = eight.case_id
WHERE four.decision <> eight.decision AND eight.label = coalesce($label, eight.label)
ORDER BY eight.label, effect, pair.base_model, pair.recipe, pair.seed, eight.case_id;
