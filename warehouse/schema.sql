-- The tables of the warehouse. What landed stands in the first ones, what the loader works out from it in the
-- last ones. The file holds a digest of these CREATE statements: one that differs is built again from the landing
-- folders (rebuild.py). No table of landed rows has an index, which would double the size of a prediction: the
-- loader refuses a key that occurs twice in a landing folder, and an audit finds one.
--
-- A column is described once, where it stands first; one of the same name elsewhere, in a view too, means the same
-- unless it is described there. Times are in UTC, without a zone.

CREATE TABLE schema_migrations (
    version INTEGER PRIMARY KEY,
    name VARCHAR NOT NULL,
    sha256 VARCHAR NOT NULL,
    applied_at TIMESTAMP NOT NULL,
    duckdb_version VARCHAR NOT NULL
);
COMMENT ON TABLE schema_migrations IS 'What made this file: its tables (version 1002), and its views and comments (version 0).';
COMMENT ON COLUMN schema_migrations.version IS '1002: the tables; 0: views and comments';
COMMENT ON COLUMN schema_migrations.name IS 'schema or views';
COMMENT ON COLUMN schema_migrations.sha256 IS 'digest of the SQL that made them';
COMMENT ON COLUMN schema_migrations.applied_at IS 'when they were made, UTC';
COMMENT ON COLUMN schema_migrations.duckdb_version IS 'version of DuckDB that made them';

CREATE TABLE landed (
    id VARCHAR PRIMARY KEY,
    kind VARCHAR NOT NULL,
    manifest_digest VARCHAR NOT NULL,
    loaded_at TIMESTAMP NOT NULL
);
COMMENT ON TABLE landed IS 'One row per loaded landing folder.';
COMMENT ON COLUMN landed.id IS 'names the folder: a training_id, evaluation_id, variant_id, run_id, fidelity_id, search_id, sweep_id or dataset_id';
COMMENT ON COLUMN landed.kind IS 'what was landed: training, evaluation, variant, benchmark, fidelity, search, sweep, dataset or look';
COMMENT ON COLUMN landed.manifest_digest IS 'digest of the folder''s manifest: the same digest is not loaded twice';
COMMENT ON COLUMN landed.loaded_at IS 'when it was loaded, UTC';

CREATE TABLE variant (
    variant_id VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    group_size INTEGER,
    weights_source VARCHAR,
    original_precision VARCHAR,
    random_weights BOOLEAN NOT NULL,
    weights_digest VARCHAR,
    licence VARCHAR,
    parameters BIGINT,
    stored_bytes BIGINT CHECK (stored_bytes > 0),
    embedding_bytes BIGINT,
    projection_bytes BIGINT,
    norm_bytes BIGINT,
    bits_per_weight DOUBLE,
    source_digest VARCHAR,
    terms VARCHAR,
    terms_shown_at TIMESTAMP,
    embedding_bits INTEGER
);
COMMENT ON TABLE variant IS 'One row per base model and precision: exact sizes, source of the weights, terms.';
COMMENT ON COLUMN variant.variant_id IS 'names the variant: base model, precision and digest';
COMMENT ON COLUMN variant.base_model IS 'short name of the base model, as in the grid';
COMMENT ON COLUMN variant.bits IS 'bits of a quantised weight, of a mixture the lower ones; NULL where weights are not quantised';
COMMENT ON COLUMN variant.precision IS 'name of the precision, e.g. 4bit or mxfp4; views name bf16 of weights that were quantised before after them';
COMMENT ON COLUMN variant.group_size IS 'weights that share a scale; NULL where they are not quantised';
COMMENT ON COLUMN variant.weights_source IS 'where the weights came from, e.g. hub or package';
COMMENT ON COLUMN variant.original_precision IS 'number format of the weights that were fetched, e.g. bf16';
COMMENT ON COLUMN variant.random_weights IS 'whether the weights are random, for tests, rather than a published model''s';
COMMENT ON COLUMN variant.weights_digest IS 'digest of the weights';
COMMENT ON COLUMN variant.licence IS 'licence of the weights, as their source names it';
COMMENT ON COLUMN variant.parameters IS 'number of parameters';
COMMENT ON COLUMN variant.stored_bytes IS 'bytes of the weights on the disk';
COMMENT ON COLUMN variant.embedding_bytes IS 'stored bytes of the embedding';
COMMENT ON COLUMN variant.projection_bytes IS 'stored bytes of the projections';
COMMENT ON COLUMN variant.norm_bytes IS 'stored bytes of the norms';
COMMENT ON COLUMN variant.bits_per_weight IS 'stored bits for each parameter, scales and biases of the groups included';
COMMENT ON COLUMN variant.source_digest IS 'SHA-256 of the file that the weights were made from; NULL for random weights';
COMMENT ON COLUMN variant.terms IS 'terms of use of the weights, where they have some';
COMMENT ON COLUMN variant.terms_shown_at IS 'when the terms were shown, UTC; before the first download';
COMMENT ON COLUMN variant.embedding_bits IS 'bits of a value of the embedding; NULL where it is not quantised';

