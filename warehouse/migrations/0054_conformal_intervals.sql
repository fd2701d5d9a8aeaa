-- Conformal sets: every share with its 95 % interval, exact or clustered by group, whichever is wider (miss_low and
-- miss_high were exact before). NULL in rows of earlier versions, and where there is no case to count.
ALTER TABLE conformal ADD COLUMN miss_method VARCHAR;
ALTER TABLE conformal ADD COLUMN abstain_low DOUBLE;
ALTER TABLE conformal ADD COLUMN abstain_high DOUBLE;
ALTER TABLE conformal ADD COLUMN error_low DOUBLE; -- of error_decided
ALTER TABLE conformal ADD COLUMN error_high DOUBLE;
