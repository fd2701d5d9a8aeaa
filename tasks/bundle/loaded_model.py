"""A bundled model in memory, asked about texts one by one, and scored on `valid`. Only child
processes import this file.

It computes what scoring computes (tasks/scoring/scorer.py): the same template, the same shortening,
the same blocks. A text is a forward pass of its own, padded by its own length alone, so that its
answer does not depend on what is asked beside it, to the last bit; several run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from scipy.special import softmax

from tasks.bundle.bundle import Bundle, BundledModel
from tasks.bundle.decide import VALID_FILE, data_folder, decide
from tasks.corpus.case import Case, exact_digest
from tasks.corpus.prompts import Encoded, Template, encode, load_prompt
from tasks.judging.point_metrics import Floats
from tasks.judging.scores_folder import ScoredCase, write_lines
from tasks.models.manifest import VariantManifest
from tasks.runtime.backend import backend
from tasks.runtime.conversation import requests
from tasks.runtime.errors import BadInput, BrokenFolder, Diverged
from tasks.runtime.events import Answer, Emit, Note, Ready
from tasks.runtime.files import file_digest
from tasks.runtime.store import build_folder
from tasks.scoring.baselines import cases_of, fitted_linear, joint
from tasks.scoring.mc_dropout import dropout_passes
from tasks.spec import LABELS
from tasks.tuning.activations import Prefix, PrefixStore, open_prefix, prefix_in_memory
from tasks.tuning.data import EncodedCases, load_set, load_template, make_batch, make_cases
from tasks.tuning.lora import Adapted, add_lora, load_variant, load_weights
from tasks.tuning.model import SharedPast, side_by_side, streams
from tasks.tuning.step import label_terms, leading_past, score_cases

# Of freed buffers: enough for the layers of a long text, little enough to answer for weeks.
CACHE_BYTES = 128 << 20
# Beginnings of texts: what their prompts have in common, nearly all prompts have.
PROBES = ("I have", "\n", " ", "9", "é", "?", "<", "")
NO_LABEL = LABELS[0]  # a text has none: its place in `Encoded` must be filled


@dataclass(frozen=True)
class LoadedModel:
    """A model with the keys and values of the instruction, which are computed once.

    `leading`: the instruction's tokens; `past`: of each block; `linear`: label probabilities by the
    baseline that it decides together with, None where it decides alone.
    """

    bundle: Bundle
    adapted: Adapted
    template: Template
    leading: tuple[int, ...]
    past: list[SharedPast | None]
    linear: Callable[[Sequence[Case]], Floats] | None = None

    def read(self, text: str) -> tuple[Encoded, bool]:
        """Tokens of a text, shortened from its middle where it is too long; and whether it held
        special tokens, which were broken up.
        """
        plain = text
        # The tokens that steer a conversation: a text must not speak in another's name.
        for added in self.template.tokenizer.added_tokens_decoder.values():
            token = str(added)
            if added.special and len(token) > 1:
                # A space after its first character makes ordinary words of it.
                plain = plain.replace(token, f"{token[0]} {token[1:]}")
        encoded = encode(self.template, "", plain, NO_LABEL, self.bundle.training.max_tokens)
        return encoded, plain != text

    def log_likelihoods(self, texts: Sequence[Encoded]) -> Floats:
        """log P(label | prompt) of each text, shape (texts, 3). Raises Diverged if one is NaN."""
        prefixes = [Prefix(self.adapted.stack, self._cases(text)) for text in texts]
        results = side_by_side([prefixes], self._label_logp)
        label_logp = np.concatenate([np.array(logp) for _, logp in results]).astype(np.float64)
        if not np.isfinite(label_logp).all():
            raise Diverged("The model's scores are NaN or infinite; train it again.")
        return label_logp

    def dropout_passes(self, texts: Sequence[Encoded], count: int) -> Floats:
        """Label probabilities under dropout, (passes, texts, 3): each text under the same masks."""
        passes = []
        for text in texts:
            prefix = prefix_in_memory(self.adapted.stack, self._cases(text), self.adapted.boundary)
            seed = self.bundle.seed
            passes.append(
                dropout_passes(self.adapted, prefix, [0], count, seed, lambda event: None)
            )
        return np.concatenate(passes, axis=1)

    def _cases(self, text: Encoded) -> EncodedCases:
        """A set of this one case, with the instruction as its leading tokens, or none if its prompt
        does not begin with them.
        """
        length = len(self.leading)
        begins = text.prompt[:length] == self.leading and len(text.prompt) > length
        cases = make_cases(self.template, [text])
        return replace(cases, leading=length if begins else 0)

    def _label_logp(self, prefix: Prefix) -> mx.array:
        no_past: list[SharedPast | None] = [None] * self.adapted.stack.depth
        past = self.past if prefix.cases.leading else no_past
        return label_terms(self.adapted, prefix, make_batch(prefix.cases, [0]), past).label_logp


def load_model(model: BundledModel) -> LoadedModel:
    """Load weights and adapter, and compute the instruction.

    Raises BrokenFolder where the bytes are not those that were judged.
    """
    bundle = model.bundle
    if VariantManifest.read(model.weights).digest != bundle.weights_digest:
        raise BrokenFolder(f"{model.weights} holds other weights than those that were judged.")
    if model.adapter is not None and file_digest(model.adapter) != bundle.adapter_digest:
        raise BrokenFolder(f"{model.adapter} is not the adapter that was judged.")
    if load_prompt(bundle.prompt).digest != bundle.prompt_digest:
        raise BadInput(
            "This version asks models in other words than this model was trained with; "
            f"use the version {bundle.versions.triage} of triage."
        )

    mx.set_cache_limit(CACHE_BYTES)
    stack = load_variant(model.weights, backend().compute_path)
    if model.adapter is None:
        adapted = Adapted(stack, (), stack.depth, 0)
    else:
        adapted = add_lora(stack, bundle.recipe, bundle.training, bundle.seed)
        load_weights(adapted, model.adapter)
    adapted.set_dropout(None)

    template = load_template(model.weights, bundle.prompt)
    most = bundle.training.max_tokens
    probes = [encode(template, "", text, NO_LABEL, most) for text in PROBES]
    cases = make_cases(template, probes)
    past = leading_past(adapted, Prefix(stack, cases))
    mx.eval([block.arrays() for block in past if block])
    linear = None
    if bundle.with_linear:
        data = data_folder(model.folder, bundle.judged_on.dataset_digest)
        linear = fitted_linear(data, bundle.prompt.vital_signs)
    return LoadedModel(bundle, adapted, template, cases.leading_tokens, past, linear)


def predict(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Answer texts until there are no more: an Answer with the fields of a Decision for each request
    {number, text}. `args`: the BundledModel `model`; dropout `passes` of each text, or None.
    """
    bundled = BundledModel.model_validate(args["model"])
    model = load_model(bundled)
    emit(Ready())

    # As many as run side by side: the first answer does not wait for the others.
    for group in requests(len(streams())):
        read = [model.read(request["text"]) for request in group]
        encoded = [text for text, _ in read]
        passes = model.dropout_passes(encoded, args["passes"]) if args["passes"] else None
        scores = model.log_likelihoods(encoded)
        if model.linear is not None:
            cases = [Case("", request["text"], NO_LABEL) for request in group]
            p_linear = model.linear(cases)
            scores = np.log(joint(softmax(scores, axis=-1), p_linear))
            passes = None if passes is None else joint(passes, p_linear)
        decisions = decide(bundled.bundle, scores, passes)
        for request, (text, markup), decision in zip(group, read, decisions, strict=True):
            marked = replace(decision, shortened=text.shortened, markup=markup)
            emit(Answer(request["number"], asdict(marked)))
    return {}