CREATE TABLE experiment (
    training_id VARCHAR NOT NULL,
    cell_id VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    recipe VARCHAR NOT NULL,
    recipe_kind VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety', 'baseline', 'moved_adapter', 'with_linear')),
    seed BIGINT NOT NULL,
    group_size INTEGER,
    num_layers INTEGER,
    learning_rate DOUBLE,
    batch_size INTEGER,
    rank INTEGER,
    scale DOUBLE,
    peft_alpha DOUBLE,
    dropout DOUBLE,
    iterations INTEGER,
    target_ed_recall DOUBLE,
    cost_weight DOUBLE,
    has_cost_matrix BOOLEAN,
    has_class_weights BOOLEAN,
    weights_source VARCHAR,
    original_precision VARCHAR,
    random_weights BOOLEAN,
    weights_digest VARCHAR,
    dataset_digest VARCHAR,
    status VARCHAR NOT NULL CHECK (status IN ('completed', 'diverged', 'failed')),
    error VARCHAR,
    compute_path VARCHAR CHECK (compute_path IN ('packed', 'dequantised_f32')),
    backend VARCHAR,
    compute_dtype VARCHAR,
    blas VARCHAR,
    gflops DOUBLE,
    machine VARCHAR,
    triage_version VARCHAR,
    mlx_version VARCHAR,
    mlx_lm_version VARCHAR,
    engine_version INTEGER,
    stored_bytes BIGINT,
    bits_per_weight DOUBLE,
    trainable_parameters BIGINT,
    train_loss DOUBLE,
    valid_loss DOUBLE,
    best_iteration INTEGER,
    last_iteration INTEGER,
    train_seconds DOUBLE,
    tokens_per_second DOUBLE,
    weights_memory_bytes BIGINT,
    peak_memory_bytes BIGINT,
    peak_rss_bytes BIGINT,
    micro_batch INTEGER,
    shortened_cases INTEGER,
    padding_share DOUBLE,
    started_at TIMESTAMP,
    finished_at TIMESTAMP,
    cache_memory_bytes BIGINT,
    memory_budget_bytes BIGINT,
    checkpointed_blocks BOOLEAN,
    settings_digest VARCHAR,
    source_training_id VARCHAR,
    source_digest VARCHAR,
    source_scores_id VARCHAR,
    moved_rules VARCHAR CHECK (moved_rules IN ('kept', 'chosen_again'))
);
COMMENT ON TABLE experiment IS 'One row per training, diverged and failed ones too, or baseline; NULL: not reached or not measured.';
COMMENT ON COLUMN experiment.training_id IS 'names the training: weights, recipe, data, engine and backend';
COMMENT ON COLUMN experiment.cell_id IS 'base model, precision, recipe and seed in one word';
COMMENT ON COLUMN experiment.recipe IS 'name of the recipe';
COMMENT ON COLUMN experiment.recipe_kind IS '''standard'', ''safety'', ''baseline'', ''moved_adapter'' or ''with_linear'' (a trained model together with the linear baseline)';
COMMENT ON COLUMN experiment.seed IS 'seed of the training: order of cases, dropout and first adapter';
COMMENT ON COLUMN experiment.num_layers IS 'number of last blocks that carry LoRA layers';
COMMENT ON COLUMN experiment.learning_rate IS 'step size of the optimizer';
COMMENT ON COLUMN experiment.batch_size IS 'cases of one update: the effective batch';
COMMENT ON COLUMN experiment.rank IS 'rank of the LoRA matrices';
COMMENT ON COLUMN experiment.scale IS 'factor of the LoRA update';
COMMENT ON COLUMN experiment.peft_alpha IS 'scale x rank: the alpha of PEFT';
COMMENT ON COLUMN experiment.dropout IS 'dropout of the LoRA layers (0 to 1)';
COMMENT ON COLUMN experiment.iterations IS 'updates that the recipe asks for';
COMMENT ON COLUMN experiment.target_ed_recall IS 'the ED recall aimed at by the rule target_recall (0 to 1)';
COMMENT ON COLUMN experiment.cost_weight IS 'weight (lambda) of the cost in the loss';
COMMENT ON COLUMN experiment.has_cost_matrix IS 'whether the recipe trains with a cost matrix';
COMMENT ON COLUMN experiment.has_class_weights IS 'whether the recipe weights the classes';
COMMENT ON COLUMN experiment.dataset_digest IS 'digest of the dataset: the one of its folder and of its manifest';
COMMENT ON COLUMN experiment.status IS 'completed, diverged or failed';
COMMENT ON COLUMN experiment.error IS 'why the training did not finish; NULL where it did';
COMMENT ON COLUMN experiment.compute_path IS '''packed'' (quantised kernels) or ''dequantised_f32''; only packed memory and time can be compared between bits';
COMMENT ON COLUMN experiment.backend IS 'what MLX computes on, e.g. metal or cpu';
COMMENT ON COLUMN experiment.compute_dtype IS 'number format of the arithmetic, e.g. float32';
COMMENT ON COLUMN experiment.blas IS 'library behind matrix products on the CPU; NULL elsewhere';
COMMENT ON COLUMN experiment.gflops IS 'measured speed of a matrix product, in 10^9 operations a second';
COMMENT ON COLUMN experiment.machine IS 'operating system and processor it ran on, by their names';
COMMENT ON COLUMN experiment.triage_version IS 'version of triage';
COMMENT ON COLUMN experiment.mlx_version IS 'version of MLX';
COMMENT ON COLUMN experiment.mlx_lm_version IS 'version of mlx-lm';
COMMENT ON COLUMN experiment.engine_version IS 'version of the training engine; part of training_id';
COMMENT ON COLUMN experiment.trainable_parameters IS 'parameters that the training changes';
COMMENT ON COLUMN experiment.train_loss IS 'training objective on the training cases at the end, in nats';
COMMENT ON COLUMN experiment.valid_loss IS 'validation loss of the evaluated adapter, in nats';
COMMENT ON COLUMN experiment.best_iteration IS 'update whose adapter is evaluated: that of the lowest validation loss, or of the highest macro-F1 on valid where the recipe selects by it';
COMMENT ON COLUMN experiment.last_iteration IS 'the last update that was made';
COMMENT ON COLUMN experiment.train_seconds IS 'seconds that the training took';
COMMENT ON COLUMN experiment.tokens_per_second IS 'tokens that the training computed in a second';
COMMENT ON COLUMN experiment.weights_memory_bytes IS 'bytes of the weights in memory';
COMMENT ON COLUMN experiment.peak_memory_bytes IS 'largest number of bytes that MLX held at once';
COMMENT ON COLUMN experiment.peak_rss_bytes IS 'largest number of bytes that the process held at once';
COMMENT ON COLUMN experiment.micro_batch IS 'cases that are computed at once; changes no result';
COMMENT ON COLUMN experiment.shortened_cases IS 'cases that lost the middle of their text, to fit the window';
COMMENT ON COLUMN experiment.padding_share IS 'share (0 to 1) of computed tokens that are padding';
COMMENT ON COLUMN experiment.started_at IS 'when the training began, UTC';
COMMENT ON COLUMN experiment.finished_at IS 'when the training finished, UTC';
COMMENT ON COLUMN experiment.cache_memory_bytes IS 'bytes of freed buffers that MLX kept at the end of the training';
COMMENT ON COLUMN experiment.memory_budget_bytes IS 'bytes that the training may use; decides the micro-batch';
COMMENT ON COLUMN experiment.checkpointed_blocks IS 'whether blocks were computed again in the backward pass, to save memory';
COMMENT ON COLUMN experiment.settings_digest IS 'digest of all that decides a training but weights, precision and seed';
COMMENT ON COLUMN experiment.source_training_id IS 'the training whose adapter was moved; NULL for a training of its own';
COMMENT ON COLUMN experiment.source_scores_id IS 'the scores of a moved adapter at its own precision, whose rules it keeps or chooses again, or those that the linear baseline is multiplied with; NULL for a training of its own, and in rows of earlier versions';
COMMENT ON COLUMN experiment.moved_rules IS 'of a moved adapter: whether its threshold and scaling were kept, or chosen_again on calibration at this precision; NULL for a training of its own, and in rows of earlier versions, which kept them';

CREATE TABLE training_curve (
    training_id VARCHAR NOT NULL,
    iteration INTEGER NOT NULL,
    split VARCHAR NOT NULL CHECK (split IN ('train', 'valid')),
    loss DOUBLE,
    label_loss DOUBLE,
    cost DOUBLE,
    learning_rate DOUBLE,
    tokens_per_second DOUBLE,
    ed_share DOUBLE,
    specificity DOUBLE,
    other_loss DOUBLE,
    macro_f1 DOUBLE
);
COMMENT ON TABLE training_curve IS 'One row per training, update and split at which something was reported.';
COMMENT ON COLUMN training_curve.iteration IS 'number of the update, from 1';
COMMENT ON COLUMN training_curve.split IS '''train'' or ''valid''';
COMMENT ON COLUMN training_curve.loss IS 'training objective, in nats: label_loss + other_loss + cost';
COMMENT ON COLUMN training_curve.label_loss IS 'cross-entropy of the label''s tokens, in nats';
COMMENT ON COLUMN training_curve.cost IS 'part of the loss from the cost matrix';
COMMENT ON COLUMN training_curve.ed_share IS 'share (0 to 1) of cases that argmax sends to ED';
COMMENT ON COLUMN training_curve.specificity IS 'share (0 to 1) of the other cases that are not decided ED';
COMMENT ON COLUMN training_curve.other_loss IS 'cross-entropy of the completion''s tokens after the label, in nats';
COMMENT ON COLUMN training_curve.macro_f1 IS 'mean F1 of the labels on valid (0 to 1) by argmax; NULL for train, and where an earlier version trained';

