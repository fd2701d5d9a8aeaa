"""What a study is made of, as data: base models, precisions, recipes, experiments; and the digests
of such data.

Grid files (TOML) are read into these models by `tasks/grids/grid.py`. Nothing here imports
Prefect, MLX or a file format.
"""

from tasks.spec.base import (
    CHOSEN_AGAIN,
    ED_AUROC,
    EMBEDDED_EVALUATION_SETS,
    EMBEDDED_ONLY,
    ENGINE_VERSION,
    FAMILIAR,
    GATE_THRESHOLDS,
    KEPT,
    LABELS,
    OMITTED_AT_DEFAULT,
    REGISTERED,
    SCORES_VERSION,
    SCORING_VERSION,
    BaseModelSpec,
    Columns,
    Data,
    EvaluationSet,
    FolderSource,
    HubSource,
    Label,
    PackageSource,
    RandomSource,
    Seed,
    SetName,
    Source,
    Strict,
    canonical_json,
    digest_of,
    short_digest,
)
from tasks.spec.grid import (
    MOST_EXPERIMENTS,
    OF_OTHER_STEPS,
    ExperimentSpec,
    Grid,
    Primary,
    Scoring,
    evaluation_id,
    experiments,
    training_of,
    training_of_recipe,
)
from tasks.spec.recipe import (
    OVERRIDES,
    CostMatrix,
    PromptChoice,
    Range,
    Recipe,
    Safety,
    Sampling,
    Search,
    Searched,
    Training,
    byte_count,
)
