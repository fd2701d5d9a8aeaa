-- One row per pooled figure that contradicts its pairs, or its own intervals.
--
-- Its means are those of the figures of the pairs that it averages, which predictions give: pairs
-- of which at least one model beats the best constant answer. How much they vary between seeds of a
-- recipe is pooled over recipes. The verdict follows from the band over cases and, where a recipe has
-- two seeds, from the interval over trainings: where only the band concludes, nothing does.
WITH figure AS (
    UNPIVOT (
        SELECT evaluation_id, rule, accuracy, ed_recall, ed_f2, macro_f1, over_triage FROM prediction_figures
    )
    ON accuracy, ed_recall, ed_f2, macro_f1, over_triage INTO NAME metric VALUE figure
    UNION ALL BY NAME
    SELECT evaluation_id, 'argmax' AS rule, 'ed_auroc' AS metric, ed_auroc AS figure FROM auroc_by_ranks
),
averaged AS (
    SELECT
        pool,
        unnest([base_model, 'all']) AS base_model,
        seed_group,
        evaluation_4bit,
        evaluation_8bit
    FROM pooled_pair
    JOIN seed_group ON seed_group.evaluation_id = evaluation_4bit
    WHERE evaluation_4bit IN (SELECT evaluation_id FROM informed WHERE beats_constant)
        OR evaluation_8bit IN (SELECT evaluation_id FROM informed WHERE beats_constant)
),
pair AS (
    SELECT
        pool,
        base_model,
        seed_group,
        four.rule,
        four.metric,
        four.figure AS value_4bit,
        eight.figure AS value_8bit
    FROM averaged
    JOIN figure AS four ON four.evaluation_id = evaluation_4bit
    JOIN figure AS eight
        ON eight.evaluation_id = evaluation_8bit AND eight.rule = four.rule AND eight.metric = four.metric
),
recipe AS (
    SELECT
        pool,
        base_model,
        rule,
        metric,
        count(*) AS pairs,
        sum(value_4bit) AS sum_4bit,
        sum(value_8bit) AS sum_8bit,
        var_pop(value_4bit - value_8bit) * count(*) AS squares
    FROM pair
    GROUP BY pool, base_model, rule, metric, seed_group
),
expected AS (
    SELECT
        pool,
        base_model,
        rule,
        metric,
        sum(pairs) AS pairs,
        sum(sum_4bit) / sum(pairs) AS value_4bit,
        sum(sum_8bit) / sum(pairs) AS value_8bit,
        sqrt(sum(squares) / nullif(sum(pairs - 1), 0)) AS seed_sd
    FROM recipe
    GROUP BY ALL
),
stored AS (
    SELECT
        *,
        IF(metric = 'over_triage', -high, low) AS worst,
        IF(metric = 'over_triage', -low, high) AS best,
        coalesce(IF(metric = 'over_triage', -seed_high, seed_low), worst) AS seed_worst,
        coalesce(IF(metric = 'over_triage', -seed_low, seed_high), best) AS seed_best
    FROM pooled_metric
    WHERE pool IN (SELECT pool FROM pooled_pair)
)
SELECT stored.pool, stored.base_model, stored.rule, stored.metric
FROM stored
LEFT JOIN expected USING (pool, base_model, rule, metric)
WHERE stored.pairs <> coalesce(expected.pairs, 0)
    AND stored.difference IS NOT NULL
    OR (stored.difference IS NULL) <> (expected.value_4bit IS NULL)
    OR abs(stored.value_4bit - expected.value_4bit) > 1e-9
    OR abs(stored.value_8bit - expected.value_8bit) > 1e-9
    OR abs(stored.difference - (expected.value_4bit - expected.value_8bit)) > 1e-9
    OR (stored.low IS NULL) <> (stored.high IS NULL)
    OR stored.low > stored.difference
    OR stored.high < stored.difference
    OR abs((stored.high - stored.low) / 2 - stored.could_show) > 1e-9
    OR (stored.seed_sd IS NULL) <> (expected.seed_sd IS NULL)
    OR abs(stored.seed_sd - expected.seed_sd) > 1e-9
    OR (stored.seed_sd IS NULL) <> (stored.seed_low IS NULL)
    OR (stored.seed_sd IS NULL) <> (stored.seed_high IS NULL)
    OR abs((stored.seed_low + stored.seed_high) / 2 - stored.difference) > 1e-9
    -- Quantiles of Student's distribution, with any number of degrees of freedom.
    OR (stored.seed_high - stored.seed_low) / 2 * sqrt(stored.pairs)
        NOT BETWEEN 1.9599 * stored.seed_sd - 1e-9 AND 12.7063 * stored.seed_sd + 1e-9
    OR stored.verdict NOT LIKE CASE
        WHEN stored.worst > -stored.margin AND stored.seed_worst > -stored.margin THEN 'not inferior'
        WHEN stored.best < -stored.margin AND stored.seed_best < -stored.margin THEN 'inferior'
        WHEN stored.worst > -stored.margin OR stored.best < -stored.margin THEN 'cannot conclude: it varies%'
        WHEN stored.worst IS NOT NULL THEN 'cannot conclude'
        ELSE 'cannot conclude%'
    END;