CREATE TABLE evaluation (
    evaluation_id VARCHAR NOT NULL,
    training_id VARCHAR NOT NULL,
    evaluation_set VARCHAR NOT NULL,
    set_digest VARCHAR NOT NULL,
    cases INTEGER NOT NULL CHECK (cases > 0),
    calibration_cases INTEGER,
    has_groups BOOLEAN NOT NULL,
    loss DOUBLE,
    perplexity DOUBLE,
    accuracy DOUBLE CHECK (accuracy BETWEEN 0 AND 1),
    primary_rule VARCHAR NOT NULL CHECK (primary_rule IN ('argmax', 'target_recall', 'min_cost')),
    threshold DOUBLE,
    verdict VARCHAR NOT NULL CHECK (verdict IN ('passes_gates', 'provisional', 'unsafe')),
    mc_status VARCHAR CHECK (mc_status IN ('available', 'not available')),
    mc_reason VARCHAR,
    mc_passes INTEGER,
    mc_cases INTEGER,
    ed_prevalence DOUBLE CHECK (ed_prevalence BETWEEN 0 AND 1),
    score_seconds DOUBLE,
    mc_seconds DOUBLE,
    scoring_version INTEGER NOT NULL,
    created_at TIMESTAMP NOT NULL,
    cost_matrix VARCHAR,
    shortened_cases INTEGER,
    scores_id VARCHAR,
    review_entropy DOUBLE
);
COMMENT ON TABLE evaluation IS 'One row per evaluation of a trained adapter, or a baseline, on one set of cases.';
COMMENT ON COLUMN evaluation.evaluation_id IS 'names the evaluation: the scores and the scoring version';
COMMENT ON COLUMN evaluation.evaluation_set IS 'name of the set of cases: ''test'', or a set of one''s own';
COMMENT ON COLUMN evaluation.set_digest IS 'digest of the judged set''s cases';
COMMENT ON COLUMN evaluation.cases IS 'cases that were judged';
COMMENT ON COLUMN evaluation.calibration_cases IS 'cases of the calibration set';
COMMENT ON COLUMN evaluation.has_groups IS 'whether cases have groups, by which intervals are clustered';
COMMENT ON COLUMN evaluation.loss IS 'mean negative log-likelihood for each completion token, in nats';
COMMENT ON COLUMN evaluation.perplexity IS 'exp(loss)';
COMMENT ON COLUMN evaluation.accuracy IS 'share (0 to 1) of cases whose most probable label (argmax) is the true one';
COMMENT ON COLUMN evaluation.primary_rule IS 'the recipe''s rule, which the gates judge: argmax, target_recall or min_cost';
COMMENT ON COLUMN evaluation.threshold IS 'target_recall: ED where p(ED) is at least this';
COMMENT ON COLUMN evaluation.verdict IS 'passes_gates, provisional or unsafe: what the gates say together';
COMMENT ON COLUMN evaluation.mc_status IS '''available'' or ''not available'' (a dropout of 0 says nothing)';
COMMENT ON COLUMN evaluation.mc_reason IS 'why there are no dropout passes';
COMMENT ON COLUMN evaluation.mc_passes IS 'dropout passes for each case';
COMMENT ON COLUMN evaluation.mc_cases IS 'cases that went through dropout passes';
COMMENT ON COLUMN evaluation.ed_prevalence IS 'share (0 to 1) of cases that are emergencies';
COMMENT ON COLUMN evaluation.score_seconds IS 'seconds that the scoring took';
COMMENT ON COLUMN evaluation.mc_seconds IS 'seconds that the dropout passes took';
COMMENT ON COLUMN evaluation.scoring_version IS 'version of how scores are judged; part of evaluation_id';
COMMENT ON COLUMN evaluation.created_at IS 'when the figures were made, UTC';
COMMENT ON COLUMN evaluation.cost_matrix IS 'costs as JSON {true label: {decision: cost}}; NULL where none applies';
COMMENT ON COLUMN evaluation.scores_id IS 'the scores that were judged: the name of their folder';
COMMENT ON COLUMN evaluation.review_entropy IS 'limit of the vote entropy, nats, above which a case is marked for review; NULL in rows of earlier versions';

CREATE TABLE prediction (
    evaluation_id VARCHAR NOT NULL,
    case_id VARCHAR NOT NULL,
    case_digest VARCHAR,
    case_group VARCHAR,
    label VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    p_ed DOUBLE NOT NULL CHECK (p_ed BETWEEN 0 AND 1.000001),
    p_gp DOUBLE NOT NULL CHECK (p_gp BETWEEN 0 AND 1.000001),
    p_home DOUBLE NOT NULL CHECK (p_home BETWEEN 0 AND 1.000001),
    nll DOUBLE,
    argmax VARCHAR NOT NULL CHECK (argmax IN ('ED', 'GP', 'HOME')),
    decision VARCHAR CHECK (decision IN ('ED', 'GP', 'HOME')),
    target_recall VARCHAR,
    min_cost VARCHAR
);
COMMENT ON TABLE prediction IS 'One row per evaluation and case: probabilities, and the decision of each rule. No patient text.';
COMMENT ON COLUMN prediction.case_id IS 'name of the case within its set';
COMMENT ON COLUMN prediction.case_digest IS 'digest of the case''s text and label; the warehouse holds no text';
COMMENT ON COLUMN prediction.case_group IS 'condition of the case; cases of one group are not independent. NULL: no groups';
COMMENT ON COLUMN prediction.label IS 'the true label: ED, GP or HOME';
COMMENT ON COLUMN prediction.p_ed IS 'probability of ED';
COMMENT ON COLUMN prediction.p_gp IS 'probability of GP';
COMMENT ON COLUMN prediction.p_home IS 'probability of HOME';
COMMENT ON COLUMN prediction.nll IS 'negative log-likelihood of the true completion, for each token, in nats; NULL for a baseline';
COMMENT ON COLUMN prediction.argmax IS 'the most probable label; by the calibrated probabilities where rules are chosen again';
COMMENT ON COLUMN prediction.decision IS 'what the primary rule decides; NULL where the rule is not available';
COMMENT ON COLUMN prediction.target_recall IS 'decision by the threshold on p(ED); NULL where the rule is not available';
COMMENT ON COLUMN prediction.min_cost IS 'decision of least expected cost; NULL where the rule is not available';

CREATE TABLE calibration_prediction (
    evaluation_id VARCHAR NOT NULL,
    case_id VARCHAR NOT NULL,
    label VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    p_ed DOUBLE NOT NULL CHECK (p_ed BETWEEN 0 AND 1.000001),
    p_gp DOUBLE NOT NULL CHECK (p_gp BETWEEN 0 AND 1.000001),
    p_home DOUBLE NOT NULL CHECK (p_home BETWEEN 0 AND 1.000001)
);
COMMENT ON TABLE calibration_prediction IS 'One row per evaluation on test and calibration case: probabilities that its rules were chosen on. No view reads them. A moved adapter that keeps its rules has those of its training; rows of earlier versions have none.';

CREATE TABLE metric (
    evaluation_id VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('argmax', 'target_recall', 'min_cost')),
    metric VARCHAR NOT NULL,
    value DOUBLE,
    low DOUBLE,
    high DOUBLE,
    method VARCHAR,
    n INTEGER,
    note VARCHAR,
    exact_low DOUBLE,
    exact_high DOUBLE,
    clustered_low DOUBLE,
    clustered_high DOUBLE,
    CHECK (value IS NOT NULL OR note IS NOT NULL)
);
COMMENT ON TABLE metric IS 'One row per evaluation, decision rule and metric. value NULL means not available; note says why.';
COMMENT ON COLUMN metric.rule IS 'decision rule: argmax, target_recall or min_cost';
COMMENT ON COLUMN metric.metric IS 'name of the figure';
COMMENT ON COLUMN metric.value IS 'the figure; NULL: not available';
COMMENT ON COLUMN metric.low IS 'lower end of the 95 % interval';
COMMENT ON COLUMN metric.high IS 'upper end of the 95 % interval';
COMMENT ON COLUMN metric.method IS 'how the interval was made';
COMMENT ON COLUMN metric.n IS 'number of cases behind the value';
COMMENT ON COLUMN metric.note IS 'why a value is missing, or what to mind';
COMMENT ON COLUMN metric.exact_low IS 'lower end of the exact (Clopper-Pearson) 95 % interval; NULL where it is no proportion';
COMMENT ON COLUMN metric.exact_high IS 'upper end of the exact (Clopper-Pearson) 95 % interval; NULL where it is no proportion';
COMMENT ON COLUMN metric.clustered_low IS 'lower end of the 95 % bootstrap interval over groups; NULL without groups';
COMMENT ON COLUMN metric.clustered_high IS 'upper end of the 95 % bootstrap interval over groups; NULL without groups';

CREATE TABLE decision_rule (
    evaluation_id VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('argmax', 'target_recall', 'min_cost')),
    target DOUBLE,
    threshold DOUBLE,
    allowed_misses INTEGER,
    misses INTEGER,
    n_ed INTEGER,
    bound DOUBLE,
    temperature DOUBLE,
    bias_ed DOUBLE,
    bias_gp DOUBLE,
    bias_home DOUBLE,
    at_bound BOOLEAN,
    calibration_digest VARCHAR NOT NULL,
    chosen_at TIMESTAMP NOT NULL,
    test_scored_at TIMESTAMP NOT NULL,
    note VARCHAR
);
COMMENT ON TABLE decision_rule IS 'One row per evaluation and decision rule: what was chosen on the calibration cases before the judged ones.';
COMMENT ON COLUMN decision_rule.target IS 'target_recall: the ED recall aimed at (0 to 1)';
COMMENT ON COLUMN decision_rule.allowed_misses IS 'target_recall: calibration emergencies that may be missed at this target';
COMMENT ON COLUMN decision_rule.misses IS 'calibration emergencies that the threshold missed';
COMMENT ON COLUMN decision_rule.n_ed IS 'emergencies of the calibration set';
COMMENT ON COLUMN decision_rule.bound IS 'lower 95 % bound of the threshold''s ED recall on the calibration cases';
COMMENT ON COLUMN decision_rule.temperature IS 'min_cost, and argmax where rules are chosen again: divides log p before the softmax';
COMMENT ON COLUMN decision_rule.bias_ed IS 'added to log p(ED) / temperature before the softmax';
COMMENT ON COLUMN decision_rule.bias_gp IS 'added to log p(GP) / temperature before the softmax';
COMMENT ON COLUMN decision_rule.bias_home IS 'added to log p(HOME) / temperature before the softmax';
COMMENT ON COLUMN decision_rule.at_bound IS 'whether the fit of temperature and biases stopped at the edge of what is allowed';
COMMENT ON COLUMN decision_rule.calibration_digest IS 'digest of the calibration set''s cases';
COMMENT ON COLUMN decision_rule.chosen_at IS 'when the rule was chosen, UTC; before test_scored_at';
COMMENT ON COLUMN decision_rule.test_scored_at IS 'when the scoring of the judged set began, UTC; where rules are chosen again, when its scores were taken up';

CREATE TABLE gate (
    evaluation_id VARCHAR NOT NULL,
    gate VARCHAR NOT NULL CHECK (gate IN ('ed_recall', 'ed_f2', 'ed_false_negative_rate')),
    state VARCHAR NOT NULL CHECK (state IN ('PASS', 'PROVISIONAL', 'FAIL', 'NOT AVAILABLE')),
    threshold DOUBLE NOT NULL,
    value DOUBLE,
    bound DOUBLE,
    successes INTEGER,
    n INTEGER,
    method VARCHAR,
    note VARCHAR,
    exact_low DOUBLE,
    exact_high DOUBLE,
    clustered_low DOUBLE,
    clustered_high DOUBLE
);
COMMENT ON TABLE gate IS 'One row per evaluation and gate, judged on the primary rule.';
COMMENT ON COLUMN gate.gate IS 'name of the gate: ed_recall, ed_f2 or ed_false_negative_rate';
COMMENT ON COLUMN gate.state IS 'PASS (the whole interval holds), PROVISIONAL (the value alone holds), FAIL or NOT AVAILABLE';
COMMENT ON COLUMN gate.threshold IS 'what the value must reach (for the false negative rate: not exceed)';
COMMENT ON COLUMN gate.bound IS 'the less favourable end of the 95 % interval';
COMMENT ON COLUMN gate.successes IS 'cases that count for the gate, where it is a proportion';

CREATE TABLE mc_dropout (
    evaluation_id VARCHAR NOT NULL,
    case_id VARCHAR NOT NULL,
    passes INTEGER NOT NULL CHECK (passes >= 2),
    majority VARCHAR NOT NULL CHECK (majority IN ('ED', 'GP', 'HOME')),
    confidence DOUBLE NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    confidence_se DOUBLE,
    entropy_nats DOUBLE NOT NULL CHECK (entropy_nats BETWEEN 0 AND 1.098613),
    p_ed DOUBLE NOT NULL,
    p_gp DOUBLE NOT NULL,
    p_home DOUBLE NOT NULL,
    predictive_entropy_nats DOUBLE,
    mutual_information_nats DOUBLE,
    review BOOLEAN NOT NULL,
    decision_majority VARCHAR,
    decision_confidence DOUBLE,
    decision_entropy_nats DOUBLE
);
COMMENT ON TABLE mc_dropout IS 'One row per evaluation and case that went through Monte Carlo dropout.';
COMMENT ON COLUMN mc_dropout.passes IS 'dropout passes';
COMMENT ON COLUMN mc_dropout.majority IS 'label with the most votes of the dropout passes';
COMMENT ON COLUMN mc_dropout.confidence IS 'share (0 to 1) of dropout passes that vote for the majority';
COMMENT ON COLUMN mc_dropout.confidence_se IS 'standard error of confidence';
COMMENT ON COLUMN mc_dropout.entropy_nats IS 'entropy of the votes of the dropout passes, in nats (0 to ln 3)';
COMMENT ON COLUMN mc_dropout.p_ed IS 'mean p(ED) over the dropout passes';
COMMENT ON COLUMN mc_dropout.p_gp IS 'mean p(GP) over the dropout passes';
COMMENT ON COLUMN mc_dropout.p_home IS 'mean p(HOME) over the dropout passes';
COMMENT ON COLUMN mc_dropout.predictive_entropy_nats IS 'entropy of the mean probabilities of the dropout passes, in nats';
COMMENT ON COLUMN mc_dropout.mutual_information_nats IS 'part of the predictive entropy that the passes disagree on, in nats';
COMMENT ON COLUMN mc_dropout.review IS 'whether the case is marked for review: the votes of the passes differ too much';
COMMENT ON COLUMN mc_dropout.decision_majority IS 'what the primary rule decides in most dropout passes; NULL where it gives none';
COMMENT ON COLUMN mc_dropout.decision_confidence IS 'share (0 to 1) of dropout passes in which the primary rule decides as in most';
COMMENT ON COLUMN mc_dropout.decision_entropy_nats IS 'entropy of the primary rule''s decisions over dropout passes, in nats (0 to ln 3)';

CREATE TABLE subgroup_metric (
    evaluation_id VARCHAR NOT NULL,
    field VARCHAR NOT NULL,
    subgroup VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    low DOUBLE,
    high DOUBLE,
    method VARCHAR,
    n INTEGER NOT NULL,
    note VARCHAR,
    CHECK (value IS NOT NULL OR note IS NOT NULL)
);
COMMENT ON TABLE subgroup_metric IS 'One row per evaluation, field, subgroup and metric: a figure of the primary rule, or of p(ED), among those cases.';
COMMENT ON COLUMN subgroup_metric.field IS 'property that cases are divided by, e.g. age_band, voice or spelling';
COMMENT ON COLUMN subgroup_metric.subgroup IS 'value of the field';

CREATE TABLE reliability (
    evaluation_id VARCHAR NOT NULL,
    low DOUBLE NOT NULL,
    high DOUBLE NOT NULL,
    n INTEGER NOT NULL,
    mean_p_ed DOUBLE,
    ed_share DOUBLE,
    share_low DOUBLE,
    share_high DOUBLE
);
COMMENT ON TABLE reliability IS 'One row per evaluation and bin of p(ED), narrow where p(ED) is small.';
COMMENT ON COLUMN reliability.low IS 'lower end of the bin, in it';
COMMENT ON COLUMN reliability.high IS 'upper end of the bin, not in it but for the last bin';
COMMENT ON COLUMN reliability.mean_p_ed IS 'mean p(ED) of the cases of the bin';
COMMENT ON COLUMN reliability.ed_share IS 'share (0 to 1) of cases that are emergencies';
COMMENT ON COLUMN reliability.share_low IS 'lower end of the exact 95 % interval of ed_share';
COMMENT ON COLUMN reliability.share_high IS 'upper end of the exact 95 % interval of ed_share';

CREATE TABLE net_benefit (
    evaluation_id VARCHAR NOT NULL,
    threshold DOUBLE NOT NULL CHECK (threshold > 0 AND threshold < 1),
    n INTEGER NOT NULL,
    net_benefit DOUBLE NOT NULL,
    low DOUBLE,
    high DOUBLE,
    always_ed DOUBLE NOT NULL,
    over_always_ed DOUBLE NOT NULL,
    over_always_ed_low DOUBLE,
    over_always_ed_high DOUBLE,
    method VARCHAR NOT NULL,
    note VARCHAR
);
COMMENT ON TABLE net_benefit IS 'One row per evaluation and threshold on p(ED): the decision curve of sending to ED where p(ED) reaches it.';
COMMENT ON COLUMN net_benefit.threshold IS 'ED where p(ED) is at least this; a false alarm weighs threshold / (1 - threshold) of a caught emergency';
COMMENT ON COLUMN net_benefit.n IS 'number of judged cases';
COMMENT ON COLUMN net_benefit.net_benefit IS 'caught emergencies minus weighted false alarms, for each case; 0 for sending nobody to ED';
COMMENT ON COLUMN net_benefit.low IS 'lower end of the 95 % interval of net_benefit';
COMMENT ON COLUMN net_benefit.high IS 'upper end of the 95 % interval of net_benefit';
COMMENT ON COLUMN net_benefit.always_ed IS 'net benefit of sending every case to ED';
COMMENT ON COLUMN net_benefit.over_always_ed IS 'net_benefit minus that of sending every case to ED';

CREATE TABLE review_flag (
    evaluation_id VARCHAR NOT NULL,
    score VARCHAR NOT NULL CHECK (score IN ('vote_entropy', 'max_probability', 'single_pass_entropy')),
    cases INTEGER NOT NULL,
    load DOUBLE NOT NULL CHECK (load BETWEEN 0 AND 1),
    aurc DOUBLE NOT NULL,
    error_kept DOUBLE,
    error_flagged DOUBLE,
    wrong_flagged DOUBLE,
    wrong_flagged_low DOUBLE,
    wrong_flagged_high DOUBLE,
    missed_ed INTEGER NOT NULL,
    missed_ed_flagged DOUBLE,
    missed_ed_flagged_low DOUBLE,
    missed_ed_flagged_high DOUBLE,
    aurc_difference DOUBLE,
    difference_low DOUBLE,
    difference_high DOUBLE,
    verdict VARCHAR,
    note VARCHAR
);
COMMENT ON TABLE review_flag IS 'One row per evaluation and score that could flag cases for review, on the cases that went through dropout.';
COMMENT ON COLUMN review_flag.score IS 'uncertainty score: vote_entropy, max_probability or single_pass_entropy';
COMMENT ON COLUMN review_flag.load IS 'share (0 to 1) of cases that the score flags for review: that of the vote entropy for every score, and tied cases share what remains of it';
COMMENT ON COLUMN review_flag.aurc IS 'area under the risk-coverage curve (0 to 1); lower is better';
COMMENT ON COLUMN review_flag.error_kept IS 'share (0 to 1) of wrong decisions among cases that are not sent to review; NULL where there is none';
COMMENT ON COLUMN review_flag.error_flagged IS 'share (0 to 1) of wrong decisions among flagged cases';
COMMENT ON COLUMN review_flag.wrong_flagged IS 'share (0 to 1) of wrong decisions that are flagged, which is the load for a random flag; NULL where none was wrong';
COMMENT ON COLUMN review_flag.missed_ed IS 'emergencies that the primary rule misses, among the cases that went through dropout';
COMMENT ON COLUMN review_flag.missed_ed_flagged IS 'share (0 to 1) of missed emergencies that are flagged, which is the load for a random flag; NULL where none was missed';
COMMENT ON COLUMN review_flag.aurc_difference IS 'this score''s aurc minus the vote entropy''s; NULL for the vote entropy itself';
COMMENT ON COLUMN review_flag.difference_low IS 'lower end of the 95 % interval of aurc_difference';
COMMENT ON COLUMN review_flag.difference_high IS 'upper end of the 95 % interval of aurc_difference';
COMMENT ON COLUMN review_flag.verdict IS 'which of this score and the vote entropy is better, or ''cannot tell''';

