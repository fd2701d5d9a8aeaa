-- The terms of use that a model's weights came under, where it has some, and when they were shown.
ALTER TABLE variant ADD COLUMN terms VARCHAR;
ALTER TABLE variant ADD COLUMN terms_shown_at TIMESTAMP; -- before the first download
