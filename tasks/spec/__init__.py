"""What a study is made of, as data: base models, precisions, recipes,
experiments; and the digests of such data.

Grid files (TOML) are read into these models by `tasks/grids/grid.py`. Nothing here imports
Prefect, MLX or a file format.
"""

from tasks.spec.base import (
    ENGINE_VERSION,
    LABELS,
    OMITTED_AT_DEFAULT,
    SCORES_VERSION,
    SCORING_VERSION,
    Fraction,
    Label,
    Name,
    Seed,
    Strict,
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
    SetShares,
    SetSize,
    Shares,
)
from tasks.spec.costs import ClassWeights, CostMatrix, RowCosts, Safety
from tasks.spec.digests import canonical_json, digest_of, short_digest
from tasks.spec.experiment import ExperimentSpec, experiments, training_of_recipe
from tasks.spec.grid import MOST_EXPERIMENTS, MOST_SHOWN, Grid
from tasks.spec.prompt import Answers, PromptChoice
from tasks.spec.recipe import OVERRIDES, Decay, Recipe, Sampling
from tasks.spec.scoring import Scoring, evaluation_id, training_of
from tasks.spec.search import Choices, Range, Search, Searched
from tasks.spec.time_limit import TimeLimit
from tasks.spec.training import Memory, Training, byte_count

__all__ = [
    "EMBEDDED_EVALUATION_SETS",
    "EMBEDDED_ONLY",
    "ENGINE_VERSION",
    "LABELS",
    "MOST_EXPERIMENTS",
    "MOST_SHOWN",
    "OMITTED_AT_DEFAULT",
    "OVERRIDES",
    "SCORES_VERSION",
    "SCORING_VERSION",
    "Answers",
    "BaseModelSpec",
    "Choices",
    "ClassWeights",
    "Columns",
    "CostMatrix",
    "Data",
    "Decay",
    "EvaluationSet",
    "ExperimentSpec",
    "FolderSource",
    "Fraction",
    "Grid",
    "HubSource",
    "Label",
    "Memory",
    "Name",
    "PackageSource",
    "PromptChoice",
    "RandomSource",
    "Range",
    "Recipe",
    "RowCosts",
    "Safety",
    "Sampling",
    "Scoring",
    "Search",
    "Searched",
    "Seed",
    "SetName",
    "SetShares",
    "SetSize",
    "Shares",
    "Source",
    "Strict",
    "TimeLimit",
    "Training",
    "byte_count",
    "canonical_json",
    "digest_of",
    "evaluation_id",
    "experiments",
    "short_digest",
    "training_of",
    "training_of_recipe",
]