CREATE TABLE conformal (
    evaluation_id VARCHAR NOT NULL,
    miss_rate DOUBLE NOT NULL CHECK (miss_rate BETWEEN 0 AND 1),
    threshold_ed DOUBLE,
    threshold_gp DOUBLE,
    threshold_home DOUBLE,
    calibration_ed INTEGER NOT NULL,
    ed_cases INTEGER NOT NULL,
    ed_missed INTEGER,
    ed_miss_rate DOUBLE,
    miss_low DOUBLE,
    miss_high DOUBLE,
    abstain_rate DOUBLE,
    mean_set_size DOUBLE,
    error_decided DOUBLE,
    note VARCHAR,
    miss_method VARCHAR,
    abstain_low DOUBLE,
    abstain_high DOUBLE,
    error_low DOUBLE,
    error_high DOUBLE
);
COMMENT ON TABLE conformal IS 'One row per evaluation: conformal sets whose expected ED miss rate is at most miss_rate on exchangeable cases; note says where they are not exchangeable.';
COMMENT ON COLUMN conformal.miss_rate IS 'the expected ED miss rate that was asked for (0 to 1)';
COMMENT ON COLUMN conformal.threshold_ed IS 'ED is in a case''s conformal set if p(ED) is at least this';
COMMENT ON COLUMN conformal.threshold_gp IS 'GP is in a case''s conformal set if p(GP) is at least this';
COMMENT ON COLUMN conformal.threshold_home IS 'HOME is in a case''s conformal set if p(HOME) is at least this';
COMMENT ON COLUMN conformal.calibration_ed IS 'emergencies of the calibration set';
COMMENT ON COLUMN conformal.ed_cases IS 'emergencies: cases whose true label is ED';
COMMENT ON COLUMN conformal.ed_missed IS 'emergencies whose conformal set lacks ED';
COMMENT ON COLUMN conformal.ed_miss_rate IS 'ed_missed / ed_cases (0 to 1)';
COMMENT ON COLUMN conformal.miss_low IS 'lower end of the 95 % interval of ed_miss_rate';
COMMENT ON COLUMN conformal.miss_high IS 'upper end of the 95 % interval of ed_miss_rate';
COMMENT ON COLUMN conformal.abstain_rate IS 'share (0 to 1) of cases whose conformal set is not one label';
COMMENT ON COLUMN conformal.mean_set_size IS 'mean number of labels in a conformal set';
COMMENT ON COLUMN conformal.error_decided IS 'share (0 to 1) of wrong answers among cases whose conformal set is one label';
COMMENT ON COLUMN conformal.miss_method IS 'how miss_low and miss_high were made';
COMMENT ON COLUMN conformal.abstain_low IS 'lower end of the 95 % interval of abstain_rate';
COMMENT ON COLUMN conformal.abstain_high IS 'upper end of the 95 % interval of abstain_rate';
COMMENT ON COLUMN conformal.error_low IS 'lower end of the 95 % interval of error_decided';
COMMENT ON COLUMN conformal.error_high IS 'upper end of the 95 % interval of error_decided';

