"""The data card in Markdown: what a dataset is, how large, from where, and what it cannot show.

Its words are in `card.toml`; here are the figures in them.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.corpus.case import Case
from tasks.corpus.manifest import DatasetManifest
from tasks.corpus.vignettes.adversarial import ADVERSARIAL_VERSION, BANKS, adversarial_records
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION, KINDS
from tasks.corpus.vignettes.generator import GENERATOR_VERSION, Record
from tasks.corpus.vignettes.knowledge_base import (
    FURTHER,
    REGISTERED_FOLDER,
    Learner,
    bank_digest,
    further_problems,
    general,
    knowledge_digest,
    problems,
    read_bank,
    registered_problems,
    teaching_bank,
)
from tasks.corpus.vignettes.label_rules import (
    CHILD_VITALS,
    IMMUNE_FEVER,
    NEWS2,
    WORSE_LATER,
    YOUNG_FEVER,
)
from tasks.corpus.vignettes.reader_check import describe_all_checks, describe_checks_of
from tasks.spec import LABELS, Columns

WORDS = tomllib.loads(Path(__file__).with_name("card.toml").read_text(encoding="utf-8"))
LEARNERS: tuple[Learner, ...] = ("train", "valid")


def data_card(
    dataset: DatasetManifest, test: Sequence[Record] = (), sections: Sequence[str] = ()
) -> str:
    """The data card of a dataset, as Markdown.

    `test`: the records of an embedded test set. `sections`: on what only some datasets hold.
    """
    cases = dataset.sets["test"].labels["ED"]
    certifiable = "The test set has no ED case: it can certify no ED recall."
    if cases:
        certifiable = (
            f"The test set has {cases} ED cases: without a single miss, the exact 95 % interval of "
            f"ED recall begins at {best_bound(cases):.3f}, which is the most that it can certify."
        )

    table = [f"| set | cases | {' | '.join(LABELS)} | groups | SHA-256 |", "|" + "---|" * 7]
    external = []
    for name, entry in dataset.sets.items():
        counts = [entry.labels[label] for label in LABELS]
        labels = " | ".join(f"{count} ({count / entry.cases:.0%})" for count in counts)
        groups = entry.groups or "none"
        table.append(f"| {name} | {entry.cases} | {labels} | {groups} | {entry.digest[:12]} |")
        if entry.external:
            external.append(f"- `{name}`: `{entry.source}`{_origin(entry.origin)}")

    if external:
        purpose = "Scored after training; never used for training, thresholds or choosing."
        external = ["## Evaluation sets", "", purpose, "", *external]

    own = WORDS["own"].format(
        source=dataset.source,
        origin=_origin(dataset.origin),
        mapping=_mapping(dataset.columns),
        split=dataset.split,
    )
    lines = [
        f"# Data card: {dataset.source}",
        "",
        *table,
        "",
        certifiable,
        "",
        _embedded(test) if dataset.is_embedded else own,
        *(f"{section}\n" for section in sections),
        *external,
        "",
        f"Split and draws: seed {dataset.seed}. Research software, not a medical device.",
    ]
    return "\n".join(lines) + "\n"


def _mapping(columns: Columns) -> str:
    """Which columns give what, and which words mean which label."""
    group = columns.group_column or "group"
    parts = [
        f"text from `{columns.text_column}`",
        f"label from `{columns.label_column}`",
        f"group from `{group}`{'' if columns.group_column else ', where there is one'}",
    ]
    if columns.id_column:
        parts.append(f"id from `{columns.id_column}`")
    if columns.rationale_column:
        parts.append(f"rationale from `{columns.rationale_column}`")

    parts += [f"subgroup from `{column}`" for column in columns.subgroup_columns]

    words = [f"`{word}` for {label}" for word, label in columns.labels.items()]
    more = f", and {', '.join(words)}" if words else ""
    return f"Columns: {', '.join(parts)}. Labels are ED, GP and HOME, in any case{more}."


def best_bound(cases: int) -> float:
    """Lower end of the exact 95 % interval of a recall with no miss in `cases` >= 1 cases.

    Formula: Clopper and Pearson (1934).
    """
    return float(0.025 ** (1 / cases))


def _origin(origin: Mapping[str, str]) -> str:
    return f", on the Hub at commit `{origin['commit']}`" if origin else ""


def _embedded(test: Sequence[Record]) -> str:
    """The card's sections on the embedded cases, as Markdown."""
    all_problems = problems().values()
    holders = (general(), *all_problems)
    facts = [fact for of in holders for fact in of.all_facts]
    counts = [len(fact.say) for fact in facts if fact.say]
    denials = [len(fact.deny) for fact in facts if fact.deny]
    wordings = (
        f"Each of {len(facts)} facts is said in {min(counts)} to {max(counts)} wordings "
        f"({sum(counts)} in all; a nurse's note is one more), and each of the {len(denials)} that "
        f"can be denied in {min(denials)} to {max(denials)} ({sum(denials)} in all). Cases of a "
        "set repeat clauses: their number overstates their variety."
    )
    # That the rules, the problems and their flags name.
    sources = [NEWS2, CHILD_VITALS, YOUNG_FEVER, IMMUNE_FEVER, WORSE_LATER]
    sources += [problem.source for problem in all_problems]
    flags = [flag for of in holders for flag in (*of.red.values(), *of.amber.values())]
    references = _references([*sources, *(flag.source for flag in flags if flag.source)])

    return WORDS["embedded"].format(
        problems=len(all_problems),
        systems=len({problem.system for problem in all_problems}),
        sources=len(references),
        generator=GENERATOR_VERSION,
        knowledge=knowledge_digest()[:12],
        reader=describe_all_checks(),
        wordings=wordings,
        shared=_shared(test),
        lasting=sum(problem.lasting_decides for problem in all_problems),
        worsening=sum(not problem.worsens_first for problem in all_problems),
        references="; ".join(references),
    )


