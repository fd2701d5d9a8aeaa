-- One row per study and result that a sweep of it made, or found.
--
-- A training belongs to the studies of its evaluations too. Results that no sweep names belong to
-- the study 'earlier': they landed before studies were kept apart, or in the last seconds before
-- their sweep was killed, and the same sweep takes them into its study when it runs again. Where the
-- scores of an evaluation were judged again, its studies hold both evaluations.
CREATE OR REPLACE VIEW study_member AS
WITH named AS (
    SELECT DISTINCT study, id FROM sweep_member JOIN sweep USING (sweep_id)
),
judged AS (
    FROM named
    UNION ALL
    SELECT 'earlier', id
    FROM landed ANTI JOIN named USING (id)
    WHERE kind IN ('evaluation', 'fidelity')
),
judged_now AS (
    FROM judged
    UNION
    SELECT study, judged_again.judged_now FROM judged JOIN judged_again ON evaluation_id = id
),
held AS (
    FROM judged_now
    UNION
    SELECT study, training_id FROM judged_now JOIN evaluation ON evaluation_id = id
)
SELECT study, id, kind
FROM held JOIN landed USING (id)
UNION ALL
SELECT 'earlier', id, kind FROM landed ANTI JOIN held USING (id) WHERE kind = 'training';

COMMENT ON COLUMN study_member.id IS 'training_id, evaluation_id or fidelity_id';
