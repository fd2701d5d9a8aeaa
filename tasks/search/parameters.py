"""Searched settings as Optuna knows them, and values as both sides write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection

from tasks.search.objective import SearchObjective
from tasks.search.space import Space, Value, Values
from tasks.spec import Range, Searched, canonical_json

DIGITS = 3  # significant ones of a proposed real number


def direction(objective: SearchObjective) -> StudyDirection:
    return StudyDirection.MAXIMIZE if objective.is_higher_better else StudyDirection.MINIMIZE


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The searched settings as Optuna knows them."""
    return {key: _distribution(searched) for key, searched in space.settings.items()}


def stored_values(values: Values) -> dict[str, str | int | float | bool]:
    """Values as Optuna takes them."""
    return {key: _stored(value) for key, value in values.items()}


def values_of(space: Space, params: Mapping[str, Any]) -> dict[str, Value]:
    """The values that Optuna's parameters stand for."""
    return {key: _read(searched, params[key]) for key, searched in space.settings.items()}


def rounded(space: Space, values: Values) -> dict[str, Value]:
    """Proposed values, real numbers as one would write them."""
    return {key: _rounded(space.settings[key], value) for key, value in values.items()}


def _distribution(searched: Searched) -> BaseDistribution:
    if not isinstance(searched, Range):
        return CategoricalDistribution([_stored(value) for value in searched])
    if isinstance(searched.low, int) and isinstance(searched.high, int):
        return IntDistribution(searched.low, searched.high, log=searched.log)
    return FloatDistribution(searched.low, searched.high, log=searched.log)


def _stored(value: Value) -> str | int | float | bool:
    """A value as Optuna takes it: lists and tables as JSON."""
    return value if isinstance(value, str | int | float | bool) else canonical_json(value)


def _read(searched: Searched, stored: Any) -> Value:
    if isinstance(searched, Range):
        return stored
    return next(value for value in searched if _stored(value) == stored)


def _rounded(searched: Searched, value: Value) -> Value:
    if not isinstance(searched, Range) or not isinstance(value, float):
        return value
    # Rounding may step over an end of the range.
    return min(max(float(f"{value:.{DIGITS}g}"), searched.low), searched.high)
