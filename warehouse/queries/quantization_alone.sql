-- What does quantisation change before any training, against the most exact weights?
SELECT
    base_model,
    precision,
    distribution,
    cases,
    kl_mean,
    kl_p99,
    kl_max,
    same_top1,
    perplexity_ratio,
    reference_precision
FROM fidelity
QUALIFY row_number() OVER (
    PARTITION BY base_model, precision, distribution, random_weights
    ORDER BY created_at DESC NULLS LAST, fidelity_id
) = 1
ORDER BY base_model, distribution, precision;
