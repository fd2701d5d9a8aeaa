-- Verdicts of pairs below ten cases without groups have changed. All figures of pairs are made again at once.
DELETE FROM pair_metric;
DELETE FROM reference_metric;