CREATE TABLE fidelity (
    fidelity_id VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER NOT NULL CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    distribution VARCHAR NOT NULL CHECK (distribution IN ('vocabulary', 'labels')),
    reference_precision VARCHAR NOT NULL,
    random_weights BOOLEAN NOT NULL,
    variant_digest VARCHAR NOT NULL,
    reference_digest VARCHAR NOT NULL,
    dataset_digest VARCHAR NOT NULL,
    cases INTEGER NOT NULL CHECK (cases > 0),
    set_cases INTEGER NOT NULL,
    kl_mean DOUBLE,
    kl_median DOUBLE,
    kl_p95 DOUBLE,
    kl_p99 DOUBLE,
    kl_p999 DOUBLE,
    kl_max DOUBLE,
    same_top1 DOUBLE CHECK (same_top1 BETWEEN 0 AND 1),
    text_tokens BIGINT,
    perplexity DOUBLE,
    reference_perplexity DOUBLE,
    perplexity_ratio DOUBLE,
    note VARCHAR,
    created_at TIMESTAMP,
    kl_mean_se DOUBLE,
    same_top1_se DOUBLE,
    perplexity_ratio_se DOUBLE
);
COMMENT ON TABLE fidelity IS 'One row per untrained variant, set of cases and distribution: what quantisation alone changes, against the reference.';
COMMENT ON COLUMN fidelity.fidelity_id IS 'names the comparison: weights of both sides, cases and version';
COMMENT ON COLUMN fidelity.distribution IS '''labels'' (the three answers) or ''vocabulary'' (all tokens), at the label''s position';
COMMENT ON COLUMN fidelity.reference_precision IS 'number format of the weights that the reference was made from, e.g. bf16 or Q4_1';
COMMENT ON COLUMN fidelity.variant_digest IS 'digest of the quantised weights';
COMMENT ON COLUMN fidelity.reference_digest IS 'digest of the reference''s weights';
COMMENT ON COLUMN fidelity.set_cases IS 'cases of the set; more than cases where these are a sample';
COMMENT ON COLUMN fidelity.kl_mean IS 'mean KL divergence from the reference, in nats';
COMMENT ON COLUMN fidelity.kl_median IS 'median KL divergence from the reference, in nats';
COMMENT ON COLUMN fidelity.kl_p95 IS '95 % quantile of the KL divergence, in nats';
COMMENT ON COLUMN fidelity.kl_p99 IS '99 % quantile of the KL divergence, in nats';
COMMENT ON COLUMN fidelity.kl_p999 IS '99.9 % quantile of the KL divergence, in nats';
COMMENT ON COLUMN fidelity.kl_max IS 'largest KL divergence from the reference, in nats';
COMMENT ON COLUMN fidelity.same_top1 IS 'share (0 to 1) of cases on which both sides find the same token most probable';
COMMENT ON COLUMN fidelity.text_tokens IS 'tokens of the patients'' messages, behind the perplexities';
COMMENT ON COLUMN fidelity.reference_perplexity IS 'perplexity of the reference on the same text';
COMMENT ON COLUMN fidelity.perplexity_ratio IS 'perplexity / reference_perplexity';
COMMENT ON COLUMN fidelity.kl_mean_se IS 'standard error of kl_mean, over the cases';
COMMENT ON COLUMN fidelity.same_top1_se IS 'standard error of same_top1, over the cases';
COMMENT ON COLUMN fidelity.perplexity_ratio_se IS 'standard error of perplexity_ratio, over the cases';

CREATE TABLE trial (
    search_id VARCHAR NOT NULL,
    number INTEGER NOT NULL CHECK (number >= 0),
    training_id VARCHAR NOT NULL,
    grid VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    bits INTEGER CHECK (bits IN (2, 3, 4, 5, 6, 8)),
    precision VARCHAR,
    recipe VARCHAR NOT NULL,
    recipe_kind VARCHAR NOT NULL CHECK (recipe_kind IN ('standard', 'safety')),
    seed BIGINT NOT NULL,
    settings VARCHAR NOT NULL,
    objective VARCHAR NOT NULL,
    higher_is_better BOOLEAN NOT NULL,
    state VARCHAR NOT NULL CHECK (state IN ('finished', 'paused', 'failed')),
    is_best BOOLEAN NOT NULL,
    value DOUBLE,
    valid_loss DOUBLE,
    updates INTEGER NOT NULL,
    iterations INTEGER NOT NULL,
    rungs VARCHAR NOT NULL,
    seconds DOUBLE NOT NULL,
    train_seconds DOUBLE,
    error VARCHAR
);
COMMENT ON TABLE trial IS 'One row per trial of `triage search`: its settings, how far it was trained, its value on `valid`.';
COMMENT ON COLUMN trial.search_id IS 'names the search: grid, recipe, model and settings';
COMMENT ON COLUMN trial.number IS 'number of the trial in its search, from 0';
COMMENT ON COLUMN trial.grid IS 'the grid file of the search';
COMMENT ON COLUMN trial.settings IS 'value of each searched setting by its dotted key, as JSON';
COMMENT ON COLUMN trial.objective IS 'the figure on `valid` that the search improves: validation value, macro-F1, or ED recall at an over-triage';
COMMENT ON COLUMN trial.higher_is_better IS 'whether a higher value of the objective is better';
COMMENT ON COLUMN trial.state IS 'finished, paused or failed';
COMMENT ON COLUMN trial.is_best IS 'whether it is the best of the trials that came furthest';
COMMENT ON COLUMN trial.value IS 'the objective at the last rung that was reached';
COMMENT ON COLUMN trial.valid_loss IS 'lowest validation value of the recipe''s own objective so far, in nats';
COMMENT ON COLUMN trial.updates IS 'updates trained so far';
COMMENT ON COLUMN trial.iterations IS 'updates of the whole training';
COMMENT ON COLUMN trial.rungs IS 'update, value and seconds at each rung that was reached, as JSON';
COMMENT ON COLUMN trial.seconds IS 'seconds of the trial''s steps, with loading and scoring';
COMMENT ON COLUMN trial.error IS 'why the trial failed; NULL where it did not';

CREATE TABLE benchmark (
    run_id VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL,
    machine VARCHAR NOT NULL,
    versions VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    "case" VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    value DOUBLE,
    unit VARCHAR,
    n INTEGER,
    note VARCHAR
);
COMMENT ON TABLE benchmark IS 'One row per benchmark run, case and metric.';
COMMENT ON COLUMN benchmark.run_id IS 'names the run of the benchmark';
COMMENT ON COLUMN benchmark.versions IS 'versions of the libraries';
COMMENT ON COLUMN benchmark.name IS 'name of the benchmark';
COMMENT ON COLUMN benchmark."case" IS 'what was measured; a reserved word: write it in double quotes';
COMMENT ON COLUMN benchmark.unit IS 'unit of the value';

CREATE TABLE dataset (
    dataset_id VARCHAR NOT NULL,
    dataset_digest VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    sets_digest VARCHAR NOT NULL,
    is_embedded BOOLEAN NOT NULL,
    seed BIGINT NOT NULL,
    train_cases INTEGER NOT NULL,
    valid_cases INTEGER NOT NULL,
    calibration_cases INTEGER NOT NULL,
    test_cases INTEGER NOT NULL,
    further_sets INTEGER NOT NULL,
    created_at TIMESTAMP
);
COMMENT ON TABLE dataset IS 'One row per prepared dataset: its four own sets, and the evaluation sets beside them.';
COMMENT ON COLUMN dataset.dataset_id IS 'names the dataset';
COMMENT ON COLUMN dataset.dataset IS 'name of the dataset';
COMMENT ON COLUMN dataset.sets_digest IS 'digest of its four own sets, by which rows of earlier versions name it';
COMMENT ON COLUMN dataset.is_embedded IS 'whether its cases are the project''s own synthetic ones';
COMMENT ON COLUMN dataset.seed IS 'seed of the split, or of the generator';
COMMENT ON COLUMN dataset.train_cases IS 'cases that models are trained on';
COMMENT ON COLUMN dataset.valid_cases IS 'cases that choose the best update of a training';
COMMENT ON COLUMN dataset.test_cases IS 'cases of the test set';
COMMENT ON COLUMN dataset.further_sets IS 'evaluation sets beside ''test''';
COMMENT ON COLUMN dataset.created_at IS 'when it was prepared, UTC';

