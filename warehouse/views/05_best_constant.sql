-- One row per evaluation: the best constant answer on its cases. A model whose accuracy does not lie above this share has
-- not been shown to read the messages.
CREATE OR REPLACE VIEW best_constant AS
SELECT
    evaluation_id,
    label AS answer,
    count(*) / sum(count(*)) OVER (PARTITION BY evaluation_id) AS accuracy
FROM prediction
GROUP BY evaluation_id, label
QUALIFY row_number() OVER (PARTITION BY evaluation_id ORDER BY count(*) DESC, label) = 1;
