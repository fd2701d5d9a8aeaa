-- One row per evaluation at a precision and evaluation of its reference, otherwise equal: bfloat16,
-- and of a moved adapter the precision at which it was trained.
--
-- Both belong to one arm of precision_arm, with equal conditions. Figures of these pairs are in
-- reference_metric; 4 against 8 bits is in equal_pair. In reference_pair_of(ids) both sides are among
-- these evaluations. precision_pair_of(ids, against) has the pairs with another reference.
CREATE OR REPLACE MACRO precision_pair_of(ids, against) AS TABLE
SELECT
    base_model,
    recipe,
    seed,
    adapter,
    evaluation_set,
    one.precision,
    reference.precision AS reference,
    one.evaluation_id,
    reference.evaluation_id AS reference_evaluation,
    one.scoring_version,
    one.random_weights,
    one.created_at,
    reference.created_at AS reference_created_at,
    one.stored_bytes,
    one.stored_bytes / nullif(reference.stored_bytes, 0) AS bytes_ratio,
    one.note,
    one.set_digest
FROM precision_arm_of(ids) AS one
JOIN precision_arm_of(ids) AS reference
    USING (base_model, recipe, seed, adapter, evaluation_set, conditions)
WHERE one.precision_key <> reference.precision_key
    AND reference.precision_key = coalesce(
        against, CASE adapter WHEN 'own' THEN 'bf16' ELSE regexp_extract(adapter, '^from ([^,]+)', 1) END
    )
-- The scores of both sides may have been judged again.
QUALIFY one.scoring_version = max(one.scoring_version) OVER (
    PARTITION BY adapter, one.scores_id, reference.scores_id
);

CREATE OR REPLACE MACRO reference_pair_of(ids) AS TABLE
SELECT * EXCLUDE (stored_bytes, bytes_ratio, note)
FROM precision_pair_of(ids, NULL);

CREATE OR REPLACE VIEW reference_pair AS FROM reference_pair_of(NULL);

COMMENT ON COLUMN reference_pair.reference IS 'the precision that it is compared with: bf16, or the name of weights that were quantised before; of a moved adapter that at which it was trained';
COMMENT ON COLUMN reference_pair.reference_created_at IS 'when the evaluation of the reference was completed, UTC';
