-- Which emergencies does a recipe miss at 4 and at 8 bits, and which at one of them alone?
-- $recipe TEXT = NULL of leaderboard: only this recipe; NULL: each
-- 0 rows: no emergency is missed by a recipe that has models at 4 and at 8 bits
WITH answered AS (
    SELECT
        base_model,
        recipe,
        random_weights,
        case_key,
        case_id,
        case_group,
        any_value(dataset) AS dataset,
        count(*) FILTER (precision = '4bit') AS models_4bit,
        count(*) FILTER (precision = '4bit' AND decision <> 'ED') AS missed_4bit,
        count(*) FILTER (precision = '8bit') AS models_8bit,
        count(*) FILTER (precision = '8bit' AND decision <> 'ED') AS missed_8bit
    FROM case_answer
    WHERE label = 'ED' AND decision IS NOT NULL AND recipe = coalesce($recipe, recipe)
    GROUP BY ALL
)
SELECT
    base_model,
    recipe,
    CASE WHEN missed_8bit = 0 THEN '4 bits alone' WHEN missed_4bit = 0 THEN '8 bits alone' ELSE 'both' END AS missed_at,
    case_id,
    case_group,
    dataset,
    missed_4bit,
    models_4bit,
    missed_8bit,
    models_8bit
FROM answered
WHERE models_4bit > 0 AND models_8bit > 0 AND missed_4bit + missed_8bit > 0
ORDER BY
    base_model, recipe, random_weights, missed_at <> 'both', missed_at, missed_4bit + missed_8bit DESC, case_id, case_key;
