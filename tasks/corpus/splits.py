"""Which case goes into which set, and what keeps sets apart: whole groups, or single texts by digest,
within limits; nothing leaks between sets, from them into evaluation sets, or into a prompt.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from tasks.corpus.case import (
    MOST_SHOWN,
    SETS,
    Case,
    compared_digest,
    compared_group,
    from_json,
    listed,
    several,
    text_digest,
    with_one_spelling,
)
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.near_copies import BATCH, Sketch, near_duplicates
from tasks.corpus.prompts import load_prompt
from tasks.corpus.reading.sources import Located
from tasks.corpus.reading.tables import numbered_cases, place, read_set, read_sets
from tasks.corpus.vignettes.sets import sets_of
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, Data, EvaluationSet, PromptChoice

SHARES = {"train": 0.6, "valid": 0.1, "calibration": 0.1, "test": 0.2}
LEAVING = ("train", "calibration", "valid")  # the set that a copy leaves first, and so on
COPY = 0.8  # share of common runs of words from which two texts are copies of each other
COPIES_VERSION = 2  # of how copies are found; part of the digest of what is not embedded

LabelCounts = Counter[str]
Sets = dict[str, list[Case]]
Sources = Sequence[Located]
"""Of the data, and of its evaluation sets."""
Pair = tuple[str, Case, str, Case, float]
"""Two cases that are alike, each behind the name of its set, and how much, 0 to 1."""


def split_cases(
    cases: Sequence[Case], seed: int, shares: Mapping[str, float] = SHARES
) -> dict[str, list[Case]]:
    """Deal cases into the sets of `shares`, label by label. Groups and near copies stay together.

    The sets do not depend on the order of the cases, which is kept within a set.
    """
    keys = _unit_keys(cases)
    units: dict[str, LabelCounts] = defaultdict(Counter)
    for key, case in zip(keys, cases, strict=True):
        units[key][case.label] += 1

    total = Counter(str(case.label) for case in cases)
    dealt_counts: dict[str, LabelCounts] = {name: Counter() for name in shares}
    set_of: dict[str, str] = {}

    def need(name: str, counts: LabelCounts) -> float:
        """How far a set is behind its share in a unit's labels, rarest labels first."""
        return sum(
            n * (1 - dealt_counts[name][label] / (shares[name] * total[label])) / total[label]
            for label, n in counts.items()
        )

    # Large units first, each to the set that lacks its labels most: a large unit fits only while
    # sets are empty; among equals the seed decides, not the input.
    for key in sorted(units, key=lambda key: (-units[key].total(), _draw(key, seed))):
        needs = {name: need(name, units[key]) for name in shares}
        set_of[key] = max(needs, key=lambda name: needs[name])
        dealt_counts[set_of[key]].update(units[key])

    return {
        name: [case for key, case in zip(keys, cases, strict=True) if set_of[key] == name]
        for name in shares
    }


def _unit_keys(cases: Sequence[Case]) -> list[str]:
    """A key per case: its group, or else its text; near copies share the first one's."""
    from scipy.cluster.hierarchy import DisjointSet

    keys = [
        f"t:{text_digest(case.text)}" if case.group is None else f"g:{case.group}"
        for case in with_one_spelling(cases)
    ]
    # Chains of copies stay together too; the first key of the alphabet names a unit.
    units = DisjointSet(keys)
    for a, b, _ in Sketch.of([case.text for case in cases]).pairs(COPY):
        units.merge(keys[a], keys[b])
    leader = {key: min(unit) for unit in units.subsets() for key in unit}
    return [leader[key] for key in keys]


def _draw(key: str, seed: int) -> str:
    # A hash rather than a generator: the draw of one unit depends on no other unit.
    return hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()


def limited(cases: Sequence[Case], limit: int, seed: int) -> list[Case]:
    """At most `limit` cases in their order, with the label shares kept, spread over the groups."""
    if len(cases) <= limit:
        return list(cases)

    # Round after round one case of each group: any prefix of a queue holds as many groups as it can.
    queues: dict[str, list[tuple[int, Case]]] = {label: [] for label in LABELS}
    turns: Counter[tuple[str, str]] = Counter()
    for case in sorted(cases, key=lambda case: _draw(case.case_id + text_digest(case.text), seed)):
        group = case.case_id if case.group is None else compared_group(case.group)
        queues[case.label].append((turns[case.label, group], case))
        turns[case.label, group] += 1

    sizes = {label: len(queue) for label, queue in queues.items()}
    case_ids = {
        case.case_id
        for label, quota in quotas(sizes, limit).items()
        for _, case in sorted(queues[label], key=lambda entry: entry[0])[:quota]
    }
    return [case for case in cases if case.case_id in case_ids]


