-- One row per evaluation and decision rule: what was chosen on the calibration cases before the scoring of the judged
-- cases began. Evaluations of a scoring version below 3 have none.
CREATE TABLE decision_rule (
    evaluation_id      VARCHAR NOT NULL,
    rule               VARCHAR NOT NULL CHECK (rule IN ('argmax', 'target_recall', 'min_cost')),
    target             DOUBLE, -- target_recall: the ED recall aimed at
    threshold          DOUBLE, -- target_recall: ED where p(ED) reaches it
    allowed_misses     INTEGER, -- of the calibration emergencies
    misses             INTEGER, -- that the threshold made there
    n_ed               INTEGER, -- calibration emergencies
    bound              DOUBLE, -- lower 95 % bound of the threshold's ED recall, from these cases
    temperature        DOUBLE, -- min_cost: softmax(log p / temperature + biases)
    bias_ed            DOUBLE,
    bias_gp            DOUBLE,
    bias_home          DOUBLE,
    at_bound           BOOLEAN, -- the fit stopped at the edge of what is allowed
    calibration_digest VARCHAR NOT NULL, -- of the calibration set's cases
    chosen_at          TIMESTAMP NOT NULL,
    test_scored_at     TIMESTAMP NOT NULL, -- when the scoring of the judged set began
    note               VARCHAR, -- why the rule is not available, or what to mind
    PRIMARY KEY (evaluation_id, rule)
);
