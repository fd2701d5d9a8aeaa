-- What chooses the adapter of a recipe that selects by macro-F1. NULL in rows of earlier versions, and for split train.
ALTER TABLE training_curve ADD COLUMN macro_f1 DOUBLE; -- on valid, of the most probable labels
