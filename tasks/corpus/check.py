"""What is in a data set, and what is wrong with its rows: repeated texts and ids, groups, labels, and
the sets that the project splits off.

Texts must not cross sides. Each set that a model learns from is a side; test and evaluation sets
are one side together, since nothing is learned from either. A table that the project splits is one
side too: the split keeps copies within it together, but an evaluation set must be apart from it.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.corpus.card import best_bound
from tasks.corpus.case import SETS, Case, compared_group, text_digest
from tasks.corpus.near_copies import BATCH, SimilarTexts, Sketch
from tasks.corpus.prepare import prepare_dataset
from tasks.corpus.prompts import Prompt
from tasks.corpus.reading.sources import Located, locate
from tasks.corpus.reading.tables import no_cases, numbered_cases, place_prefix, read_set
from tasks.corpus.splits import COPY, LEAKS, check_apart, limited_sets, quotas, split_shares
from tasks.corpus.vignettes.sets import derive_again, evaluation_records, sets_of
from tasks.runtime.errors import BadInput, Finding, Level
from tasks.spec import LABELS, Data, EvaluationSet, Training

SIMILAR = 0.5  # Jaccard index from which texts are nearly the same; from COPY on they are copies
SHOWN = 3  # places
FEWEST_ED_GROUPS = 10  # below it an interval that resamples groups says little
FEWEST_ED_CASES = 72  # that certify a recall of 0.95 without a miss
SAMPLE = 20_000  # texts whose lengths are measured, where there are more
MOST_SPLIT = 50_000  # rows up to which the split is tried
ED = LABELS.index("ED")
NO_GROUP = -1
SPLIT_TABLE = len(SETS)  # the side of a table that the project splits

# What follows where a set lacks a label; of other sets, and where that is ED, see `_missing_labels`.
CONSEQUENCES = {
    "train": "train needs every label",
    "all": "it can be an evaluation set, and cannot be trained on",
    "valid": "the checkpoint of a training is chosen without such cases",
    "calibration": "without every label the rule of least expected cost is not available",
}
WITHOUT_ED = {
    "calibration": "without ED no threshold can be chosen, so safety recipes cannot be judged",
    "test": "without ED there is no ED recall, so no gate can pass",
}

# Of a pair in two sets, with near_copies = "drop".
LEAVES: tuple[Level, str] = ("warning", "a copy leaves train before calibration before valid")

Split = Mapping[str, Sequence[Case]]
Numbers = NDArray[Any]


@dataclass(frozen=True)
class SetLine:
    """One set: rows, rows per label in the order of LABELS, names of its groups, median words.

    `cases`: like `labels`, where rows with one text count once, as they do once the data is made.
    `ed_groups`: groups with an ED case, where a case without a group counts as one.
    """

    name: str
    rows: int
    labels: list[int]
    cases: list[int]
    groups: list[str]
    ed_groups: int
    words: float


@dataclass(frozen=True)
class Lengths:
    """Median, 95th percentile and longest length in `unit`s of `on` measured texts, of which `cut` are,
    with the instruction, surely longer than a model reads.
    """

    unit: str
    median: float
    high: float
    longest: int
    on: int
    cut: int = 0


@dataclass(frozen=True)
class CorpusReport:
    """What `triage data check` shows.

    `similar`: places of two equal or nearly equal texts, and their share of common runs of words.
    """

    sets: list[SetLine]
    findings: list[Finding]
    lengths: list[Lengths]
    similar: list[tuple[str, str, float]]

    @property
    def errors(self) -> int:
        """The number of failed checks."""
        return sum(finding.level == "error" for finding in self.findings)


@dataclass(frozen=True)
class Rows:
    """All rows of a data set and its evaluation sets in numbers, so that a million fit into memory.

    `table`: per row the codes of its set, file, label, text, id and group (NO_GROUP without one),
    its number in the file, its words, and its side. `sets`, `files`, `groups`: names by code, of a
    group its first spelling. `sample`: an even sample of the texts; `longest`: the text with most
    words.
    """

    table: pd.DataFrame
    sets: list[str]
    files: list[str]
    groups: list[str]
    sketch: Sketch
    sample: list[str]
    longest: str

    @property
    def is_split_by_us(self) -> bool:
        """Whether the source is one table, which the project splits."""
        return "all" in self.sets

    @cached_property
    def _columns(self) -> dict[str, Numbers]:
        return {str(name): self.table[name].to_numpy() for name in self.table}

    def column(self, name: str) -> Numbers:
        """A column of the table."""
        return self._columns[name]

    def place(self, row: int) -> str:
        """The place of a row, as a user would look for it."""
        return f"{self.files[self.column('file')[row]]}{self.column('number')[row]}"


def check_data(
    data: Data,
    evaluation_sets: Iterable[EvaluationSet],
    tokenizers: Mapping[str, Path],
    prompt: Prompt | None = None,
    max_tokens: int = Training().max_tokens,
) -> CorpusReport:
    """Read all rows and judge them. Raises BadInput for what cannot be read.

    `tokenizers`: tokenizer.json files by the name to show; `prompt`, `max_tokens`: the grid's.
    """
    evaluation_sets = tuple(evaluation_sets)
    sources = [locate(data), *map(locate, evaluation_sets)]
    rows = read_all(data, sources)
    lines = _set_lines(rows)
    similar = _similar(rows)
    split: Split = {}
    split_findings: list[Finding] = []
    if data.near_copies == "drop" or not {*SETS} <= {*rows.sets}:
        split, split_findings = _try_split(data, sources, lines)
    id_columns = {entry.name for entry in evaluation_sets if entry.id_column}
    if data.id_column:
        id_columns |= {*SETS, "all"}

    # Where copies leave, what is left is judged by our split, whose sentence names what stays wrong.
    drops = data.near_copies == "drop"
    pairs = _same_texts(rows)
    findings = [
        *_repeated_texts(rows, pairs, drops),
        _repeated_ids(rows, id_columns, drops),
        _near_copies(rows, similar, drops),
    ]
    familiar = {one.name for one in evaluation_sets if one.is_familiar}
    findings += _crossing_groups(rows, familiar, drops)
    if rows.groups:
        findings.append(_groups_with_ed(lines, split))
    findings += _missing_labels(lines)
    if data.source == "embedded":
        findings.append(_derived_labels(data, evaluation_sets))
    findings += split_findings
    findings += _certifiable_recall(lines, split, data)
    if prompt is not None and prompt.examples:
        findings.append(_examples_in(rows, prompt))

    lengths = _lengths(rows, tokenizers, prompt.instruction if prompt else "", max_tokens)
    longest = max(lengths, key=lambda line: line.cut)
    if longest.cut:
        detail = f"at least {longest.cut} of {longest.on}, in {longest.unit}"
        remedy = f"they lose their middle: raise training.max_tokens, which is {max_tokens}"
        findings.append(Finding("texts that are cut", "warning", detail, remedy))

    same = [
        (a, b, 1.0) for a, b, crosses in zip(*pairs[:2], pairs[2]["side"], strict=True) if crosses
    ]
    places = [(rows.place(a), rows.place(b), share) for a, b, share in [*same, *similar]]
    return CorpusReport(lines, findings, lengths, places)


def read_all(data: Data, sources: Iterable[Located]) -> Rows:
    """Read every row of a data set and its evaluation sets, once.

    Raises BadInput for a row that is no case, or for no rows.
    """
    side = {name: code for code, name in enumerate((*SETS, "all"))}
    sets: dict[str, int] = {}
    files: dict[str, int] = {}
    groups: dict[str, int] = {}
    group_names: dict[int, str] = {}
    sketch = Sketch()
    sample: list[str] = []
    step = 1
    longest = ""
    parts = []

    numbered = _numbered(data, sources)
    while batch := list(itertools.islice(numbered, BATCH)):
        texts = [case.text for *_, case in batch]
        sketch.add(texts)
        sample += texts[::step]
        if len(sample) > SAMPLE:
            sample = sample[::2]
            step *= 2
        longest = max(longest, *texts, key=lambda text: len(text.split()))

        values = []
        for name, file, number, case in batch:
            group = NO_GROUP
            if case.group is not None:
                group = groups.setdefault(compared_group(case.group), len(groups))
                group_names.setdefault(group, case.group)
            values.append(
                {
                    "set": sets.setdefault(name, len(sets)),
                    "side": side.get(name, side["test"]),
                    "file": files.setdefault(file, len(files)),
                    "number": number,
                    "label": LABELS.index(case.label),
                    "text": int(text_digest(case.text), 16) - 2**63,  # 64 bits with a sign
                    "id": hash(case.case_id),  # equal within this process
                    "group": group,
                    "words": len(case.text.split()),
                }
            )
        parts.append(pd.DataFrame(values))

    if not parts:
        raise no_cases(data.source, data)
    table = pd.concat(parts, ignore_index=True)
    names = list(group_names.values())
    return Rows(table, list(sets), list(files), names, sketch, sample, longest)


def _numbered(data: Data, sources: Iterable[Located]) -> Iterator[tuple[str, str, int, Case]]:
    """The set of each case, its file and number, which written as one are its place, and the case."""
    for located in sources:
        source = located.columns
        if source.source == "embedded":
            if isinstance(source, Data):
                sets = sets_of(source)
            else:
                train = sets_of(data)["train"] if source.is_familiar else []
                records = evaluation_records(source, data, train)
                sets = {source.name: [record.case for record in records]}
            for name, cases in sets.items():
                for number, case in enumerate(cases, start=1):
                    yield name, f"embedded {name}, case ", number, case

        part_of = {path: part for part, paths in located.files.items() for path in paths}
        for path, number, case in numbered_cases(part_of, source):
            name = part_of[path] if isinstance(source, Data) else source.name
            yield name, place_prefix(path), number, case


def _lengths(
    rows: Rows, tokenizers: Mapping[str, Path], instruction: str, max_tokens: int
) -> list[Lengths]:
    """One line per tokenizer (its tokenizer.json by name); in words where there is none."""
    from tokenizers import Tokenizer

    texts = [*rows.sample, rows.longest, instruction]
    counts = {} if tokenizers else {"words": [len(text.split()) for text in texts]}
    for name, path in tokenizers.items():
        tokenizer = Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        counts[f"{name} tokens"] = [
            len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts
        ]

    lines = []
    for unit, of_texts in counts.items():
        *of_sample, longest, of_instruction = of_texts
        median, high = np.quantile(of_sample, (0.5, 0.95))
        # A word is a token or more, and so words show the least that is cut.
        most = max(*of_sample, longest)
        cut = sum(length + of_instruction > max_tokens for length in of_sample)
        cut = cut or int(most + of_instruction > max_tokens)  # the longest may be in no sample
        lines.append(Lengths(unit, float(median), float(high), most, len(of_sample), cut))
    return lines


def _set_lines(rows: Rows) -> list[SetLine]:
    def per_label(table: pd.DataFrame) -> list[int]:
        return [int((table["label"] == code).sum()) for code in range(len(LABELS))]

    lines = []
    for code, name in enumerate(rows.sets):
        table = rows.table[rows.table["set"] == code]
        cases = table.drop_duplicates("text")
        ed_groups = cases["group"][cases["label"] == ED]
        has_group = ed_groups != NO_GROUP
        lines.append(
            SetLine(
                name,
                rows=len(table),
                labels=per_label(table),
                cases=per_label(cases),
                groups=sorted(rows.groups[of] for of in table["group"].unique() if of != NO_GROUP),
                ed_groups=int(ed_groups[has_group].nunique() + (~has_group).sum()),
                words=float(table["words"].median()),
            )
        )

    return lines


def _same_texts(rows: Rows) -> tuple[Numbers, Numbers, pd.DataFrame]:
    """Every two neighbours of the rows with one text, in the order of the input, and in which columns
    they differ.
    """
    texts = rows.column("text")
    order = np.argsort(texts, kind="stable")
    is_same = texts[order[:-1]] == texts[order[1:]]
    a = order[:-1][is_same]
    b = order[1:][is_same]
    first = rows.table.iloc[a].reset_index(drop=True)
    return a, b, first != rows.table.iloc[b].reset_index(drop=True)


def _repeated_texts(
    rows: Rows, pairs: tuple[Numbers, Numbers, pd.DataFrame], drops: bool
) -> list[Finding]:
    """Rows with the same text: repeats, contradictions, texts on two sides."""
    a, b, differs = pairs
    is_leak = differs["side"]
    # Nothing is learned from test and evaluation sets, so a text may have another label in each.
    is_scored_twice = ~is_leak & differs["set"]
    is_contradiction = differs["label"] & ~is_scored_twice
    if drops:  # one of the two leaves, whatever their labels are
        is_contradiction &= ~is_leak
    is_elsewhere = ~is_contradiction & ~is_leak & ~is_scored_twice & differs["file"]
    is_repeat = ~(is_contradiction | is_leak | is_scored_twice | is_elsewhere)
    deletion = "delete one of the two"
    leak = LEAVES if drops else ("error", LEAKS["text"][-1])
    kinds: list[tuple[str, Any, Level, str]] = [
        ("repeated rows", is_repeat, "warning", "kept once"),
        ("same text in two files of one set", is_elsewhere, "error", deletion),
        ("same text, other label", is_contradiction, "error", "correct one of the two"),
        ("same text in two sets", is_leak, *leak),
        ("same text in two scored sets", is_scored_twice, "warning", "scored in each"),
    ]
    return [
        _pairs_finding(rows, name, a[selected], b[selected], level, remedy)
        for name, selected, level, remedy in kinds
    ]


def _repeated_ids(rows: Rows, id_columns: Collection[str], drops: bool) -> Finding:
    """Rows with the same id. `id_columns`: the sets whose id column the user names.

    Ids are compared within the data set and within each evaluation set: two files may both count
    from 1. Where the user names no id column, rows with the same text are repeats, not an error.
    """
    codes = range(len(rows.sets))
    own = [code for code in codes if rows.sets[code] in (*SETS, "all")]
    strict = [code for code in codes if rows.sets[code] in id_columns]
    of_set = rows.table["set"]
    table = rows.table.assign(scope=of_set.where(~of_set.isin(own), NO_GROUP))
    is_repeat = table.duplicated(["scope", "id", "text"]) & ~of_set.isin(strict)
    table = table[~is_repeat].reset_index(names="row")

    first = table.groupby(["scope", "id"])["row"].transform("first")
    is_error = table["row"] != first
    a = first[is_error].to_numpy()
    b = table["row"][is_error].to_numpy()
    name = "same id" if id_columns else "same id, other text"
    sets = rows.column("set")
    leaves = drops and bool((sets[a] != sets[b]).all())
    level, remedy = LEAVES if leaves else ("error", "give each its own id")
    return _pairs_finding(rows, name, a, b, level, remedy)


def _pairs_finding(
    rows: Rows, name: str, a: Numbers, b: Numbers, level: Level, remedy: str
) -> Finding:
    """How many pairs of rows there are, with the places of the first ones."""
    if not len(a):
        return Finding(name, "ok", "0")

    first = sorted(zip(a.tolist(), b.tolist(), strict=True))[:SHOWN]
    places = "; ".join(f"{rows.place(i)} and {rows.place(j)}" for i, j in first)
    return Finding(name, level, str(len(a)), f"{remedy}: {places}")


def _similar(rows: Rows) -> SimilarTexts:
    """Nearly equal texts on two sides, or within the table that the project splits."""
    sides = rows.column("side")
    texts = rows.column("text")
    # A table that is split has one side, and its own copies matter: compare all.
    pairs = rows.sketch.pairs(SIMILAR, None if rows.is_split_by_us else sides)
    return [
        (a, b, share)
        for a, b, share in pairs
        if texts[a] != texts[b] and (sides[a] != sides[b] or sides[a] == SPLIT_TABLE)
    ]


def _near_copies(rows: Rows, similar: SimilarTexts, drops: bool) -> Finding:
    """Nearly equal texts: across sides they leak; the split keeps those of one table together."""
    every = rows.sketch.every
    basis = f" (from 1 in {every} runs of words)" if every > 1 else ""
    name = "nearly the same text"
    if not similar:
        return Finding(name, "ok", f"0 pairs{basis}")

    sides = rows.column("side")
    copies = [pair for pair in similar if pair[2] >= COPY]
    leaks = [pair for pair in copies if sides[pair[0]] != sides[pair[1]]]
    a, b, share = (leaks or similar)[0]
    alike = f"most alike: {rows.place(a)} and {rows.place(b)}, {share:.0%} of their runs of words"
    detail = f"{len(similar)} pairs, {len(copies)} of them copies{basis}"
    if leaks:
        level, remedy = LEAVES if drops else ("error", LEAKS["text"][-1])
        return Finding(f"{name} across sets", level, detail, f"{remedy}; {alike}; all: --list")
    if not rows.is_split_by_us:
        name += " across sets"
    together = "copies are kept in one set; " if copies else ""
    return Finding(name, "warning", detail, together + alike)


def _examples_in(rows: Rows, prompt: Prompt) -> Finding:
    """Rows that are an example in the prompt, or nearly one: the model would read their answer."""
    name = "examples of the prompt"
    count = rows.sketch.texts
    rows.sketch.add([example.text for example in prompt.examples])
    copies = rows.sketch.pairs(COPY, np.repeat([0, 1], [count, len(prompt.examples)]))
    if not copies:
        return Finding(name, "ok", "0")

    a, b, share = copies[0]
    label = prompt.examples[max(a, b) - count].label
    place = rows.place(min(a, b))
    remedy = f"leave them out, or set prompt.version = 1; {place} is the {label} one ({share:.0%})"
    return Finding(name, "error", str(len(copies)), remedy)


def _crossing_groups(rows: Rows, familiar: Collection[str], drops: bool) -> list[Finding]:
    """Groups with cases on two sides, and rows without a group.

    `familiar`: sets that are about the groups of train.
    """
    has_group = rows.table["group"] != NO_GROUP
    if not has_group.any():
        remedy = (
            "cases are taken for independent: name a group_column (--group-column) if some belong"
            " together"
        )
        return [Finding("groups", "warning", "none", remedy)]

    familiar_codes = [code for code, name in enumerate(rows.sets) if name in familiar]
    table = rows.table[has_group & ~rows.table["set"].isin(familiar_codes)]
    sides = table.groupby("group")["side"].nunique()
    crossing = sides.index[sides > 1]
    name = "groups that cross sets"
    detail = f"{len(crossing)} of {len(sides)}"
    findings = [Finding(name, "ok", detail)]
    if len(crossing):
        first = table[table["group"].isin(crossing[:SHOWN])].drop_duplicates("group").index
        places = ", ".join(map(rows.place, first))
        level, remedy = LEAVES if drops else ("error", "keep a group's cases in one set")
        findings = [Finding(name, level, detail, f"{remedy}; groups of {places}")]

    if ungrouped := int((~has_group).sum()):
        remedy = "each counts as a group of its own"
        findings.append(Finding("rows without a group", "warning", str(ungrouped), remedy))
    return findings


def _groups_with_ed(lines: Sequence[SetLine], split: Split) -> Finding:
    """The number of groups with ED cases in each set; a set with too few can show little.

    `split`: the project's own split, where it was tried.
    """
    by_set: dict[str, int] = {}
    for name, cases in split.items():
        groups = [case.group for case in cases if case.label == "ED"]
        names = {compared_group(group) for group in groups if group is not None}
        by_set[name] = len(names) + groups.count(None)

    by_set |= {line.name: line.ed_groups for line in lines if line.name != "all" or not split}
    # The four sets before evaluation sets, in their usual order.
    by_set = {name: by_set[name] for name in dict.fromkeys((*SETS, *by_set)) if name in by_set}
    detail = ", ".join(f"{name} {count}" for name, count in by_set.items())
    few = [name for name, count in by_set.items() if count < FEWEST_ED_GROUPS]
    if not few:
        return Finding("groups with ED cases", "ok", detail)

    remedy = (
        f"fewer than {FEWEST_ED_GROUPS} in {', '.join(few)}: ED recall there says little about new "
        "groups; add groups with ED cases"
    )
    return Finding("groups with ED cases", "warning", detail, remedy)


def _missing_labels(lines: Sequence[SetLine]) -> list[Finding]:
    """Sets that lack a label."""
    findings = []
    for line in lines:
        missing = [label for label, count in zip(LABELS, line.labels, strict=True) if not count]
        if missing:
            level: Level = "error" if line.name == "train" else "warning"
            consequence = CONSEQUENCES.get(line.name, "its figures say nothing of such cases")
            if "ED" in missing and line.name not in ("train", "all", "valid"):
                consequence = WITHOUT_ED.get(line.name, WITHOUT_ED["test"])
            detail = f"no {' and no '.join(missing)}"
            findings.append(Finding(f"labels of {line.name}", level, detail, consequence))

    return findings


def _derived_labels(data: Data, evaluation_sets: Sequence[EvaluationSet]) -> Finding:
    """Whether the labels of the embedded cases follow from their stored facts."""
    embedded = [entry for entry in evaluation_sets if entry.source == "embedded"]
    whole = data.model_copy(update={"limits": {}})
    with TemporaryDirectory() as root:
        count, wrong = derive_again(prepare_dataset(whole, Path(root), embedded))

    name = "labels derived again from the stored facts"
    detail = f"{count - len(wrong)} of {count}"
    if not wrong:
        return Finding(name, "ok", detail)
    remedy = f"correct the rules or the knowledge base; first: {wrong[0]}"
    return Finding(name, "error", detail, remedy)


def _try_split(
    data: Data, sources: Sequence[Located], lines: Sequence[SetLine]
) -> tuple[Split, list[Finding]]:
    """The sets into which the project splits a table, or what is given as train, and what copies leave
    of given sets; none where they leave a model nothing to learn from or to be judged by, share
    something, or with too many cases to try.
    """
    learned = [line for line in lines if line.name in (*SETS, "all")]
    name = "the sets without copies" if {*SETS} <= {line.name for line in learned} else "our split"
    if sum(line.rows for line in learned) > MOST_SPLIT:
        remedy = "too many cases to try: `triage data card` splits them, and names what is wrong"
        return {}, [Finding(name, "warning", "not tried", remedy)]

    try:
        split, apart, left_out = limited_sets(data, sources)
        if data.near_copies == "drop":
            evaluation_sets = []
            for source in sources[1:]:
                columns = source.columns
                assert isinstance(columns, EvaluationSet)
                cases = read_set(list(itertools.chain(*source.files.values())), columns)
                evaluation_sets.append((columns, cases))
            check_apart(evaluation_sets, apart, sources)
    except BadInput as error:
        # What lacks a label can still be an evaluation set.
        level: Level = "error" if all(learned[0].labels) else "warning"
        return {}, [Finding(name, level, "cannot be trained on", str(error).removesuffix("."))]

    counts = {name: Counter(case.label for case in cases) for name, cases in split.items()}
    sizes = [f"{name} {n.total():,} ({n['ED']:,} ED)" for name, n in counts.items()]
    findings = [Finding(name, "ok", ", ".join(sizes))]
    if leaving := ", ".join(f"{name} {count}" for name, count in left_out.items() if count):
        findings.insert(0, Finding("copies that leave", "warning", leaving, LEAVES[1]))
    return split, findings


def _certifiable_recall(lines: Sequence[SetLine], split: Split, data: Data) -> Iterator[Finding]:
    """The recall that each scored set could certify at best: no miss among its ED cases.

    Where a grid limits its test set, what remains of it counts. Repeated texts count once.
    """
    cases = {line.name: dict(zip(map(str, LABELS), line.cases, strict=True)) for line in lines}
    if "all" in cases:
        every = cases["all rows as an evaluation set"] = cases.pop("all")
        if split:
            counts = Counter(str(case.label) for case in split["test"])
            cases["our test set"] = {label: counts[label] for label in LABELS}
        else:
            share = split_shares(data)["test"]
            about = {label: round(count * share) for label, count in every.items()}
            cases["our test set (about)"] = about

    for set_name, labels in cases.items():
        limit = data.limits.get("test")
        is_test = set_name in ("test", "our test set", "our test set (about)")
        if is_test and limit and sum(labels.values()) >= limit:
            labels = quotas(labels, limit)
            set_name += f" (limited to {limit})"
        elif set_name in SETS and set_name != "test":
            continue

        name = f"ED recall that {set_name} can certify"
        count = labels["ED"]
        if not count:
            yield Finding(name, "warning", "none: no ED case", "add ED cases")
            continue
        # Rounded down: no more than is certified.
        detail = f"at best {math.floor(1000 * best_bound(count)) / 1000:.3f} ({count} ED cases)"
        if count >= FEWEST_ED_CASES:
            yield Finding(name, "ok", detail)
            continue
        remedy = f"{FEWEST_ED_CASES} ED cases without a miss are the fewest that certify 0.95"
        yield Finding(name, "warning", detail, remedy)
