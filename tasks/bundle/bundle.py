"""A trained model with everything that it needs to decide, as one JSON file: `bundle.json`.

A bundle is made of what an evaluation has landed (`from_evaluation.py`). It holds numbers, names
and digests, no case.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ValidationError

from tasks.runtime.errors import BadInput
from tasks.spec import OMITTED_AT_DEFAULT, CostMatrix, Label, PromptChoice, Recipe, Strict, Training

BUNDLE_FILE = "bundle.json"
NOT_A_DEVICE = "Research software, not a medical device"
SYNTHETIC = "synthetic cases are no evidence about patients"
RuleName = Literal["argmax", "target_recall", "min_cost"]
Row = dict[str, Any]  # one landed row, by column


class ModelGone(BadInput):
    """A judged model, or the data set that it was trained on, is not in this home, or no longer."""


class Scaling(Strict):
    """Vector scaling: softmax(log p / temperature + biases), biases in the order LABELS."""

    temperature: float
    biases: tuple[float, float, float]


class Rule(Strict):
    """The recipe's own decision rule, with the parameters that were chosen on `calibration`.

    argmax needs none but, where an adapter was moved, `offsets`: the most probable label is that
    after them; target_recall: ED where p(ED) >= `threshold`, else the more probable of the
    others; min_cost: the label of least expected cost under `costs`, on probabilities after
    `scaling` of the bundle. `note`: what to mind, or why the rule is not available.
    """

    name: RuleName
    threshold: float | None = None
    costs: CostMatrix | None = None
    offsets: Annotated[Scaling | None, OMITTED_AT_DEFAULT] = None
    note: str | None = None

    @property
    def is_available(self) -> bool:
        """Whether the calibration cases were enough to choose its parameters."""
        return not (self.note or "").startswith("not available")


class ConformalCutoffs(Strict):
    """A label is in a case's conformal set where its probability reaches its cut-off, order LABELS.

    `miss_rate`: the share of emergencies that the sets may miss; `note`: what to mind.
    """

    miss_rate: float
    cutoffs: tuple[float, float, float]
    note: str | None = None


def gate_figure(value: float | None, threshold: float, digits: int = 3) -> str:
    """A figure that a gate judges, with `digits` after the point; `n/a` if there is none.

    It has more digits where these would round it to the threshold or beyond: 1077 of 1134 fails
    0.95 and reads 0.9497, not 0.950.
    """
    if value is None or math.isnan(value):
        return "n/a"

    difference = value - threshold
    # Figures that differ by less differ by how a computer counts.
    while abs(difference) >= 1e-9 and (round(value, digits) - threshold) * difference <= 0:
        digits += 1
    return f"{value:.{digits}f}"


class Gate(BaseModel, extra="allow", frozen=True):
    """What the warning needs of a row of the table `gate`; its other columns stay beside it."""

    gate: str
    state: Literal["PASS", "PROVISIONAL", "FAIL", "NOT AVAILABLE"]
    threshold: float
    value: float | None
    note: str | None


class Review(Strict):
    """When dropout passes flag a case for review: vote entropy above `entropy_limit` nats.

    `available`: whether the recipe trains with dropout, without which every pass is the same;
    `fused`: whether the adapter, and its dropout with it, went into the weights.
    """

    available: bool
    entropy_limit: float
    fused: bool = False

    @property
    def why_not(self) -> str | None:
        """Why there is no flag; None where there is one."""
        if self.available:
            return None
        if self.fused:
            return "not available: the adapter is fused into the weights, which leaves no dropout"
        return "not available: the recipe has dropout 0, so every pass would be the same"


class JudgedOn(Strict):
    """The evaluation by which the model was judged, and the cases that it used."""

    evaluation_id: str
    scores_id: str
    scoring_version: int
    dataset_digest: str
    test_digest: str
    calibration_digest: str
    cases: int
    has_groups: bool
    synthetic: bool


class Versions(Strict):
    """What the model was trained and scored with; `compute_path` is None where parts differ."""

    triage: str
    engine: int
    mlx: str
    mlx_lm: str
    backend: str
    compute_dtype: str
    compute_path: str | None


class Bundle(Strict):
    """A model and how it decides. Field by field:

    - `model_id`: id of the training (of a moved adapter, of the move); `cell_id`: its experiment.
    - `precision`: how the weights are stored, by name; `bits`: None where they are not quantised.
    - `recipe`, `training`, `seed`, `prompt`: as trained, but for the rule and the target by which
      it was judged. `training.max_tokens` bounds a prompt.
    - `trained_at`: the precision of the training, where the adapter was moved to another: the rule
      was chosen again there.
    - `with_linear`: it decides together with the linear baseline, fitted on the cases of `judged_on`.
    - `words`: what the model answers for each label. `prompt_digest`: of the whole prompt's text.
    - `chat`: whether the tokenizer's chat template is used, else the plain prompt.
    - `scaling`: vector scaling, where `calibration` had cases of each label.
    - `gates`: rows of the table `gate`, as `judge_gates` gives them.
    - `verdict`: `unsafe` where a gate fails or cannot be judged.
    - `weights`: a model folder in MLX's layout. `adapter`: a safetensors file of LoRA tensors, None
      where the weights hold it (fused). Both are absolute, or relative to the folder of the bundle.
      The digests are those of the weights' manifest and of the adapter's bytes.
    """

    schema_version: Literal[1] = 1
    model_id: str
    cell_id: str
    base_model: str
    licence: str
    terms: str | None = None
    precision: str
    bits: int | None
    recipe: Recipe
    training: Training
    seed: int
    trained_at: Annotated[str | None, OMITTED_AT_DEFAULT] = None
    with_linear: Annotated[bool, OMITTED_AT_DEFAULT] = False
    prompt: PromptChoice
    prompt_digest: str
    words: dict[Label, str]
    chat: bool
    rule: Rule
    scaling: Scaling | None
    conformal: ConformalCutoffs
    gates: tuple[Gate, ...]
    verdict: Literal["passes_gates", "provisional", "unsafe"]
    review: Review
    judged_on: JudgedOn
    versions: Versions
    random_weights: bool
    weights: str
    weights_digest: str
    adapter: str | None
    adapter_digest: str | None = None

    @property
    def notice(self) -> str:
        """The sentence below every answer."""
        return f"{NOT_A_DEVICE}; {SYNTHETIC}." if self.judged_on.synthetic else f"{NOT_A_DEVICE}."

    @property
    def origin(self) -> str | None:
        """The sentence about the rule of a moved adapter, or about the baseline that a model decides
        together with; None for a model alone at its own precision.
        """
        if self.with_linear:
            return "Its probabilities are multiplied with those of the linear baseline, fitted on its cases here."
        if self.trained_at is None:
            return None
        parameters = "the scaling of its probabilities was"
        if self.rule.offsets is not None:
            parameters = "the offsets of the most probable label were"
        elif self.rule.threshold is not None:
            parameters = f"the threshold, {self.rule.threshold:.3g}, was"
        return (
            f"The adapter was trained at {self.trained_at}; {parameters} chosen again on calibration "
            f"at {self.precision}."
        )

    @property
    def warning(self) -> str | None:
        """A sentence for every answer of a model that must not be relied on; None for the others."""
        if self.random_weights:
            return "This model has random weights: its answers mean nothing."
        if self.verdict != "unsafe":
            return None

        reasons = []
        for gate in self.gates:
            # The false negative rate is 1 - recall: the same evidence.
            if gate.gate == "ed_false_negative_rate" or gate.state in ("PASS", "PROVISIONAL"):
                continue
            name = gate.gate.replace("ed_", "ED ").replace("f2", "F2")
            reason = gate.note or "not available"
            if gate.value is not None:
                figure = gate_figure(gate.value, gate.threshold)
                reason = f"{figure} (at least {gate.threshold:g} is required)"
            reasons.append(f"{name} {reason}")
        return f"This model is unsafe by its gates: {'; '.join(reasons)}."


class BundledModel(Strict):
    """A bundle with the folder that its relative paths begin at."""

    bundle: Bundle
    folder: Path

    @property
    def weights(self) -> Path:
        """The folder of the weights."""
        return self.folder / self.bundle.weights

    @property
    def adapter(self) -> Path | None:
        """The file of the adapter, None where the weights hold it."""
        return None if self.bundle.adapter is None else self.folder / self.bundle.adapter


def read_bundle(folder: Path) -> BundledModel:
    """The bundle of an exported folder. Raises BadInput where there is none that can be used."""
    path = folder / BUNDLE_FILE
    try:
        text = path.read_text(encoding="utf-8")
        bundle = Bundle.model_validate_json(text)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{folder} holds no model that can be used: {BUNDLE_FILE} cannot be read; give an "
            "experiment, or a folder that `triage export` has written."
        ) from error
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise BadInput(
            f"{path}: {key}: {problem['msg']}; export the model again with this version."
        ) from error

    model = BundledModel(bundle=bundle, folder=folder.resolve())
    for part in (model.weights, model.adapter):
        if part is not None and not part.exists():
            raise BadInput(f"{part} is missing, which {path} names; export the model again.")
    return model


def write_bundle(bundle: Bundle, folder: Path) -> None:
    (folder / BUNDLE_FILE).write_text(f"{bundle.model_dump_json(indent=1)}\n", encoding="utf-8")


def landed_rows(folder: Path, table: str) -> list[Row]:
    """The rows of a table in a landing folder."""
    import pyarrow.parquet as pq  # slow to import

    rows: list[Row] = pq.read_table(folder / f"{table}.parquet").to_pylist()
    return rows


class ExportAgreement(Strict):
    """How a model that was written differs from the model as it was trained, in float32.

    On `cases` embedded cases of `valid`: `largest`, the largest difference of a label's
    probability; `decided_otherwise`, how many of them the bundle's rule decides otherwise.
    """

    cases: int
    largest: float
    decided_otherwise: int

    def __str__(self) -> str:
        return (
            f"on {self.cases} cases a probability differs from the trained model's by up to "
            f"{self.largest:.1e}, and {self.decided_otherwise} decisions differ"
        )