def _shared(test: Iterable[Record]) -> str:
    """ED and GP cases of a test set that a fact decides which train has in the same words."""
    shared: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for record in test:
        label = record.case.label
        if label != "HOME":
            kind, _, name = record.verdict.rule.partition(":")
            total[label] += 1
            shared[label] += kind in ("red", "amber") and name in getattr(general(), kind)

    parts = [f"{shared[label]} of {total[label]} {label} cases" for label in LABELS[:2]]
    return f"they decide {' and '.join(parts)} of the test set"


def _references(sources: Iterable[str]) -> list[str]:
    """Every public reference that sources name, once, by name; 'NG109 and NG111' count as one."""
    references = {part.strip() for source in sources for part in source.split(";")}
    return sorted(references, key=str.casefold)


def copies_card(left_out: Mapping[str, int]) -> str:
    """The section as Markdown, for sets that copies have left. `left_out`: their number by set."""
    counts = ", ".join(f"{name} {count}" for name, count in left_out.items())
    return (
        f"## Copies\n\nLeft out, as the same text or nearly it is in a set that keeps it: {counts}."
    )


def further_card(train: Sequence[Case]) -> str:
    """The section as Markdown, for a train set with cases about further problems."""
    cases = [case for case in train if case.group in further_problems()]
    labels = Counter(case.label for case in cases)
    names = {str(case.group) for case in cases}

    return WORDS["further"].format(
        cases=f"{len(cases):,}",
        labels=", ".join(f"{labels[label]:,} {label}" for label in LABELS),
        problems=len(names),
        digest=knowledge_digest(FURTHER)[:12],
        references="; ".join(_references(further_problems()[name].source for name in names)),
        reader=describe_checks_of("further"),
    )