CREATE TABLE dataset_set (
    dataset_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    set_digest VARCHAR NOT NULL,
    cases INTEGER NOT NULL,
    ed_cases INTEGER NOT NULL,
    gp_cases INTEGER NOT NULL,
    home_cases INTEGER NOT NULL,
    groups INTEGER,
    is_further BOOLEAN NOT NULL
);
COMMENT ON TABLE dataset_set IS 'One row per dataset and set: its size, labels and digest.';
COMMENT ON COLUMN dataset_set.name IS 'train, valid, calibration, test, or the name of a further evaluation set';
COMMENT ON COLUMN dataset_set.cases IS 'cases of the set';
COMMENT ON COLUMN dataset_set.ed_cases IS 'cases with the label ED';
COMMENT ON COLUMN dataset_set.gp_cases IS 'cases with the label GP';
COMMENT ON COLUMN dataset_set.home_cases IS 'cases with the label HOME';
COMMENT ON COLUMN dataset_set.groups IS 'groups (conditions) of its cases; NULL where they have none';
COMMENT ON COLUMN dataset_set.is_further IS 'whether it is an evaluation set, which nothing is learned from';

CREATE TABLE sweep (
    sweep_id VARCHAR NOT NULL,
    study VARCHAR NOT NULL,
    grid VARCHAR NOT NULL,
    grid_digest VARCHAR NOT NULL,
    dataset_digest VARCHAR,
    experiments INTEGER NOT NULL,
    failures INTEGER,
    started_at TIMESTAMP NOT NULL,
    finished_at TIMESTAMP,
    run_seconds DOUBLE,
    step_seconds DOUBLE,
    primary_claim VARCHAR,
    primary_digest VARCHAR
);
COMMENT ON TABLE sweep IS 'One row per sweep: a run of a grid, which makes a study of the grid''s name, or adds to it.';
COMMENT ON COLUMN sweep.sweep_id IS 'names the sweep: study, time and a random part';
COMMENT ON COLUMN sweep.study IS 'name of the study, which is that of its grid; ''earlier'': of results that no sweep names';
COMMENT ON COLUMN sweep.grid IS 'name of the grid';
COMMENT ON COLUMN sweep.grid_digest IS 'digest of the grid''s settings, with what the command changed';
COMMENT ON COLUMN sweep.dataset_digest IS 'digest of the dataset that it ran on; NULL where that was not prepared';
COMMENT ON COLUMN sweep.experiments IS 'experiments that the sweep asked for';
COMMENT ON COLUMN sweep.failures IS 'failed steps; NULL where the sweep has not finished';
COMMENT ON COLUMN sweep.started_at IS 'when it started, UTC';
COMMENT ON COLUMN sweep.finished_at IS 'when it finished, UTC; NULL where it has not, or was interrupted';
COMMENT ON COLUMN sweep.run_seconds IS 'seconds of the sweep, or in a work pool of the processes of its experiments'' runs, summed; NULL where it has not finished';
COMMENT ON COLUMN sweep.step_seconds IS 'of run_seconds: those of the steps'' own processes; the rest is orchestration, landing and comparing';
COMMENT ON COLUMN sweep.primary_claim IS 'the table [primary] of its grid as canonical JSON, with the settings that decide its trainings and how they are judged, landed when it started; NULL where the grid has none';
COMMENT ON COLUMN sweep.primary_digest IS 'first 12 hex digits of the SHA-256 of primary_claim';

