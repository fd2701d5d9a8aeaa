-- One row per evaluation with an accuracy: whether it beats the best constant answer on its cases.
--
-- It does where the 95 % interval of its accuracy lies above the accuracy of that answer.
CREATE OR REPLACE VIEW informed AS
SELECT c.evaluation_id, c.answer, a.low > c.accuracy AS beats_constant
FROM best_constant AS c
JOIN metric AS a
    ON a.evaluation_id = c.evaluation_id AND a.rule = 'argmax' AND a.metric = 'accuracy';

COMMENT ON COLUMN informed.beats_constant IS 'whether the interval of its accuracy lies above the accuracy of the best constant answer';