def score_valid(args: dict[str, Any], emit: Emit) -> dict[str, Any]:
    """Score the BundledModel `model` on the set `valid` of the folder `data`, with the activations
    stored in `home`, into the folder `scores`: `valid.jsonl`, a ScoredCase a line.
    """
    bundled = BundledModel.model_validate(args["model"])
    name = bundled.bundle.cell_id

    def write(folder: Path) -> dict[str, Any]:
        model = load_model(bundled)
        loaded = load_set(
            Path(args["data"]), "valid", model.template, bundled.bundle.training.max_tokens
        )
        store = PrefixStore(Path(args["home"]), bundled.bundle.weights_digest)
        adapted = model.adapted
        prefix = open_prefix(adapted.stack, loaded.cases, adapted.boundary, store, emit)
        p = score_cases(adapted, prefix).probabilities
        if not (p >= 0).all():  # NaN is not
            raise Diverged(f"{name}: scores on valid are not finite.")
        if model.linear is not None:
            p = joint(p, model.linear(cases_of(Path(args["data"]), "valid")))

        cases = [
            ScoredCase(
                case_id=record["case_id"],
                label=record["label"],
                group=record.get("group"),
                case_digest=exact_digest(record["text"]),
                p=dict(zip(LABELS, row, strict=True)),
            )
            for record, row in zip(loaded.records, p.tolist(), strict=True)
        ]
        write_lines(folder / VALID_FILE, cases)
        emit(Note(f"{name}: {len(cases)} cases of valid are scored."))
        return {"model_id": bundled.bundle.model_id}

    build_folder(Path(args["scores"]), write)
    return {}
