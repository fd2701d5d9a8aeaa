"""The `[search]` table: where `triage search` looks for a recipe."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    FiniteFloat,
    StrictInt,
    Tag,
    model_validator,
)

from tasks.spec.base import Fraction, Seed, Strict

# Strict, since 4 and 8 make a range of whole numbers, and 4.0 and 8.0 one of real ones.
End = StrictInt | Annotated[FiniteFloat, Field(strict=True)]


class Range(Strict):
    """Values of a searched setting from `low` to `high`: whole numbers where both ends are whole."""

    low: End = Field(description="smallest value")
    high: End = Field(description="largest value")
    log: bool = Field(default=False, description="search evenly in the logarithm")

    @model_validator(mode="after")
    def _has_values(self) -> Range:
        if self.low >= self.high:
            raise ValueError(
                f"low = {self.low:g} is not below high = {self.high:g}; exchange them, or give a "
                f"list of values, e.g. [{self.low:g}]"
            )
        if self.log and self.low <= 0:
            raise ValueError(f"log = true needs low above 0, and low is {self.low:g}")
        return self


def _is_list(value: Any) -> Any:
    if not isinstance(value, list | tuple):
        raise ValueError(
            "give a list of values, e.g. [1, 2], or a range, e.g. { low = 1, high = 8 }"
        )
    return value


Choices = Annotated[tuple[Any, ...], Field(min_length=1), BeforeValidator(_is_list)]
Searched = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
    # Without it a mistake in a range would also be reported as a mistake in a list.
    Discriminator(lambda value: "range" if isinstance(value, dict | Range) else "choices"),
]


class Search(Strict):
    """Where `triage search` looks for a recipe; no experiment depends on it.

    Besides the keys below the table holds the searched settings, each by its dotted key, with a
    range or a list of choices: `"recipe.learning_rate" = { low = 1e-4, high = 1e-2, log = true }`,
    `"training.num_layers" = [4, 8, 16]`. They are keys of `[[recipe]]`, `[training]` and
    `[prompt]`. Refused are those that decide no training (such as `primary_rule`), the length of
    trials and their pauses (`iterations`, `patience`, `evaluate_every`), or what all trials share
    (`seeds`, `group_size`). `prompt.answers`, `label_weight` and `label_smoothing` change what a
    validation value measures, so a standard recipe that is compared by it cannot search them.
    """

    rungs: tuple[Fraction, ...] = Field(
        default=(0.125, 0.375),
        min_length=1,
        description="shares of a trial's updates after which it pauses, and only the best go on",
    )
    keep: Fraction = Field(
        default=0.4,
        description="share of the trials that go on at each pause: one in two, in three, ...",
    )
    start_up_trials: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="trials before the sampler learns, at random but for the grid's own recipe",
    )
    over_triage: Fraction = Field(
        default=0.3,
        description="over-triage at which the ED recall of a safety recipe on `valid` is taken",
    )
    seed: Seed = Field(default=42, description="seed of the proposals")
    settings: dict[str, Searched] = Field(
        default_factory=dict,
        description="the searched settings; they need not stand in a table of their own",
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, values: Any) -> Any:
        """Moves every other key, and those of the tables that TOML makes of dotted ones, into
        `settings`: whoever knows all settings refuses a misspelt one.
        """
        if not isinstance(values, dict):
            return values

        gathered = {key: value for key, value in values.items() if key in cls.model_fields}
        settings = dict(gathered.get("settings", {}))
        for key, value in values.items():
            is_table = isinstance(value, dict) and value.keys().isdisjoint(Range.model_fields)
            if key not in gathered and is_table and "." not in key:
                settings |= {f"{key}.{name}": item for name, item in value.items()}
            elif key not in gathered:
                settings[key] = value

        return gathered | {"settings": dict(sorted(settings.items()))}

    @model_validator(mode="after")
    def _rungs_rise(self) -> Search:
        if list(self.rungs) != sorted(set(self.rungs)):
            raise ValueError("rungs must rise, e.g. [0.125, 0.375]")
        return self
