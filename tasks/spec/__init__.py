"""What a study is made of, as data: base models, precisions, recipes, experiments; and the digests
of such data.

Grid files (TOML) are read into these models by `tasks/grids/grid.py`. Nothing here imports
Prefect, MLX or a file format.
"""

from tasks.spec.base import (
    ENGINE_VERSION,
    LABELS,
    OMITTED_AT_DEFAULT,
    SCORES_VERSION,
    SCORING_VERSION,
    Label,
    Seed,
    Strict,
    canonical_json,
    digest_of,
    short_digest,
)
from tasks.spec.base_models import (
    BaseModelSpec,
    FolderSource,
    HubSource,
    PackageSource,
    RandomSource,
    Source,
)
from tasks.spec.cases import (
    EMBEDDED_EVALUATION_SETS,
    EMBEDDED_ONLY,
    Columns,
    Data,
    EvaluationSet,
    SetName,
)
from tasks.spec.grid import (
    MOST_EXPERIMENTS,
    ExperimentSpec,
    Grid,
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
    Recipe,
    Safety,
    Sampling,
    Training,
    byte_count,
)
from tasks.spec.search import (
    Range,
    Search,
    Searched,
)
