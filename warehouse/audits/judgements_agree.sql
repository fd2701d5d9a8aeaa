-- One row per review flag, subgroup, reliability bin or conformal set that contradicts its cases.
WITH flagged AS (
    SELECT
        evaluation_id,
        count(*) AS cases,
        avg(review::INTEGER) AS load,
        count(*) FILTER (label = 'ED' AND decision <> 'ED') AS missed_ed
    FROM mc_dropout JOIN prediction USING (evaluation_id, case_id)
    GROUP BY evaluation_id
),
areas AS (
    SELECT evaluation_id, score, avg(error_kept) AS aurc FROM risk_coverage GROUP BY ALL
),
parts AS (
    SELECT evaluation_id, field, sum(n) AS ed_cases
    FROM subgroup_metric
    WHERE metric = 'ed_recall'
    GROUP BY ALL
),
bins AS (
    SELECT evaluation_id, sum(n) AS cases FROM reliability GROUP BY ALL
),
totals AS (
    SELECT
        evaluation_id,
        count(*) AS cases,
        count(*) FILTER (label = 'ED') AS ed_cases,
        count(*) FILTER (label = 'ED' AND p_ed < threshold_ed) AS outside
    FROM prediction LEFT JOIN conformal USING (evaluation_id)
    GROUP BY evaluation_id
)
SELECT evaluation_id, 'review_flag ' || score AS what
FROM review_flag AS r
JOIN flagged USING (evaluation_id)
LEFT JOIN areas USING (evaluation_id, score)
WHERE r.cases <> flagged.cases
    OR abs(r.load - flagged.load) > 1e-9
    OR r.missed_ed <> flagged.missed_ed
    OR abs(r.aurc - areas.aurc) > 1e-6
UNION ALL
SELECT evaluation_id, 'subgroup_metric ' || field
FROM parts JOIN totals USING (evaluation_id) WHERE parts.ed_cases > totals.ed_cases
UNION ALL
SELECT evaluation_id, 'reliability' FROM bins JOIN totals USING (evaluation_id) WHERE bins.cases <> totals.cases
UNION ALL
SELECT evaluation_id, 'conformal'
FROM conformal JOIN totals USING (evaluation_id)
WHERE conformal.ed_cases <> totals.ed_cases OR coalesce(conformal.ed_missed, 0) <> totals.outside;
