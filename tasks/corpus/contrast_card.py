"""The section of the data card on the contrast cases: what train teaches by them, and how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.corpus.case import Case
from tasks.corpus.vignettes.contrast.bank import Learner, bank_digest, teaching_bank
from tasks.corpus.vignettes.contrast.cases import CONTRAST_VERSION, KINDS
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
- Wordings: {wordings} (contrast cases {version}, words {digest})."""


def contrast_card(sets: Mapping[str, Sequence[Case]]) -> str:
    """The section as Markdown, for sets that hold contrast cases."""
    return CONTRAST.format(
        table="\n".join(_table(sets)),
        wordings="; ".join(f"{_wordings(learner)} in {learner}" for learner in LEARNERS),
        version=CONTRAST_VERSION,
        digest=bank_digest("teaching")[:12],
    )


def _table(sets: Mapping[str, Sequence[Case]]) -> list[str]:
    lines = [f"| set | kind | cases | {' | '.join(LABELS)} | problems |", "|" + "---|" * 7]
    for name in LEARNERS:
        for kind in KINDS:
            cases = [case for case in sets[name] if case.subgroup.get("kind") == kind]
            labels = Counter(case.label for case in cases)
            counts = " | ".join(str(labels[label]) for label in LABELS)
            problems = len({case.group for case in cases})
            lines.append(f"| {name} | {kind} | {len(cases)} | {counts} | {problems} |")
    return lines


def _wordings(learner: Learner) -> str:
    bank = teaching_bank(learner)
    flags = [*bank.flag.values()]
    alarms = sum(len(words.note) + len(words.say) + len(words.deny) for words in flags)
    frame = bank.frame
    elsewhere = sum(len(words.other) for words in flags)
    elsewhere += len(frame.others) + len(frame.past) + len(frame.imagined)
    return (
        f"{alarms} of {len(flags)} alarms, {len(frame.lists)} lists, {elsewhere} of alarms elsewhere, "
        f"{len(frame.figures)} figures of speech, {len(frame.fear)} of fear and {len(frame.ease)} of ease"
    )
