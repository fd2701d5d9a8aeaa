-- Beside the argmax and the primary rule's decision: what the other rules decide on each case, NULL where a rule is not
-- available, and in rows of earlier versions.
ALTER TABLE prediction ADD COLUMN target_recall VARCHAR;
ALTER TABLE prediction ADD COLUMN min_cost VARCHAR;