def quotas(counts: Mapping[str, int], limit: int) -> dict[str, int]:
    """Largest-remainder shares of `limit` for the cases of each label, at least one where there is
    one.
    """
    total = sum(counts.values())
    exact = {label: limit * count / total for label, count in counts.items()}
    quotas = {label: max(int(share), min(counts[label], 1)) for label, share in exact.items()}

    while sum(quotas.values()) < limit:
        open_labels = [label for label in counts if quotas[label] < counts[label]]
        quotas[max(open_labels, key=lambda label: exact[label] - quotas[label])] += 1

    while sum(quotas.values()) > limit:
        quotas[max(quotas, key=lambda label: quotas[label])] -= 1

    return quotas


def limited_sets(data: Data, sources: Sources) -> tuple[Sets, Sets, Counter[str]]:
    """The four sets within their limits, what an evaluation set must be apart from, and how many
    copies have left each. Raises BadInput for leaks, an empty set, and a train set that lacks a label.
    """
    located = sources[0]
    shares = split_shares(data)
    sets = sets_of(data) if data.source == "embedded" else read_sets(located.files, data)
    if "all" in sets:
        sets = split_cases(sets["all"], data.seed, shares)
    left_out = drop_copies(sets, sources) if data.near_copies == "drop" else Counter()
    # What is given as train is split: train, and what is not given.
    if missing := [name for name in ("valid", "calibration") if name not in sets]:
        total = sum(shares[name] for name in ("train", *missing))
        of_train = {name: shares[name] / total for name in ("train", *missing)}
        sets |= split_cases(sets["train"], data.seed, of_train)
    sets = {name: sets[name] for name in SETS}  # in the order of SETS, not of the files

    # Before the limits: what one grid leaves out, a grid with other limits may take.
    check_sets(sets, sources)
    learned: Sets = {name: sets[name] for name in SETS if name != "test"}
    if "all" in located.files and data.near_copies == "refuse":
        # All of it: the seed decides which cases go to test.
        cases_of_table = [case for cases in sets.values() for case in cases]
        learned = {"the table that is split": cases_of_table}

    for name, limit in data.limits.items():
        sets[name] = limited(sets[name], limit, data.seed)
    for set_name, cases in sets.items():
        if not cases:
            raise BadInput(
                f"{data.source}: no cases are left for {set_name}; give more cases or groups, or fewer "
                "copies of one text."
            )
    if lacking := sorted(set(LABELS) - {case.label for case in sets["train"]}):
        count = sum(case.label == lacking[0] for cases in sets.values() for case in cases)
        raise BadInput(
            f"{data.source}: train has no case labelled {lacking[0]}, and the other sets have "
            f"{count}; add some, or give more groups so that each set gets all labels."
        )
    return sets, learned, left_out


def split_shares(data: Data) -> dict[str, float]:
    """The share of each set in one table that the project splits."""
    shares = data.set_shares or SHARES
    return {name: shares[name] for name in SETS}


def drop_copies(sets: Sets, sources: Sources) -> Counter[str]:
    """Take copies out of the sets, of two cases that of the set which is earlier in LEAVING; returns
    how many have left each. Nothing leaves test and evaluation sets, which may share cases.
    """
    scored = list(sets["test"])
    for source in sources[1:]:
        scored += read_set(list(itertools.chain(*source.files.values())), source.columns)
    left_out = Counter({name: 0 for name in LEAVING if name in sets})
    order = [*left_out, "test"]
    while pairs := _copies({name: sets[name] for name in left_out} | {"test": scored}):
        gone: set[tuple[str, str]] = set()
        # Those with test first, since a case that leaves makes no other one a copy.
        for leaves, case, stays, other, _ in sorted(pairs, key=lambda pair: -order.index(pair[2])):
            if (stays, other.case_id) not in gone:
                gone.add((leaves, case.case_id))
        left_out.update(name for name, _ in gone)
        for name in left_out:
            sets[name] = [case for case in sets[name] if (name, case.case_id) not in gone]
    return left_out


def check_sets(sets: Sets, sources: Sources = ()) -> None:
    """Refuse the same text, id, group or near copies in two sets. Raises BadInput, which names all of
    them by file and line, or by set and id where `sources` has no file.
    """
    pairs_of = {kind: _copies(sets) if kind == "text" else _pairs(sets, kind) for kind in LEAKS}
    # Where a copy goes, so does its id.
    copies = {(a, x.case_id, b) for a, x, b, y, _ in pairs_of["text"] if x.case_id == y.case_id}
    pairs_of["id"] = [
        pair for pair in pairs_of["id"] if (pair[0], pair[1].case_id, pair[2]) not in copies
    ]
    if leaks := _leaks(pairs_of, sources):
        raise BadInput(leaks)


