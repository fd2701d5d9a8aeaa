-- What orchestration costs: the time of a sweep's runs beside that of its steps.

ALTER TABLE sweep ADD COLUMN run_seconds DOUBLE;
ALTER TABLE sweep ADD COLUMN step_seconds DOUBLE;