def contrast_card(sets: Mapping[str, Sequence[Case]]) -> str:
    """The section as Markdown, for sets that hold contrast cases."""
    lines = [f"| set | kind | cases | {' | '.join(LABELS)} | problems |", "|" + "---|" * 7]
    for name in LEARNERS:
        for kind in KINDS:
            cases = [case for case in sets[name] if case.subgroup.get("kind") == kind]
            problems = len({case.group for case in cases})
            lines.append(f"| {name} | {kind} | {len(cases)} | {_counts(cases)} | {problems} |")

    return WORDS["contrast"].format(
        table="\n".join(lines),
        wordings="; ".join(f"{_taught_wordings(learner)} in {learner}" for learner in LEARNERS),
        version=CONTRAST_VERSION,
        digest=bank_digest("teaching")[:12],
        reader=describe_checks_of("contrast"),
    )


def _counts(cases: Sequence[Case]) -> str:
    """The cells of a table: cases per label."""
    labels = Counter(case.label for case in cases)
    return " | ".join(str(labels[label]) for label in LABELS)


def _taught_wordings(learner: Learner) -> str:
    bank = teaching_bank(learner)
    flags = bank.flag.values()
    alarms = sum(len(words.note) + len(words.say) + len(words.deny) for words in flags)
    frame = bank.frame
    elsewhere = sum(len(words.other) for words in flags)
    elsewhere += len(frame.others) + len(frame.past) + len(frame.imagined)

    return (
        f"{alarms} of {len(flags)} alarms, {len(frame.lists)} lists, {elsewhere} of alarms "
        f"elsewhere, {len(frame.figures)} figures of speech, {len(frame.fear)} of fear and "
        f"{len(frame.ease)} of ease"
    )


def adversarial_card(name: str, seed: int) -> str:
    """The section on an adversarial set that has a bank of its own, as Markdown."""
    records = adversarial_records(seed, name)
    bank = read_bank(BANKS[name])
    return WORDS["adversarial"].format(
        name=name,
        cases=f"{len(records):,}",
        problems=len({record.facts.problem for record in records}),
        pictures=sum(map(len, bank.picture.values())),
        table="\n".join(_kinds(records)),
        lists=len(bank.frame.lists),
        flags=sum(len(words.note) + len(words.deny) for words in bank.flag.values()),
        fear=len(bank.frame.fear),
        ease=len(bank.frame.ease),
        complaints=sum(map(len, bank.complaint.values())),
        version=ADVERSARIAL_VERSION,
        digest=bank_digest(BANKS[name])[:12],
        reader=describe_checks_of(name),
    )


def familiar_card(cases: Sequence[Case]) -> str:
    """The section on the set about familiar problems, as Markdown."""
    problems_of_set = len({case.group for case in cases})
    return WORDS["familiar"].format(cases=f"{len(cases):,}", problems=problems_of_set)


def registered_card(cases: Sequence[Case]) -> str:
    """The section on the set about problems of its own, as Markdown."""
    names = {str(case.group) for case in cases}
    return WORDS["registered"].format(
        cases=f"{len(cases):,}",
        problems=len(names),
        digest=knowledge_digest(REGISTERED_FOLDER)[:12],
        references="; ".join(_references(registered_problems()[name].source for name in names)),
        reader=describe_checks_of("test_registered"),
    )


def _kinds(records: Sequence[Record]) -> list[str]:
    header = f"| kind | cases | {' | '.join(LABELS)} | groups | cores | deciding facts |"
    lines = [header, "|" + "---|" * 8]
    for kind in dict.fromkeys(record.case.subgroup["kind"] for record in records):
        of_kind = [record for record in records if record.case.subgroup["kind"] == kind]
        counts = _counts([record.case for record in of_kind])
        # Two cases with the same facts differ in frame and person.
        facts = [(record.facts, record.verdict.rule) for record in of_kind]
        groups = len({of.problem for of, _ in facts})
        cores = len({(of.problem, rule, of.red, of.amber, of.mild) for of, rule in facts})
        deciding = len({(of.problem, rule) for of, rule in facts})
        lines.append(f"| {kind} | {len(of_kind)} | {counts} | {groups} | {cores} | {deciding} |")

    return lines
