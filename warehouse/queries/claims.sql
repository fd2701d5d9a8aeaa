-- Which claims of the published study, the one that this project repeats, does this warehouse support?
--
-- A claim is about every model, so it is as good as its worst row, which is shown. A row supports it
-- where its whole interval lies from least to most, and refutes it where that lies outside. A recipe
-- with one training decides nothing; one whose models learned little may refute, but not support.
WITH claim (name, least, most, sentence, said_in) AS (
    VALUES
    ('recall', 0.95, 1, 'The safety recipes find at least 95 % of the emergencies.',
        'README, Top adapters: 0.974 to 0.981; Safety Constraints: 96.2 %, and 94.8 %, taken as passed'),
    ('target', 0, 1, 'Each safety recipe finds its target of the emergencies, 95 to 98 %.',
        'README, Selection Criteria: adapters must meet these thresholds'),
    ('f2', 0.9, 1, 'The safety recipes have an F2 of emergencies of at least 0.90.',
        'README, Top adapters: 0.911 to 0.923'),
    ('missed', 0, 0.05, 'The safety recipes miss at most 5 % of the emergencies.',
        'README, Top adapters: 0.019 to 0.026; but its result files: 43 and 12 of 353, 0.12 and 0.03'),
    ('review', 0, 1, 'Dropout finds uncertain cases: of missed emergencies more than a random flag of its load.',
        'Adapter Configuration Summary, MC Dropout Benefits: improved safety'),
    ('points', -1, 0.02, 'At 4 bits accuracy falls by less than 2 %, read as 2 points of accuracy.',
        'Configuration Tables, Memory Footprint; but README, Stage 7: 8 bits are 2 to 3 % better'),
    ('relative', -1, 0.02, 'At 4 bits accuracy falls by less than 2 %, read as 2 % of the accuracy at 8 bits.',
        'Configuration Tables, Memory Footprint'),
    ('half', 0.45, 0.55, 'Models at 4 bits take about half of what they take at 8 bits.',
        'Configuration Tables, Memory Footprint: about 50 %'),
    ('size', 0.9, 1.1, 'A parameter takes 1 byte at 4 bits and 2 at 8: SmolLM2-360M 360 and 720 MB.',
        'Configuration Tables, Memory Footprint'),
    ('trained', 0.001, 0.004, 'Only 0.1 to 0.4 % of the parameters are trained.',
        'Configuration Tables, LoRA Parameter Efficiency: ranks 4 to 32'),
    ('memory', 0, 0.999, '4 bits leave room for larger batches: a training needs less memory than at 8 bits.',
        'told of the study; found in none of its files'),
    ('seconds', 0, 0.999, 'Training is faster at 4 bits than at 8 bits.',
        'README, Stage 7: 8 bits are slower, in answering')
),

stored AS (
    SELECT base_model, precision, stored_bytes, parameters, weights_source
    FROM variant
    WHERE precision IN ('4bit', '8bit') AND NOT random_weights
    UNION ALL
    -- By its shape, whatever the weights: `triage models`.
    SELECT 'smollm2-360m', precision, stored_bytes, 361821120, 'by its shape'
    FROM (VALUES ('4bit', 203614080), ('8bit', 384493440)) AS exact (precision, stored_bytes)
    ANTI JOIN (FROM variant WHERE base_model = 'smollm2-360m' AND NOT random_weights) USING (precision)
),

-- reach: 0, decides nothing; 1, may refute; 2, may support, too.
measured (name, source, value, low, high, reach) AS (
    SELECT
        unnest(['recall', 'target', 'f2', 'missed']),
        cell_id,
        unnest([ed_recall, ed_recall - target_ed_recall, ed_f2, 1 - ed_recall]) AS value,
        unnest([ed_recall_low, ed_recall_low - target_ed_recall, ed_f2_low, 1 - ed_recall_high]),
        unnest([ed_recall_high, ed_recall_high - target_ed_recall, ed_f2_high, 1 - ed_recall_low]),
        2
    FROM leaderboard
    WHERE recipe_kind = 'safety' AND NOT random_weights
    UNION ALL
    SELECT
        'review',
        cell_id,
        missed_ed_flagged - load,
        missed_ed_flagged_low - load,
        missed_ed_flagged_high - load,
        2
    FROM review_flag
    JOIN leaderboard USING (evaluation_id)
    WHERE score = 'vote_entropy' AND NOT random_weights
    UNION ALL
    SELECT
        unnest(['points', 'relative']),
        concat_ws(', ', base_model || ' ' || recipe, 'seeds: ' || seeds, IF(NOT qualifies, 'learned little', NULL), dataset),
        unnest([-difference, -difference / value_8bit]),
        unnest([-high, -high / value_8bit]),
        unnest([-low, -low / value_8bit]),
        CASE WHEN seeds < 2 THEN 0 WHEN qualifies THEN 2 ELSE 1 END
    FROM quantization_summary
    WHERE rule = 'argmax' AND metric = 'accuracy' AND evaluation_set = 'test' AND NOT random_weights
    UNION ALL
    SELECT 'half', four.base_model, four.stored_bytes / eight.stored_bytes AS ratio, ratio, ratio, 2
    FROM stored AS four
    JOIN stored AS eight USING (base_model, weights_source)
    WHERE four.precision = '4bit' AND eight.precision = '8bit'
    UNION ALL
    SELECT
        'size',
        concat_ws(' ', base_model, precision, weights_source),
        stored_bytes / parameters / IF(precision = '4bit', 1, 2) AS ratio,
        ratio,
        ratio,
        2
    FROM stored
    UNION ALL
    SELECT 'trained', concat_ws(' ', base_model, recipe), x.trainable_parameters / v.parameters AS share, share, share, 2
    FROM experiment AS x
    JOIN variant AS v USING (base_model, weights_digest)
    WHERE x.recipe_kind IN ('standard', 'safety') AND NOT x.random_weights
    UNION ALL
    SELECT
        unnest(['memory', 'seconds']),
        concat_ws(' ', base_model, recipe, seed),
        unnest([peak_memory_bytes_4bit / peak_memory_bytes_8bit, train_seconds_4bit / train_seconds_8bit]) AS ratio,
        ratio,
        ratio,
        2
    FROM quantization_comparison
    WHERE NOT random_weights
),

judged AS (
    SELECT
        *,
        CASE
            WHEN value IS NULL THEN 'not measured here'
            WHEN reach > 0 AND (low > most OR high < least) THEN 'refuted'
            WHEN reach = 2 AND low >= least AND high <= most THEN 'supported'
            ELSE 'cannot conclude'
        END AS verdict,
        list_position(['supported', 'refuted', 'cannot conclude', 'not measured here'], verdict) AS place
    FROM claim
    LEFT JOIN measured USING (name)
)

SELECT
    sentence,
    said_in,
    count(value) OVER claims AS rows,
    count(*) FILTER (verdict = 'refuted') OVER claims AS refuting,
    source AS worst_row,
    value,
    low,
    high,
    verdict
FROM judged
WINDOW claims AS (PARTITION BY name)
QUALIFY row_number() OVER (
    PARTITION BY name
    ORDER BY verdict <> 'refuted', verdict <> 'cannot conclude', greatest(least - low, high - most) DESC, source
) = 1
ORDER BY place, sentence;
