-- What a training was told, and what a moved adapter came from. Both are NULL in rows of earlier versions.
ALTER TABLE experiment ADD COLUMN settings_digest VARCHAR; -- of all that decides a training but weights, bits and seed
ALTER TABLE experiment ADD COLUMN source_training_id VARCHAR; -- the training whose adapter was moved, else NULL
