-- Seeds of a recipe are trainings under one setting, judged alike. The next command that shows pools makes them again.
DELETE FROM pooled_metric;
