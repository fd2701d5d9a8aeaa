"""Proposals of a search: a function of its seed, a trial's number, and the values of earlier trials
at their first rung, which a study in memory knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState, create_trial

from tasks.search.objective import SearchObjective
from tasks.search.parameters import direction, distributions, rounded, stored_values, values_of
from tasks.search.space import Space, Values
from tasks.search.trial import Trial
from tasks.spec import canonical_json

ATTEMPTS = 40  # at a proposal that no earlier trial has; the second half is random


@dataclass(frozen=True)
class Proposals:
    """What a search tries next in a space."""

    space: Space
    objective: SearchObjective

    def after(self, trials: Sequence[Trial]) -> Values | None:
        """The values of the next trial; None where the space has no other recipe left."""
        tried_values = {canonical_json(trial.values) for trial in trials}
        if len(tried_values) >= self.space.size:
            return None

        first = self.space.starting_values()
        if not trials and first is not None:
            return first

        view = self._view(trials)
        for attempt in range(ATTEMPTS):
            view.sampler = self._sampler(len(trials), attempt)
            proposed = view.ask(distributions(self.space))
            values = rounded(self.space, values_of(self.space, proposed.params))
            # As failed: the sampler learns nothing from a trial that was only asked for.
            view.tell(proposed, state=TrialState.FAIL)
            if canonical_json(values) not in tried_values:
                return values

        return None

    def _view(self, trials: Sequence[Trial]) -> optuna.Study:
        """A study in memory of the trials at their first rung, where a failed one is the worst."""
        view = optuna.create_study(direction=direction(self.objective))
        values = [trial.rungs[0].value for trial in trials if trial.rungs]
        worst = self.objective.worse_than(values)

        for trial in trials:
            view.add_trial(
                create_trial(
                    params=stored_values(trial.values),
                    distributions=distributions(self.space),
                    value=trial.rungs[0].value if trial.rungs else worst,
                )
            )

        return view

    def _sampler(self, number: int, attempt: int) -> BaseSampler:
        search = self.space.search
        entropy = np.random.SeedSequence([search.seed, number, attempt])
        seed = int(entropy.generate_state(1)[0])
        if attempt >= ATTEMPTS // 2:
            return RandomSampler(seed)
        return TPESampler(n_startup_trials=search.start_up_trials, seed=seed)
