-- Figures of pairs are worked out anew: below ten groups they conclude nothing, and a resample without one of the classes
-- has no macro F1.
DELETE FROM pair_metric;
