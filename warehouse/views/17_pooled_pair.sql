-- One row per 4-bit/8-bit pair of trained models that is pooled: matched_pair without untuned and moved ones.
--
-- The pairs of a pool were judged on the same cases. pool names them all by one digest, which
-- changes with any of them: quantization_summary shows the figures of exactly these pairs, a recipe
-- under one setting (seed_group) a row. In pooled_pair_of(ids) both sides of a pair are among these evaluations.
CREATE OR REPLACE MACRO pooled_pair_of(ids) AS TABLE
WITH pair AS (
    SELECT
        p.evaluation_set,
        p.set_digest,
        x.random_weights,
        p.base_model,
        p.recipe,
        p.seed,
        g.seed_group,
        e.primary_rule,
        p.evaluation_4bit,
        p.evaluation_8bit,
        p.studies,
        p.dataset,
        coalesce(l4.manifest_digest, p.evaluation_4bit)
        || coalesce(l8.manifest_digest, p.evaluation_8bit) AS content
    FROM matched_pair_of(ids) AS p
    JOIN experiment AS x ON x.training_id = p.training_4bit
    JOIN evaluation AS e ON e.evaluation_id = p.evaluation_4bit
    JOIN seed_group AS g ON g.evaluation_id = p.evaluation_4bit
    LEFT JOIN landed AS l4 ON l4.id = p.evaluation_4bit
    LEFT JOIN landed AS l8 ON l8.id = p.evaluation_8bit
    WHERE x.recipe_kind IN ('standard', 'safety')
),
pool AS (
    SELECT
        evaluation_set,
        set_digest,
        random_weights,
        md5(string_agg(content, ' ' ORDER BY content)) AS pool
    FROM pair
    GROUP BY evaluation_set, set_digest, random_weights
)
SELECT pair.* EXCLUDE (content), pool.pool
FROM pair
JOIN pool
    ON pool.evaluation_set = pair.evaluation_set
    AND pool.set_digest = pair.set_digest
    AND pool.random_weights IS NOT DISTINCT FROM pair.random_weights;

CREATE OR REPLACE VIEW pooled_pair AS FROM pooled_pair_of(NULL);
