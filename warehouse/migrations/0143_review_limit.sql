-- The limit above which a case is flagged for review: a later sweep may judge the same training by another. NULL in rows of
-- earlier versions.
ALTER TABLE evaluation ADD COLUMN review_entropy DOUBLE;
