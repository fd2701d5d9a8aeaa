-- One row per study with a primary claim: that of its latest sweep whose grid has the table [primary].
--
-- A sweep lands its claim before its first evaluation. A claim is registered by the sweep that first names it, or that
-- names it again after another one; a sweep whose grid has no [primary] leaves the claim of the study as it is.
-- primary_claim also says whether results were there before.
CREATE OR REPLACE VIEW registered_claim AS
WITH claiming AS (
    SELECT
        *,
        primary_digest IS DISTINCT FROM lag(primary_digest)
            OVER (PARTITION BY study ORDER BY started_at, sweep_id) AS is_new
    FROM sweep
    WHERE primary_claim IS NOT NULL
),
latest AS (
    SELECT
        study,
        last(sweep_id ORDER BY started_at, sweep_id) AS sweep_id,
        last(primary_digest ORDER BY started_at, sweep_id) AS digest,
        max(started_at) FILTER (is_new) AS registered_at,
        from_json(
            last(primary_claim ORDER BY started_at, sweep_id),
            '{
                "base_model": "VARCHAR", "recipe": "VARCHAR", "sides": ["VARCHAR"],
                "figures": ["VARCHAR"], "margin": "DOUBLE", "seeds": ["BIGINT"],
                "further_seeds": ["BIGINT"], "adjust": "VARCHAR", "threshold": "VARCHAR",
                "sealed": "BOOLEAN"
            }'
        ) AS claim
    FROM claiming
    GROUP BY study
),
opening AS (
    SELECT study, objective, min(looked_at) AS opened_at, first(seeds ORDER BY looked_at, look_id) AS seeds
    FROM look
    GROUP BY study, objective
)
SELECT
    latest.study,
    sweep_id,
    claim.base_model,
    claim.recipe,
    claim.sides[1] AS side,
    claim.sides[2] AS reference,
    claim.figures,
    claim.margin,
    coalesce(opening.seeds, claim.seeds) AS seeds,
    coalesce(claim.further_seeds, []) AS further_seeds,
    coalesce(claim.adjust, 'none') AS adjust,
    coalesce(claim.threshold, 'kept') AS threshold,
    coalesce(claim.sealed AND opened_at IS NULL, false) AS sealed,
    opened_at,
    digest,
    registered_at
FROM latest
LEFT JOIN opening ON opening.study = latest.study AND objective = 'primary claim ' || digest
ORDER BY latest.study;

COMMENT ON COLUMN registered_claim.side IS 'the precision that the claim is about';
COMMENT ON COLUMN registered_claim.reference IS 'the precision that it is compared with; a side that the grid does not train at has the adapters of this one, moved';
COMMENT ON COLUMN registered_claim.figures IS 'claimed figures: accuracy, macro_f1 and ed_auroc by the most probable label, the others by each model''s threshold';
COMMENT ON COLUMN registered_claim.margin IS 'loss up to which the side counts as not worse';
COMMENT ON COLUMN registered_claim.seeds IS 'seeds whose trainings the claim is about; of a sealed one that is opened, those of the look';
COMMENT ON COLUMN registered_claim.further_seeds IS 'seeds that join the claim by its rule, and only before it is opened';
COMMENT ON COLUMN registered_claim.adjust IS '''holm'': a figure is not worse only if its one-sided p, adjusted for all claimed figures, is below 0.025; else ''none''';
COMMENT ON COLUMN registered_claim.threshold IS 'of moved adapters: ''kept'', ''chosen_again'' on calibration at the precision, or ''both'', a sentence for each';
COMMENT ON COLUMN registered_claim.sealed IS 'whether its models are left out of every view, until it is opened';
COMMENT ON COLUMN registered_claim.opened_at IS 'when `triage compare STUDY --open` opened it, UTC; NULL where nothing did';
COMMENT ON COLUMN registered_claim.digest IS 'first 12 hex digits of the SHA-256 of the claim as canonical JSON';
COMMENT ON COLUMN registered_claim.registered_at IS 'when the first of the sweeps with this claim started, UTC; before its first evaluation';
