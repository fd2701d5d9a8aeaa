-- One row per evaluation, uncertainty score and case: error rate of cases at most as uncertain.
--
-- That is the error rate if only these cases are decided without review. Only cases that went
-- through dropout count. Cases with equal scores count with their mean, as in review_flag.aurc.
CREATE OR REPLACE VIEW risk_coverage AS
WITH scored AS (
    SELECT
        evaluation_id,
        case_id,
        (p.decision <> p.label)::DOUBLE AS wrong,
        unnest(['vote_entropy', 'max_probability', 'single_pass_entropy']) AS score,
        unnest([
            m.entropy_nats,
            1 - greatest(p.p_ed, p.p_gp, p.p_home),
            -list_sum(list_transform(
                [p.p_ed, p.p_gp, p.p_home], lambda q: CASE WHEN q > 0 THEN q * ln(q) ELSE 0 END
            ))
        ]) AS uncertainty
    FROM mc_dropout AS m JOIN prediction AS p USING (evaluation_id, case_id)
    ANTI JOIN sealed_evaluation USING (evaluation_id)
    WHERE p.decision IS NOT NULL
),
smoothed AS (
    SELECT *, avg(wrong) OVER (PARTITION BY evaluation_id, score, uncertainty) AS mean_wrong
    FROM scored
)
SELECT
    evaluation_id,
    score,
    row_number() OVER least_uncertain_first AS kept,
    kept / count(*) OVER (PARTITION BY evaluation_id, score) AS coverage,
    avg(mean_wrong) OVER least_uncertain_first AS error_kept
FROM smoothed
WINDOW least_uncertain_first AS (
    PARTITION BY evaluation_id, score ORDER BY uncertainty, case_id ROWS UNBOUNDED PRECEDING
);

COMMENT ON COLUMN risk_coverage.kept IS 'number of cases that are decided without review';
COMMENT ON COLUMN risk_coverage.coverage IS 'share (0 to 1) of cases that are kept, the least uncertain first';
