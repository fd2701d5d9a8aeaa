"""The sections of the data card on contrast cases and on the second adversarial set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.corpus.case import Case
from tasks.corpus.vignettes.adversarial import ADVERSARIAL_VERSION, BANKS, adversarial_records
from tasks.corpus.vignettes.contrast.bank import Learner, bank_digest, read_bank, teaching_bank
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION, KINDS
from tasks.corpus.vignettes.generator import Record
from tasks.corpus.vignettes.reader_check import describe_checks_of
from tasks.spec import LABELS

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
        wordings="; ".join(f"{_wordings(learner)} in {learner}" for learner in LEARNERS),
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
        cores = len({_core(record) for record in kind_records})
        deciding = len({(record.facts.problem, record.verdict.rule) for record in kind_records})
        lines.append(
            f"| {kind} | {len(kind_records)} | {counts} | {groups} | {cores} | {deciding} |"
        )

    return lines


def _core(record: Record) -> tuple[object, ...]:
    """The facts that a case is about: two cases with one core differ in frame and person."""
    facts = record.facts
    return facts.problem, record.verdict.rule, facts.red, facts.amber, facts.mild


def _wordings(learner: Learner) -> str:
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
