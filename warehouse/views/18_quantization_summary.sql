-- One row per metric, decision rule, set of cases and base model, and one over all: 4 bits minus 8 bits, pooled.
--
-- The difference is the mean over the trained pairs of pooled_pair (recipes and seeds) of which at
-- least one model beats the best constant answer; the others are counted in pairs_left_out. Bands
-- (low, high) hold for all figures of a set of cases at once with 95 % confidence, and p_value is
-- adjusted for all of them: both come from one joint bootstrap of the groups over all pairs, since
-- the same cases are in all of them. They speak of these trained models; seed_low and seed_high are
-- Student's 95 % interval over trainings, from how much the difference varies between seeds of one
-- recipe under one setting (seed_sd). A verdict needs both intervals. ed_auroc is linearised: its placements are
-- resampled. A pool whose figures are not made yet has no row; `triage compare` makes them.
-- quantization_summary_of(ids) shows the pools of these evaluations; stored are those of all
-- evaluations, and of the study of the last sweep.
CREATE OR REPLACE MACRO quantization_summary_of(ids) AS TABLE
SELECT
    p.evaluation_set,
    p.set_digest,
    p.random_weights,
    m.* EXCLUDE (pool),
    p.studies,
    p.dataset,
    p.pool
FROM (
    SELECT
        evaluation_set,
        set_digest,
        random_weights,
        list_sort(list_distinct(flatten(list(studies)))) AS studies,
        any_value(dataset) AS dataset,
        pool
    FROM pooled_pair_of(ids)
    GROUP BY evaluation_set, set_digest, random_weights, pool
) AS p
JOIN pooled_metric AS m USING (pool)
ORDER BY p.evaluation_set, p.set_digest, p.random_weights, m.base_model <> 'all', m.base_model, m.rule, m.metric;

CREATE OR REPLACE VIEW quantization_summary AS FROM quantization_summary_of(NULL);

COMMENT ON COLUMN quantization_summary.base_model IS 'short name of the base model; ''all'': the mean over the pairs of every base model';
COMMENT ON COLUMN quantization_summary.rule IS '''primary'' (the recipe''s own rule), ''argmax'', or ''target_recall'' (by the threshold of each model); ed_auroc, which depends on no rule, has ''argmax''';
COMMENT ON COLUMN quantization_summary.cases IS 'cases that the metric is computed from: emergencies, or all';
COMMENT ON COLUMN quantization_summary.groups IS 'groups that were resampled; NULL where cases have none';
COMMENT ON COLUMN quantization_summary.value_4bit IS 'mean of the figure over the averaged pairs at 4 bits';
COMMENT ON COLUMN quantization_summary.value_8bit IS 'mean of the figure over the averaged pairs at 8 bits';
COMMENT ON COLUMN quantization_summary.difference IS 'mean over the averaged pairs of 4 bits minus 8 bits on the same cases';
COMMENT ON COLUMN quantization_summary.low IS 'lower end of the band: all bands of the pool hold together with 95 % confidence';
COMMENT ON COLUMN quantization_summary.high IS 'upper end of the band: all bands of the pool hold together with 95 % confidence';
COMMENT ON COLUMN quantization_summary.verdict IS 'whether 4 bits are ''not inferior'' or ''inferior'' at the margin by the band and between seeds, or ''cannot conclude'' and why';
