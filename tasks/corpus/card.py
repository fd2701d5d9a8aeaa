"""The data card in Markdown: what a dataset is, how large, from where, and what it cannot show.

Its texts are part of the digest of every dataset, and so stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tasks.corpus.case import Case
from tasks.corpus.manifest import Dataset
from tasks.corpus.vignettes.adversarial import ADVERSARIAL_VERSION, BANKS, adversarial_records
from tasks.corpus.vignettes.contrast.bank import Learner, bank_digest, read_bank, teaching_bank
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION, KINDS
from tasks.corpus.vignettes.generator import GENERATOR_VERSION, Record, embedded_records
from tasks.corpus.vignettes.knowledge_base import (
    further_digest,
    further_problems,
    general,
    knowledge_digest,
    problems,
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

OWN = """\
## What it is

Cases read from `{source}`{origin}. What they are, who labelled them and how well is known to their owner alone; this
project checked their form, not their truth.

## How it was read

{mapping}

{split}

## Limits

- Cases without groups are taken for independent; intervals are then too narrow if several describe one patient or topic.
- Rationales, where there are any, are kept in this folder and are never part of a prompt.
"""


def data_card(dataset: Dataset, sections: Sequence[str] = ()) -> str:
    """The data card of a dataset, as Markdown.

    `sections`: on what only some datasets hold.
    """
    own = OWN.format(
        source=dataset.source,
        origin=_origin(dataset.origin),
        mapping=_mapping(dataset.columns),
        split=dataset.split,
    )
    external = [
        f"- `{name}`: `{entry.source}`{_origin(entry.origin)}"
        for name, entry in dataset.sets.items()
        if entry.external
    ]
    if external:
        purpose = "Scored after training; never used for training, thresholds or choosing."
        external = ["## Evaluation sets", "", purpose, "", *external]

    cases = dataset.sets["test"].labels["ED"]
    certifiable = "The test set has no ED case: it can certify no ED recall."
    if cases:
        certifiable = (
            f"The test set has {cases} ED cases: without a single miss, the exact 95 % interval of "
            f"ED recall begins at {best_bound(cases):.3f}, which is the most that it can certify."
        )

    table = [f"| set | cases | {' | '.join(LABELS)} | groups | SHA-256 |", "|" + "---|" * 7]
    for name, entry in dataset.sets.items():
        counts = [entry.labels[label] for label in LABELS]
        labels = " | ".join(f"{count} ({count / entry.cases:.0%})" for count in counts)
        groups = entry.groups or "none"
        table.append(f"| {name} | {entry.cases} | {labels} | {groups} | {entry.digest[:12]} |")

    lines = [
        f"# Data card: {dataset.source}",
        "",
        *table,
        "",
        certifiable,
        "",
        embedded_card() if dataset.is_embedded else own,
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


NOTICE = "synthetic: for building and comparing, not evidence about patients"
# The text is part of the digest of every embedded dataset, and so stays as it is.
EMBEDDED = """\
## What it is

Vignettes written by a generator from a knowledge base in plain data files ({problems} presenting problems in {systems}
fields, generator {generator}, knowledge {knowledge}). {notice}.

A case is drawn as facts: age, sex, flags that are present or said to be absent, illnesses and medicines, duration,
trend, severity, vital signs. Rules turn the facts into the label, never the problem's name: each problem has cases of
every label. The text is written from the facts in several voices; label, rule, problem and subgroup are never shown.

## Rules

The first that fires decides: a red flag (ED); a vital sign in the emergency range, NEWS2 or children's limits (ED); a
fever under three months, or with an immune system that medicine holds down (ED); an age or illness that makes the
problem an emergency (ED); an amber flag (GP); an age or illness that needs a doctor (GP); longer than the natural
course without getting better (GP; in {lasting} problems, the others may last); severe in spite of self-care (GP);
getting worse at 65 or older, or at any age in the {worsening} problems that are not expected to get worse before they
get better (GP); else HOME. Red and amber flags follow public guidance, named for each problem: {sources} distinct
references, most often NICE guidelines and CKS, NHS pages, SIGN, RCOG and Resuscitation Council UK; they are listed
below. Facts only, in the project's own words.

## How far the labels can be trusted

Deriving the label again from the stored facts (`facts.jsonl` beside the sets) gives the stored label for every case: a
check by `triage data check embedded`, and a test. {reader}

## Limits

- The wording is a generator's: short clauses in random order, some stilted. Real messages ramble, omit and mislead.
- {wordings}
- A case has one complaint; severity, duration and trend are drawn with little regard to each other.
- The rules are those of British primary care guidance, simplified; other systems triage otherwise.
- Problems of one set are absent from the others, so results are about new problems, not about rephrased known ones. But
  some flags (collapse, weight loss) can join any problem in the same words: {shared}.