CREATE TABLE sweep_member (
    sweep_id VARCHAR NOT NULL,
    id VARCHAR NOT NULL
);
COMMENT ON TABLE sweep_member IS 'One row per sweep and result that it made, or found: a training, an evaluation or a fidelity.';
COMMENT ON COLUMN sweep_member.id IS 'training_id, evaluation_id or fidelity_id';

CREATE TABLE look (
    look_id VARCHAR NOT NULL,
    looked_at TIMESTAMP NOT NULL,
    study VARCHAR NOT NULL,
    precision VARCHAR,
    max_megabytes DOUBLE,
    objective VARCHAR NOT NULL,
    ranked VARCHAR,
    candidates INTEGER NOT NULL CHECK (candidates > 0),
    evaluation_id VARCHAR,
    training_id VARCHAR,
    value DOUBLE,
    valid_digest VARCHAR,
    set_digest VARCHAR,
    seeds BIGINT[]
);
COMMENT ON TABLE look IS 'One row per `triage best`: what was asked, what was ranked on `valid`, and the model whose test figures were shown. And one per sealed claim that was opened, which ranks nothing.';
COMMENT ON COLUMN look.look_id IS 'names the look';
COMMENT ON COLUMN look.looked_at IS 'when the test figures were shown, UTC';
COMMENT ON COLUMN look.precision IS 'the precision that was asked for; NULL: any';
COMMENT ON COLUMN look.max_megabytes IS 'most bytes of stored weights that were asked for, in 10^6; NULL: any';
COMMENT ON COLUMN look.objective IS 'the figure on `valid` that the models were ranked by; ''primary claim'' and its digest where one was opened';
COMMENT ON COLUMN look.ranked IS 'training_id and value of each model, the best first, as JSON';
COMMENT ON COLUMN look.candidates IS 'models that were ranked, or of which figures are shown from then on';
COMMENT ON COLUMN look.evaluation_id IS 'the evaluation of the chosen model on the test set';
COMMENT ON COLUMN look.training_id IS 'the training of the chosen model';
COMMENT ON COLUMN look.value IS 'the objective of the chosen model on `valid`';
COMMENT ON COLUMN look.valid_digest IS 'digest of the cases of `valid`';
COMMENT ON COLUMN look.seeds IS 'seeds that an opened claim is about from then on; NULL where a model was chosen';

CREATE TABLE judged_again (
    evaluation_id VARCHAR PRIMARY KEY,
    judged_now VARCHAR NOT NULL
);
COMMENT ON TABLE judged_again IS 'One row per evaluation whose scores a later version judged again: views show that evaluation instead. Computed by the loader.';
COMMENT ON COLUMN judged_again.judged_now IS 'evaluation_id of the latest judging of the same scores';

CREATE TABLE cost (
    evaluation_id VARCHAR NOT NULL,
    label VARCHAR NOT NULL CHECK (label IN ('ED', 'GP', 'HOME')),
    decision VARCHAR NOT NULL CHECK (decision IN ('ED', 'GP', 'HOME')),
    cost DOUBLE NOT NULL
);
COMMENT ON TABLE cost IS 'One row per evaluation with a cost matrix, true label and decision. Computed by the loader, never landed.';
COMMENT ON COLUMN cost.decision IS 'the label that is decided';
COMMENT ON COLUMN cost.cost IS 'cost of the decision on a case with this label';

