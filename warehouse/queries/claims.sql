-- Which claims of the published study and of our READMEs does this warehouse support?
--
-- A claim holds where its whole interval lies from least to most, and is refuted where it lies outside;
-- a figure without an interval is judged as a point. A claim is as good as its worst row. A row is
-- undecided under a condition of its own, e.g. since a warehouse may hold more than one study.
WITH claim (name, sentence, least, most) AS (
    VALUES
    ('half_the_size', 'Models at 4 bits take about half of what they take at 8 bits.', 0.45, 0.6),
    ('360m_at_4_bits', 'SmolLM2-360M takes about 360 MB at 4 bits (exact: 203.6 MB).', 340, 380),
    ('360m_at_8_bits', 'SmolLM2-360M takes about 720 MB at 8 bits (exact: 384.5 MB).', 680, 760),
    ('loss_in_points', 'At 4 bits accuracy falls by less than 2 %, read as 2 points of accuracy.', -1, 0.02),
    (
        'relative_loss',
        'At 4 bits accuracy falls by less than 2 %, read as 2 % of the accuracy at 8 bits, as published.',
        -1,
        0.02
    ),
    (
        'larger_batches',
        '4 bits leave room for larger batches: a training needs less memory than at 8 bits.',
        0,
        0.999
    ),
    ('faster_training', 'Training is faster at 4 bits than at 8 bits.', 0, 0.999),
    ('trainable_share', '0.1 to 0.4 % of the parameters are trained.', 0.001, 0.004),
    ('below_half_a_percent', 'Under 0.5 % of the parameters are trained.', 0, 0.005),
    ('six_variants', 'There are six variants: three base models at 4 and at 8 bits.', 6, 6),
    ('sixty_experiments', 'There are sixty experiments: six variants under ten recipes.', 60, 60)
),

accuracy AS (
    SELECT
        concat_ws(', ', base_model, recipe, concat(seeds, ' seeds'), dataset) AS source,
        difference,
        low,
        high,
        value_8bit,
        low IS NULL AS undecided
    FROM quantization_summary
    WHERE
        rule = 'argmax' AND metric = 'accuracy' AND NOT random_weights AND evaluation_set = 'test'
        AND coalesce(qualifies, true)
),

trained AS (
    SELECT DISTINCT
        concat_ws(', ', base_model, recipe) AS source,
        x.trainable_parameters / v.parameters AS share
    FROM experiment AS x
    JOIN variant AS v USING (base_model, weights_digest)
    WHERE
        x.recipe_kind IN ('standard', 'safety') AND NOT x.random_weights
        AND x.num_layers >= 16 AND x.trainable_parameters > 0 AND v.parameters > 0
),

pair AS (
    SELECT
        concat_ws(', ', base_model, recipe, concat('seed ', seed)) AS source,
        peak_memory_bytes_4bit / peak_memory_bytes_8bit AS memory,
        train_seconds_4bit / train_seconds_8bit AS seconds
    FROM quantization_comparison
    WHERE NOT random_weights
),

measured AS (
    SELECT
        'half_the_size' AS name,
        four.base_model AS source,
        four.stored_bytes / eight.stored_bytes AS value,
        value AS low,
        value AS high,
        false AS undecided
    FROM variant AS four
    JOIN variant AS eight USING (base_model, random_weights, weights_source)
    WHERE four.precision = '4bit' AND eight.precision = '8bit' AND NOT random_weights
    UNION ALL
    SELECT DISTINCT
        concat('360m_at_', bits, '_bits'),
        base_model,
        stored_bytes / 1e6 AS megabytes,
        megabytes,
        megabytes,
        false
    FROM variant
    WHERE base_model = 'smollm2-360m' AND precision IN ('4bit', '8bit') AND NOT random_weights
    UNION ALL
    SELECT 'loss_in_points', source, -difference, -high, -low, undecided
    FROM accuracy
    UNION ALL
    SELECT
        'relative_loss',
        source,
        -difference / value_8bit,
        -high / value_8bit,
        -low / value_8bit,
        undecided
    FROM accuracy
    UNION ALL
    SELECT 'larger_batches', source, memory, memory, memory, false
    FROM pair
    WHERE memory IS NOT NULL
    UNION ALL
    SELECT 'faster_training', source, seconds, seconds, seconds, false
    FROM pair
    WHERE seconds IS NOT NULL
    UNION ALL
    SELECT 'trainable_share', source, share, share, share, false
    FROM trained
    UNION ALL
    SELECT 'below_half_a_percent', source, share, share, share, false
    FROM trained
    UNION ALL
    SELECT 'six_variants', 'variant', count(DISTINCT (base_model, precision)) AS variants, variants, variants, variants <> 6
    FROM variant
    WHERE precision IN ('4bit', '8bit') AND NOT random_weights
    HAVING variants > 0
    UNION ALL
    SELECT 'sixty_experiments', 'leaderboard', count(DISTINCT cell_id) AS cells, cells, cells, cells <> 60
    FROM leaderboard
    WHERE recipe_kind IN ('standard', 'safety') AND NOT random_weights
    HAVING cells > 0
),

judged AS (
    SELECT
        claim.*,
        measured.* EXCLUDE (name),
        CASE
            WHEN measured.name IS NULL THEN 'not measured here'
            WHEN undecided OR value IS NULL THEN 'cannot conclude'
            WHEN coalesce(low, value) >= least AND coalesce(high, value) <= most THEN 'supported'
            WHEN coalesce(high, value) < least OR coalesce(low, value) > most THEN 'refuted'
            ELSE 'cannot conclude'
        END AS verdict
    FROM claim
    LEFT JOIN measured USING (name)
)

SELECT
    sentence,
    source,
    value,
    low,
    high,
    arg_min(verdict, list_position(['refuted', 'cannot conclude', 'supported', 'not measured here'], verdict))
        OVER (PARTITION BY name) AS verdict
FROM judged
ORDER BY list_position(['supported', 'refuted', 'cannot conclude', 'not measured here'], judged.verdict), sentence, source;
