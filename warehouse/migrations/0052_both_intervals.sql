-- Both 95 % intervals beside the one in use: exact (proportions), and bootstrap clustered by group (where cases have
-- groups). The wider one is that of low and high, and the verdict's. NULL in rows of earlier versions.
ALTER TABLE metric ADD COLUMN exact_low DOUBLE;
ALTER TABLE metric ADD COLUMN exact_high DOUBLE;
ALTER TABLE metric ADD COLUMN clustered_low DOUBLE;
ALTER TABLE metric ADD COLUMN clustered_high DOUBLE;
ALTER TABLE gate ADD COLUMN exact_low DOUBLE;
ALTER TABLE gate ADD COLUMN exact_high DOUBLE;
ALTER TABLE gate ADD COLUMN clustered_low DOUBLE;
ALTER TABLE gate ADD COLUMN clustered_high DOUBLE;
