-- How many emergencies would narrow the interval of the ED recall difference to a margin?
-- $margin DOUBLE = 0.02: half the width of the interval
SELECT
    base_model,
    recipe,
    seed,
    ed_cases,
    ed_recall_diff,
    ed_recall_low,
    ed_recall_high,
    (ed_recall_high - ed_recall_low) / 2 AS half_width,
    ceil(ed_cases * ((ed_recall_high - ed_recall_low) / 2 / $margin) ** 2)::BIGINT
        AS emergencies_for_margin,
    ed_recall_verdict
FROM quantization_comparison
ORDER BY half_width, base_model, recipe, seed;
