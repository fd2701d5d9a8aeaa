-- Which bytes the weights were made from: SHA-256 of the file that was fetched (GGUF, or safetensors; over the digests of
-- several). A name and a version are what a source says of itself. NULL where weights are random, and in earlier rows.
ALTER TABLE variant ADD COLUMN source_digest VARCHAR;
ALTER TABLE experiment ADD COLUMN source_digest VARCHAR;