CREATE TABLE decision_count (
    evaluation_id VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax', 'target_recall', 'min_cost')),
    ed_as_ed BIGINT NOT NULL,
    ed_as_gp BIGINT NOT NULL,
    ed_as_home BIGINT NOT NULL,
    gp_as_ed BIGINT NOT NULL,
    gp_as_gp BIGINT NOT NULL,
    gp_as_home BIGINT NOT NULL,
    home_as_ed BIGINT NOT NULL,
    home_as_gp BIGINT NOT NULL,
    home_as_home BIGINT NOT NULL,
    loss DOUBLE
);
COMMENT ON TABLE decision_count IS 'One row per evaluation and decision rule: its confusion matrix and mean loss. Computed by the loader, never landed.';
COMMENT ON COLUMN decision_count.rule IS '''primary'' (the recipe''s own rule), argmax, target_recall or min_cost';
COMMENT ON COLUMN decision_count.loss IS 'mean negative log-likelihood for each completion token, in nats';

CREATE TABLE pair_metric (
    base_model VARCHAR NOT NULL,
    recipe VARCHAR NOT NULL,
    seed BIGINT NOT NULL,
    evaluation_set VARCHAR NOT NULL,
    evaluation_4bit VARCHAR NOT NULL,
    evaluation_8bit VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax')),
    metric VARCHAR NOT NULL CHECK (
        metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'over_triage', 'expected_cost', 'ed_auroc', 'loss')
    ),
    value_4bit DOUBLE,
    value_8bit DOUBLE,
    difference DOUBLE,
    low DOUBLE,
    high DOUBLE,
    cases INTEGER NOT NULL,
    groups INTEGER,
    b INTEGER,
    c INTEGER,
    mcnemar_p DOUBLE CHECK (mcnemar_p BETWEEN 0 AND 1),
    margin DOUBLE,
    verdict VARCHAR CHECK (verdict IN ('not worse', 'within', 'worse', 'cannot conclude')),
    note VARCHAR
);
COMMENT ON TABLE pair_metric IS 'One row per 4-bit/8-bit pair of evaluations, rule and metric. Computed by the loader, never landed.';
COMMENT ON COLUMN pair_metric.evaluation_4bit IS 'evaluation_id of the 4-bit side';
COMMENT ON COLUMN pair_metric.rule IS '''primary'' (the recipe''s own rule) or ''argmax''; ed_auroc and loss, which depend on no rule, have ''argmax''';
COMMENT ON COLUMN pair_metric.value_4bit IS 'the figure at 4 bits';
COMMENT ON COLUMN pair_metric.difference IS '4 bits minus 8 bits on the same cases';
COMMENT ON COLUMN pair_metric.low IS 'lower end of the 95 % interval of the difference over groups; chance in training is left out';
COMMENT ON COLUMN pair_metric.high IS 'upper end of the 95 % interval of the difference over groups; chance in training is left out';
COMMENT ON COLUMN pair_metric.cases IS 'cases that the metric is computed from: emergencies, or all';
COMMENT ON COLUMN pair_metric.groups IS 'groups of cases that the interval rests on; NULL where cases have none, and each counts as independent';
COMMENT ON COLUMN pair_metric.b IS 'cases that are right at 4 bits only';
COMMENT ON COLUMN pair_metric.c IS 'cases that are right at 8 bits only';
COMMENT ON COLUMN pair_metric.mcnemar_p IS 'p value of the exact two-sided McNemar test; assumes independent cases';
COMMENT ON COLUMN pair_metric.margin IS 'loss that the verdict allows for; NULL for a cost and a loss, which have no verdict';
COMMENT ON COLUMN pair_metric.verdict IS 'where the interval lies: ''not worse'' (above -margin), ''within'' (inside both margins), ''worse'' (below -margin); else ''cannot conclude''';
COMMENT ON COLUMN pair_metric.note IS 'what the interval leaves out or assumes, or why a figure or an interval is missing';

CREATE TABLE reference_metric (
    evaluation_id VARCHAR NOT NULL,
    reference_evaluation VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax')),
    metric VARCHAR NOT NULL CHECK (
        metric IN ('accuracy', 'ed_recall', 'ed_f2', 'macro_f1', 'over_triage', 'expected_cost', 'ed_auroc', 'loss')
    ),
    value DOUBLE,
    reference_value DOUBLE,
    difference DOUBLE,
    low DOUBLE,
    high DOUBLE,
    cases INTEGER NOT NULL,
    groups INTEGER,
    right_only INTEGER,
    reference_right_only INTEGER,
    mcnemar_p DOUBLE CHECK (mcnemar_p BETWEEN 0 AND 1),
    margin DOUBLE,
    verdict VARCHAR CHECK (verdict IN ('not worse', 'within', 'worse', 'cannot conclude')),
    note VARCHAR
);
COMMENT ON TABLE reference_metric IS 'One row per pair of a precision and its reference (reference_pair), rule and metric. Computed by the loader, never landed.';
COMMENT ON COLUMN reference_metric.reference_evaluation IS 'the evaluation at the reference';
COMMENT ON COLUMN reference_metric.value IS 'the figure at the precision';
COMMENT ON COLUMN reference_metric.reference_value IS 'the figure at the reference';
COMMENT ON COLUMN reference_metric.difference IS 'the precision minus the reference on the same cases';
COMMENT ON COLUMN reference_metric.right_only IS 'cases that are right at the precision only';
COMMENT ON COLUMN reference_metric.reference_right_only IS 'cases that are right at the reference only';

CREATE TABLE pooled_metric (
    pool VARCHAR NOT NULL,
    base_model VARCHAR NOT NULL,
    recipe VARCHAR NOT NULL,
    seed_group VARCHAR NOT NULL,
    rule VARCHAR NOT NULL CHECK (rule IN ('primary', 'argmax', 'target_recall')),
    metric VARCHAR NOT NULL,
    seeds INTEGER NOT NULL,
    cases INTEGER NOT NULL,
    groups INTEGER,
    value_4bit DOUBLE,
    value_8bit DOUBLE,
    difference DOUBLE,
    standard_error DOUBLE,
    freedom DOUBLE,
    low DOUBLE,
    high DOUBLE,
    training_component DOUBLE,
    group_component DOUBLE,
    cell_component DOUBLE,
    more_seeds INTEGER,
    more_groups INTEGER,
    margin DOUBLE NOT NULL,
    p_value DOUBLE CHECK (p_value BETWEEN 0 AND 1),
    verdict VARCHAR NOT NULL CHECK (verdict IN ('not worse', 'within', 'worse', 'cannot conclude')),
    note VARCHAR,
    PRIMARY KEY (pool, seed_group, rule, metric)
);
COMMENT ON TABLE pooled_metric IS 'One row per pool of pairs, recipe under one setting, rule and metric: 4 minus 8 bits, the mean over its seeds. Computed by the loader, never landed.';
COMMENT ON COLUMN pooled_metric.pool IS 'digest of the pairs that are shown together; changes with any of them';
COMMENT ON COLUMN pooled_metric.rule IS '''primary'' (the recipe''s own rule), ''argmax'', or ''target_recall'' (by the threshold of each model); ed_auroc, which depends on no rule, has ''argmax''';
COMMENT ON COLUMN pooled_metric.seeds IS 'seeds of the recipe of which both models have decisions by the rule';
COMMENT ON COLUMN pooled_metric.value_4bit IS 'mean of the figure over the seeds at 4 bits';
COMMENT ON COLUMN pooled_metric.difference IS 'mean over the seeds of 4 bits minus 8 bits on the same cases';
COMMENT ON COLUMN pooled_metric.standard_error IS 'standard error of the difference over trainings and groups; with one seed over groups alone';
COMMENT ON COLUMN pooled_metric.freedom IS 'degrees of freedom of Student''s interval (Satterthwaite); with one seed groups - 1';
COMMENT ON COLUMN pooled_metric.low IS 'lower end of the 95 % interval of the difference over trainings and groups; with one seed over groups alone';
COMMENT ON COLUMN pooled_metric.high IS 'upper end of the 95 % interval of the difference over trainings and groups; with one seed over groups alone';
COMMENT ON COLUMN pooled_metric.training_component IS 'variance between trainings, of a cell (a training and a group); NULL with one seed';
COMMENT ON COLUMN pooled_metric.group_component IS 'variance between groups, of a cell; with one seed it holds all three';
COMMENT ON COLUMN pooled_metric.cell_component IS 'variance of a cell that neither its training nor its group explains; NULL with one seed';
COMMENT ON COLUMN pooled_metric.more_seeds IS 'further seeds with which half the interval is expected to be at most the margin; NULL where it is, where 100 do not do, and with one seed';
COMMENT ON COLUMN pooled_metric.more_groups IS 'further groups (cases, where these have none) with which half the interval is expected to be at most the margin; NULL where it is, and where 10,000 do not do';
COMMENT ON COLUMN pooled_metric.p_value IS 'one-sided p value of ''worse than the margin'', of this row alone';

CREATE TABLE adjusted_bound (
    evaluation_id VARCHAR NOT NULL,
    gate VARCHAR NOT NULL CHECK (gate IN ('ed_recall', 'ed_f2', 'ed_false_negative_rate')),
    looks VARCHAR NOT NULL,
    bound DOUBLE,
    method VARCHAR NOT NULL,
    note VARCHAR,
    PRIMARY KEY (evaluation_id, gate)
);
COMMENT ON TABLE adjusted_bound IS 'One row per evaluation of a trained model and gate: a bound for all looks. Computed by the loader, never landed.';
COMMENT ON COLUMN adjusted_bound.looks IS 'digest of the evaluations that were looked at; changes with any of them';
COMMENT ON COLUMN adjusted_bound.bound IS 'the bound that holds for all models looked at together, with 95 % confidence';
