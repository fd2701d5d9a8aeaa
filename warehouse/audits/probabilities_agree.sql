-- One row per area under the curve, net benefit or needed figure of p(ED) that contradicts the predictions.
--
-- The area is that of the ranks (Mann and Whitney); equal probabilities share their mean rank. Needed are the figures of
-- evaluations from scoring version 7 on.
WITH judged AS (
    SELECT evaluation_id FROM evaluation WHERE scoring_version >= 7
),
ranked AS (
    SELECT
        evaluation_id,
        label = 'ED' AS is_ed,
        rank() OVER smaller + (count(*) OVER equal - 1) / 2 AS mean_rank
    FROM prediction JOIN judged USING (evaluation_id)
    WINDOW
        smaller AS (PARTITION BY evaluation_id ORDER BY p_ed),
        equal AS (PARTITION BY evaluation_id, p_ed)
),
areas AS (
    SELECT
        evaluation_id,
        count(*) FILTER (is_ed) AS inside,
        count(*) - inside AS outside,
        IF(
            inside > 0 AND outside > 0,
            (sum(mean_rank) FILTER (is_ed) - inside * (inside + 1) / 2) / (inside * outside),
            NULL
        ) AS area
    FROM ranked
    GROUP BY evaluation_id
),
counted AS (
    SELECT
        evaluation_id,
        threshold,
        count(*) AS cases,
        avg(CASE WHEN p_ed < threshold THEN 0 WHEN label = 'ED' THEN 1 ELSE -threshold / (1 - threshold) END) AS benefit,
        avg(CASE WHEN label = 'ED' THEN 1 ELSE -threshold / (1 - threshold) END) AS of_everybody
    FROM net_benefit JOIN prediction USING (evaluation_id)
    GROUP BY evaluation_id, threshold
)
SELECT areas.evaluation_id, 'ed_auroc' AS what
FROM areas
LEFT JOIN metric ON metric.evaluation_id = areas.evaluation_id AND rule = 'argmax' AND metric.metric = 'ed_auroc'
WHERE note IS NULL AND value IS NULL
    OR (value IS NULL) <> (area IS NULL)
    OR abs(value - area) > 1e-9
UNION ALL
SELECT evaluation_id, 'net_benefit ' || threshold
FROM net_benefit JOIN counted USING (evaluation_id, threshold)
WHERE n <> cases
    OR abs(net_benefit - benefit) > 1e-9
    OR abs(always_ed - of_everybody) > 1e-9
    OR abs(net_benefit - always_ed - over_always_ed) > 1e-9
    OR low > high
    OR over_always_ed_low > over_always_ed_high
UNION ALL
SELECT evaluation_id, 'no net_benefit' FROM judged ANTI JOIN net_benefit USING (evaluation_id);
