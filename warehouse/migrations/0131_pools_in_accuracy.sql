-- Why a pool without an informed model concludes nothing says in what such a model beats the constant answer. Its figures
-- stay.
UPDATE pooled_metric SET verdict = verdict || ' in accuracy' WHERE verdict LIKE '% beats the best constant answer';
