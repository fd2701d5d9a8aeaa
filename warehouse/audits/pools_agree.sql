-- One row per pooled figure that contradicts its pairs, or its own interval.
--
-- Its means over seeds are those of the figures of its pairs, which predictions give. The verdict
-- follows from where the interval lies, and what further seeds or groups would do stands only where
-- nothing follows.
WITH pair AS (
    FROM pooled_pair
),
expected AS (
    SELECT
        p.pool,
        p.seed_group,
        four.rule,
        four.metric,
        count(*) AS seeds,
        avg(four.figure) AS value_4bit,
        avg(eight.figure) AS value_8bit
    FROM pair AS p
    JOIN rule_figures AS four ON four.evaluation_id = p.evaluation_4bit
    JOIN rule_figures AS eight
        ON eight.evaluation_id = p.evaluation_8bit AND eight.rule = four.rule AND eight.metric = four.metric
    GROUP BY p.pool, p.seed_group, four.rule, four.metric
),
stored AS (
    SELECT
        *,
        IF(metric = 'over_triage', -high, low) AS worst,
        IF(metric = 'over_triage', -low, high) AS best,
        (high - low) / 2 AS half
    FROM pooled_metric
    WHERE pool IN (SELECT pool FROM pair)
)
SELECT stored.pool, stored.seed_group, stored.rule, stored.metric
FROM stored
LEFT JOIN expected USING (pool, seed_group, rule, metric)
WHERE stored.seeds <> expected.seeds
    AND stored.difference IS NOT NULL
    OR (stored.difference IS NULL) <> (expected.value_4bit IS NULL)
    OR abs(stored.value_4bit - expected.value_4bit) > 1e-9
    OR abs(stored.value_8bit - expected.value_8bit) > 1e-9
    OR abs(stored.difference - (expected.value_4bit - expected.value_8bit)) > 1e-9
    OR (stored.low IS NULL) <> (stored.high IS NULL)
    OR stored.low > stored.difference + 1e-9
    OR stored.high < stored.difference - 1e-9
    -- Quantiles of Student's distribution, with any number of degrees of freedom; Tango's interval, of
    -- one seed, may be wider.
    OR stored.half < 1.9599 * stored.standard_error - 1e-9
    OR stored.seeds > 1
    AND (
        stored.half > 12.7063 * stored.standard_error + 1e-9
        OR abs((stored.low + stored.high) / 2 - stored.difference) > 1e-9
    )
    OR (stored.verdict <> 'cannot conclude' OR stored.half <= stored.margin)
    AND coalesce(stored.more_seeds, stored.more_groups) IS NOT NULL
    OR stored.verdict <> CASE
        WHEN stored.worst > -stored.margin AND stored.best < stored.margin THEN 'within'
        WHEN stored.worst > -stored.margin THEN 'not worse'
        WHEN stored.best < -stored.margin THEN 'worse'
        ELSE 'cannot conclude'
    END;
