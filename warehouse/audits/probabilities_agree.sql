-- One row per area under the curve, net benefit or needed figure of p(ED) that contradicts the predictions.
--
-- Needed are the figures of evaluations from scoring version 7 on.
WITH judged AS (
    SELECT evaluation_id FROM evaluation WHERE scoring_version >= 7
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
SELECT judged.evaluation_id, 'ed_auroc' AS what
FROM judged
JOIN auroc_by_ranks USING (evaluation_id)
LEFT JOIN metric ON metric.evaluation_id = judged.evaluation_id AND rule = 'argmax' AND metric.metric = 'ed_auroc'
WHERE note IS NULL AND value IS NULL
    OR (value IS NULL) <> (ed_auroc IS NULL)
    OR abs(value - ed_auroc) > 1e-9
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
