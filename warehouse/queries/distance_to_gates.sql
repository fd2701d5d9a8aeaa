-- How far is each model from each gate: by its value, and by the bound that must hold?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    gate,
    state,
    threshold,
    value,
    bound,
    CASE WHEN gate = 'ed_false_negative_rate' THEN threshold - value ELSE value - threshold END
        AS value_beyond,
    CASE WHEN gate = 'ed_false_negative_rate' THEN threshold - bound ELSE bound - threshold END
        AS bound_beyond,
    n
FROM gate
JOIN leaderboard USING (evaluation_id)
ORDER BY gate, bound_beyond DESC NULLS LAST, base_model, precision, recipe, seed;
