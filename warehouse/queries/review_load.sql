-- What does the review flag catch beside its load, and what would as large a flag by one pass catch?
--
-- A random flag catches its load of both. `one_pass` flags the cases whose largest probability is the
-- lowest; cases that tie at the cut count in part. Rows without seed: all models of a recipe.
WITH caught AS (
    SELECT
        evaluation_id,
        score = 'vote_entropy' AS is_flag,
        cases AS judged,
        judged * load AS flagged,
        flagged * coalesce(error_flagged, 0) AS wrong,
        wrong + (judged - flagged) * coalesce(error_kept, 0) AS all_wrong,
        missed_ed * coalesce(missed_ed_flagged, 0) AS missed,
        missed_ed
    FROM review_flag
    WHERE score IN ('vote_entropy', 'max_probability')
)

SELECT
    base_model,
    recipe,
    precision,
    seed,
    sum(flagged) / sum(judged) AS review_load,
    sum(missed_ed) FILTER (is_flag) AS missed_ed,
    round(sum(missed) FILTER (is_flag), 1) AS caught,
    round(sum(missed) FILTER (NOT is_flag), 1) AS by_one_pass,
    round(sum(all_wrong) FILTER (is_flag)) AS wrong,
    round(sum(wrong) FILTER (is_flag), 1) AS wrong_caught,
    round(sum(wrong) FILTER (NOT is_flag), 1) AS wrong_by_one_pass
FROM caught
JOIN leaderboard USING (evaluation_id)
GROUP BY GROUPING SETS ((base_model, recipe), (base_model, recipe, precision, seed, evaluation_id))
ORDER BY base_model, recipe, grouping(seed) DESC, precision, seed;