- `test_adversarial` uses the test set's problems: it is a second look at them, not an independent sample.

## Sources

{references}.
"""


def embedded_card() -> str:
    """The card's sections on the embedded cases, as Markdown."""
    all_problems = problems().values()
    references = references_in(_sources())

    return EMBEDDED.format(
        problems=len(all_problems),
        systems=len({problem.system for problem in all_problems}),
        sources=len(references),
        generator=GENERATOR_VERSION,
        knowledge=knowledge_digest()[:12],
        notice=NOTICE.capitalize(),
        reader=describe_all_checks(),
        wordings=_wordings(),
        shared=_shared(),
        lasting=sum(problem.lasting_decides for problem in all_problems),
        worsening=sum(problem.worse_decides for problem in all_problems),
        references="; ".join(references),
    )


def _wordings() -> str:
    """In how many wordings the facts of the knowledge base are said and denied."""
    knowledge = general()
    kinds = [knowledge.red, knowledge.amber, knowledge.mild]
    for problem in problems().values():
        kinds += [problem.red, problem.amber, problem.mild]

    facts = [fact for kind in kinds for fact in kind.values()]
    counts = [len(fact.say) for fact in facts if fact.say]
    denials = [len(fact.deny) for fact in facts if fact.deny]

    return (
        f"Each of {len(facts)} facts is said in {min(counts)} to {max(counts)} wordings "
        f"({sum(counts)} in all; a nurse's note is one more), and each of the {len(denials)} that "
        f"can be denied in {min(denials)} to {max(denials)} ({sum(denials)} in all). Cases of a "
        "set repeat clauses: their number overstates their variety."
    )


def _shared() -> str:
    """ED and GP cases of the test set that a fact decides which train has in the same words."""
    shared: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for record in embedded_records():
        label = record.case.label
        if record.set != "test" or label == "HOME":
            continue

        kind, _, name = record.verdict.rule.partition(":")
        general_flags = {"red": general().red, "amber": general().amber}
        total[label] += 1
        shared[label] += name in general_flags.get(kind, {})

    parts = [f"{shared[label]} of {total[label]} {label} cases" for label in LABELS[:2]]
    return f"they decide {' and '.join(parts)} of the standard test set"


def references_in(sources: Iterable[str]) -> list[str]:
    """Every public reference that sources name, once, by name; 'NG109 and NG111' count as one."""
    references = {part.strip() for source in sources for part in source.split(";")}
    return sorted(references, key=str.casefold)


def _sources() -> Iterator[str]:
    """The sources that the rules, the problems and their flags name."""
    yield from (NEWS2, CHILD_VITALS, YOUNG_FEVER, IMMUNE_FEVER, WORSE_LATER)
    flags = [*general().red.values(), *general().amber.values()]
    for problem in problems().values():
        yield problem.source
        flags += [*problem.red.values(), *problem.amber.values()]

    yield from (flag.source for flag in flags if flag.source)


FURTHER = """\
## Further problems

{cases} cases of `train` ({labels}) are about {problems} further problems, which no other set has (knowledge {digest}). Their
labels follow from the facts by the same rules. No wording of theirs is that of a held-out problem, or nearly (a test
compares them).

Further references, named by a language model and not looked up: {references}.

{reader}"""


def further_card(train: Sequence[Case]) -> str:
    """The section as Markdown, for a train set that holds such cases."""
    cases = [case for case in train if case.group in further_problems()]
    labels = Counter(case.label for case in cases)
    problems = {str(case.group) for case in cases}
    sources = (further_problems()[problem].source for problem in problems)

    return FURTHER.format(
        cases=f"{len(cases):,}",
        labels=", ".join(f"{labels[label]:,} {label}" for label in LABELS),
        problems=len(problems),
        digest=further_digest()[:12],
        references="; ".join(references_in(sources)),
        reader=describe_checks_of("further"),
    )


