-- Cases of the judged set that lost the middle of their text, and when a fidelity was measured, so that the latest can be
-- told from earlier ones. NULL in rows of earlier versions.
ALTER TABLE evaluation ADD COLUMN shortened_cases INTEGER;
ALTER TABLE fidelity ADD COLUMN created_at TIMESTAMP;
