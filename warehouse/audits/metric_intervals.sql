-- One row per metric with an impossible interval.
--
-- An interval has its lower bound first, and the one in use is the wider of both.
SELECT evaluation_id, rule, metric
FROM metric
WHERE low > high
    OR exact_low > exact_high
    OR clustered_low > clustered_high
    OR abs(high - low - greatest(exact_high - exact_low, clustered_high - clustered_low)) > 1e-9;
