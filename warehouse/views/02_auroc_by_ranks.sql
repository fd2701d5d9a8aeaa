-- One row per evaluation: the AUROC of emergencies by the ranks of p_ed (Mann and Whitney).
--
-- Equal probabilities share their mean rank. NULL without an emergency, or without another case.
-- Audits compare stored figures with it, which come from placements.
CREATE OR REPLACE VIEW auroc_by_ranks AS
WITH ranked AS (
    SELECT
        evaluation_id,
        label = 'ED' AS is_ed,
        rank() OVER smaller + (count(*) OVER equal - 1) / 2 AS mean_rank
    FROM prediction ANTI JOIN sealed_evaluation USING (evaluation_id)
    WINDOW
        smaller AS (PARTITION BY evaluation_id ORDER BY p_ed),
        equal AS (PARTITION BY evaluation_id, p_ed)
)
SELECT
    evaluation_id,
    count(*) FILTER (is_ed) AS ed_cases,
    count(*) - ed_cases AS other_cases,
    IF(
        ed_cases > 0 AND other_cases > 0,
        (sum(mean_rank) FILTER (is_ed) - ed_cases * (ed_cases + 1) / 2) / (ed_cases * other_cases),
        NULL
    ) AS ed_auroc
FROM ranked
GROUP BY evaluation_id;

COMMENT ON COLUMN auroc_by_ranks.other_cases IS 'number of cases with another label than ED';
COMMENT ON COLUMN auroc_by_ranks.ed_auroc IS 'AUROC (0 to 1) of ED against the rest';
