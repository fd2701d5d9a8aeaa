"""`--hours`: a search asks for as many trials as it can finish, and begins no step past its deadline."""

import pytest

from tasks.search import time_budget
from tasks.search.halving import Halving, Proposal
from tasks.search.objective import SearchObjective
from tasks.search.time_budget import TimeBudget
from tasks.search.trial import Reached, Trial

HALVING = Halving((20, 60, 160), 0.4)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time_budget.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def search(clock: Clock, hours: float, seconds_per_update: float, most: int = 1000) -> list[Trial]:
    """The trials of a search whose updates take so long; the lower its number, the better a trial."""
    budget = TimeBudget.of(hours)
    trials = []
    trial_count = most
    while move := HALVING.next_move(trials, trial_count):
        if isinstance(move, Proposal):
            if budget.allows(HALVING, trials):
                trials.append(Trial(len(trials), {}, "t", (), None, 160, SearchObjective("validation value")))
            else:
                trial_count = len(trials)
            continue
        if budget.is_over:
            break

        trial = trials[move.number]
        update = HALVING.rungs[move.rung]
        seconds = (update - trial.update) * seconds_per_update
        clock.now += seconds
        reached = Reached(update, float(trial.number), 0.0, seconds, seconds)
        trials[move.number] = Trial(
            trial.number, {}, "t", (*trial.rungs, reached), None, 160, SearchObjective("validation value")
        )

    return trials


@pytest.mark.parametrize(("hours", "pace"), [(1, 1.0), (1, 0.5), (8, 3.0), (0.2, 1.0)])
def test_what_is_begun_is_finished_in_time_and_there_is_no_room_for_many_more(clock, hours, pace):
    trials = search(clock, hours, pace)
    assert HALVING.next_move(trials, len(trials)) is None, "every trial is where it should be"
    assert clock.now <= 1000 + 3600 * hours
    assert HALVING.updates(len(trials) + 1) * pace > 3600 * hours, "one more would not fit"


def test_a_search_without_time_begins_nothing_and_one_without_hours_is_ended_by_its_trials(clock):
    budget = TimeBudget.of(1e-9)
    clock.now += 1
    assert budget.is_over and not budget.allows(HALVING, [])
    assert not TimeBudget.of(None).is_over and TimeBudget.of(None).allows(HALVING, [])


def test_a_step_that_takes_longer_than_expected_is_the_last_one(clock):
    trials = search(clock, 1, 1.0)
    clock.now = 1000.0
    slow = search(clock, 1, 600.0)
    assert len(slow) == 1 and len(slow[0].rungs) == 1 and len(trials) > 20
