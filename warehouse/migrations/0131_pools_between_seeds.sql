-- Pooled verdicts also hold between seeds, and say in what an informed model beats the constant answer. The next command
-- that shows the pools makes them again.
DELETE FROM pooled_metric;
