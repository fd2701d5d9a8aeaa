-- One row per evaluation: the constant answer with the highest accuracy on its cases.
--
-- A model whose accuracy is not above this one has not been shown to read the messages.
CREATE OR REPLACE VIEW best_constant AS
SELECT
    evaluation_id,
    label AS answer,
    count(*) / sum(count(*)) OVER (PARTITION BY evaluation_id) AS accuracy
FROM prediction
GROUP BY evaluation_id, label
QUALIFY row_number() OVER (PARTITION BY evaluation_id ORDER BY count(*) DESC, label) = 1;
