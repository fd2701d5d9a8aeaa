-- What claim was each study made for, and was it fixed before its results existed?
SELECT study, base_model, recipe, side, reference, figures, margin, seeds, registered_at, changed_after_results
FROM primary_claim
ORDER BY registered_at DESC, study;
