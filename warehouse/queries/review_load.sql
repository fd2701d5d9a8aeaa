-- How many cases go to review, and how many of the missed emergencies are among them?
SELECT
    base_model,
    precision,
    recipe,
    seed,
    score,
    review_flag.cases,
    load AS review_load,
    missed_ed,
    missed_ed_flagged,
    error_kept,
    error_flagged,
    aurc
FROM review_flag
JOIN leaderboard USING (evaluation_id)
ORDER BY missed_ed_flagged DESC NULLS LAST, review_load, base_model, precision, recipe, seed, score;