LEARNERS: tuple[Learner, ...] = ("train", "valid")
CONTRAST = """\
## Contrast cases

`train` teaches what takes an alarm back, and so do the cases by which `valid` chooses a checkpoint: a model trained here
has seen the kinds of `test_adversarial`, though about other problems and in other words (a test compares them). A pair is
about one problem and told in one frame: case a is ED, most often by a red flag, and in case b (GP or HOME) that alarm is
taken back; labels follow from the facts by the same rules. Cases of valid use wordings of their own. `calibration` and
`test` hold none, so that thresholds are chosen on cases of the kind that they are judged on.

{table}

- `negated`: in a list of what is absent; `elsewhere`: somebody else's, long over, or only imagined; `figurative`: figures
  of speech with alarming words; `frightened`, `understated`: the tone of the writer, which says nothing about the label.
- Wordings: {wordings} (contrast cases {version}, words {digest}).

{reader}"""
ADVERSARIAL = """\
## {name}

{cases} cases about the {problems} problems of `test`, of the kinds of `test_adversarial` and as balanced, in other
words: none of its tones, lists and names of general flags is in the first set or in `train`, and each fact of its problems
has a new most pictorial wording ({pictures} of them; its other wordings are those of `test`). Cases of one problem are one
group and share clauses; cores are cases that differ in their facts.

{table}

- Wordings: {lists} lists, {flags} of general flags called absent, {fear} of fear, {ease} of ease, {complaints} complaints
  (version {version}, words {digest}).

{reader}"""


def contrast_card(sets: Mapping[str, Sequence[Case]]) -> str:
    """The section as Markdown, for sets that hold contrast cases."""
    return CONTRAST.format(
        table="\n".join(_taught(sets)),
        wordings="; ".join(f"{_taught_wordings(learner)} in {learner}" for learner in LEARNERS),
        version=CONTRAST_VERSION,
        digest=bank_digest("teaching")[:12],
        reader=describe_checks_of("contrast"),
    )


def adversarial_card(name: str, seed: int) -> str:
    """The section on an adversarial set that has a bank of its own, as Markdown."""
    records = adversarial_records(seed, name)
    bank = read_bank(BANKS[name])
    flags = bank.flag.values()
    return ADVERSARIAL.format(
        name=name,
        cases=f"{len(records):,}",
        problems=len({record.facts.problem for record in records}),
        pictures=sum(map(len, bank.picture.values())),
        table="\n".join(_kinds(records)),
        lists=len(bank.frame.lists),
        flags=sum(len(words.note) + len(words.deny) for words in flags),
        fear=len(bank.frame.fear),
        ease=len(bank.frame.ease),
        complaints=sum(map(len, bank.complaint.values())),
        version=ADVERSARIAL_VERSION,
        digest=bank_digest(BANKS[name])[:12],
        reader=describe_checks_of(name),
    )


def _taught(sets: Mapping[str, Sequence[Case]]) -> list[str]:
    lines = [f"| set | kind | cases | {' | '.join(LABELS)} | problems |", "|" + "---|" * 7]
    for name in LEARNERS:
        for kind in KINDS:
            cases = [case for case in sets[name] if case.subgroup.get("kind") == kind]
            labels = Counter(case.label for case in cases)
            counts = " | ".join(str(labels[label]) for label in LABELS)
            problems = len({case.group for case in cases})
            lines.append(f"| {name} | {kind} | {len(cases)} | {counts} | {problems} |")

    return lines


def _kinds(records: Sequence[Record]) -> list[str]:
    header = f"| kind | cases | {' | '.join(LABELS)} | groups | cores | deciding facts |"
    lines = [header, "|" + "---|" * 8]
    for kind in dict.fromkeys(record.case.subgroup["kind"] for record in records):
        kind_records = [record for record in records if record.case.subgroup["kind"] == kind]
        labels = Counter(record.case.label for record in kind_records)
        counts = " | ".join(str(labels[label]) for label in LABELS)
        groups = len({record.facts.problem for record in kind_records})
        # Two cases with the same facts differ in frame and person.
        facts = [(record.facts, record.verdict.rule) for record in kind_records]
        cores = len({(of.problem, rule, of.red, of.amber, of.mild) for of, rule in facts})
        deciding = len({(record.facts.problem, record.verdict.rule) for record in kind_records})
        lines.append(
            f"| {kind} | {len(kind_records)} | {counts} | {groups} | {cores} | {deciding} |"
        )

    return lines


def _taught_wordings(learner: Learner) -> str:
    bank = teaching_bank(learner)
    flags = [*bank.flag.values()]
    alarms = sum(len(words.note) + len(words.say) + len(words.deny) for words in flags)
    frame = bank.frame
    elsewhere = sum(len(words.other) for words in flags)
    elsewhere += len(frame.others) + len(frame.past) + len(frame.imagined)

    return (
        f"{alarms} of {len(flags)} alarms, {len(frame.lists)} lists, {elsewhere} of alarms "
        f"elsewhere, {len(frame.figures)} figures of speech, {len(frame.fear)} of fear and "
        f"{len(frame.ease)} of ease"
    )
