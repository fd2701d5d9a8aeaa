-- The objective of a point of a curve is label_loss + other_loss + cost. NULL in rows of earlier versions.
ALTER TABLE training_curve ADD COLUMN other_loss DOUBLE; -- cross-entropy of the completion's tokens after the label