def check_apart(
    evaluation_sets: Sequence[tuple[EvaluationSet, Sequence[Case]]],
    learned: Sets,
    sources: Sources = (),
) -> None:
    """Refuse texts, near copies and groups of what models learn or choose thresholds from; the familiar
    set is about groups of train.

    `learned`: its cases by the name for the error. Raises BadInput, as `check_sets` does.
    """
    pairs_of: dict[str, list[Pair]] = {"text": [], "group": []}
    for (entry, cases), (name, of_name) in itertools.product(evaluation_sets, learned.items()):
        sets = {name: of_name, entry.name: list(cases)}
        pairs_of["text"] += _copies(sets)
        if not (entry.is_familiar and name == "train"):
            pairs_of["group"] += _pairs(sets, "group")

    if leaks := _leaks(pairs_of, sources):
        names = {name for pairs in pairs_of.values() for pair in pairs for name in pair[::2]}
        leaking = [
            f"{entry.name} ({entry.source})" for entry, _ in evaluation_sets if entry.name in names
        ]
        subject = "set {} is" if len(leaking) == 1 else "sets {} are"
        raise BadInput(
            f"The evaluation {subject.format(listed(leaking))} not apart from "
            f"{listed([name for name in learned if name in names])}: {leaks}"
        )


# By what two sets may not share: how cases are compared, what is wrong, and what to do.
LEAKS: dict[str, tuple[Callable[[Case], str | None], str, str]] = {
    "text": (
        lambda case: compared_digest(case.text),
        "The same text, or nearly it, is in two sets",
        'delete one of each two, or write near_copies = "drop" under [data] (for one sweep: `triage '
        "sweep GRID --set data.near_copies=drop`), so that copies leave train, calibration and valid, "
        "and never test",
    ),
    "id": (lambda case: case.case_id, "The same id is in two sets", "give each case its own id"),
    "group": (
        lambda case: None if case.group is None else compared_group(case.group),
        "The same group is in two sets",
        "keep a group's cases in one set, or rename it in one if only the names are the same",
    ),
}


def _leaks(pairs_of: Mapping[str, Sequence[Pair]], sources: Sources) -> str:
    """What two sets share, by its kind, as sentences; empty where they share nothing."""
    # By the set that a file holds, or the part that sets are split off.
    places = {
        (getattr(source.columns, "name", part), case.case_id): place(Path(path.name), number)
        for source in (sources if any(pairs_of.values()) else ())
        for part, paths in source.files.items()
        for path, number, case in numbered_cases(paths, source.columns)
    }

    def place_of(name: str, case: Case) -> str:
        keys = [(part, case.case_id) for part in (name, "all", "train")]
        return next(filter(None, map(places.get, keys)), f"case {case.case_id} of {name}")

    leaks = []
    for kind, pairs in pairs_of.items():
        shown = [
            f"{place_of(b, second)} and {place_of(a, first)}" + f" ({share:.0%})" * (kind == "text")
            for a, first, b, second, share in pairs
        ]
        _, wrong, remedy = LEAKS[kind]
        if kind == "text" and len(pairs) > MOST_SHOWN:
            remedy = f"`triage data check GRID --list` names all; {remedy}"
        leaks += [f"{wrong} ({len(pairs)}): {several(shown, '; ')}; {remedy}."] * bool(pairs)
    return " ".join(leaks)


def _copies(sets: Sets) -> list[Pair]:
    """Every two cases of two sets with the same text or nearly it, and their likeness, 0 to 1."""
    pairs = [*_pairs(sets, "text"), *near_duplicates(sets, COPY)]
    return list({(a, x.case_id, b, y.case_id): (a, x, b, y, n) for a, x, b, y, n in pairs}.values())


def _pairs(sets: Sets, kind: str) -> list[Pair]:
    """The first case with each id, group or text, with one of each further set that has it."""
    pairs: dict[tuple[str, str], Pair] = {}
    first: dict[str, tuple[str, Case]] = {}
    for name, case in ((name, case) for name, cases in sets.items() for case in cases):
        key = LEAKS[kind][0](case)
        first_set, same = (name, case) if key is None else first.setdefault(key, (name, case))
        if first_set != name:
            pairs.setdefault((str(key), name), (first_set, same, name, case, 1.0))
    return list(pairs.values())


def check_examples(folder: Path, choices: Iterable[PromptChoice]) -> None:
    """Refuse a data set that holds an example of one of these prompts, or a near copy. Raises
    BadInput, with the case named by id only.
    """
    prompts = [prompt for prompt in map(load_prompt, choices) if prompt.examples]
    for name in DatasetManifest.read(folder).sets if prompts else ():
        with (folder / f"{name}.jsonl").open(encoding="utf-8") as lines:
            cases = list(map(from_json, lines))
        for start, prompt in itertools.product(range(0, len(cases), BATCH), prompts):
            examples = [Case(entry.label, entry.text, entry.label) for entry in prompt.examples]
            batch = {"": examples, name: cases[start : start + BATCH]}
            for _, example, _, case, share in near_duplicates(batch, COPY)[:1]:
                raise BadInput(
                    f"Case {case.case_id} in {name} is the text, or nearly the text, of the example "
                    f"{example.case_id} in prompt {prompt.version} ({share:.0%} of their runs of "
                    "words), so the model would read its answer; leave the case out, or set "
                    "prompt.version = 1."
                )
