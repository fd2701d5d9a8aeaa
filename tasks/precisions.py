"""Precisions as data: how the weights of a variant are stored. Adding one
is adding a row to `BUILT_IN`.

A leaf as tasks/spec is: nothing here imports another part of the project, or MLX.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


@dataclass(frozen=True)
class Mode:
    """What a quantisation mode of mlx.core.quantize allows.

    `bytes_per_group`: those stored beside the values of a group, in bfloat16 where the mode has
    scales of the weights' type.
    """

    bits: tuple[int, ...]
    group_sizes: tuple[int, ...]
    bytes_per_group: int


MODES = {
    "affine": Mode(bits=(2, 3, 4, 5, 6, 8), group_sizes=(32, 64, 128), bytes_per_group=4),
    "mxfp4": Mode(bits=(4,), group_sizes=(32,), bytes_per_group=1),
    "mxfp8": Mode(bits=(8,), group_sizes=(32,), bytes_per_group=1),
    "nvfp4": Mode(bits=(4,), group_sizes=(16,), bytes_per_group=1),
}
# mlx-lm's own mixtures, as (low, high) bits.
MIXTURES = ((2, 6), (3, 4), (3, 6), (4, 6))
BF16 = "bf16"
UNPACKED = "unpacked"  # bfloat16 of weights that were quantised before they were fetched


class Precision(BaseModel):
    """How the weights of a variant are stored, and how it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._]*$",
        max_length=30,
        description="name of the precision in ids and reports",
    )
    mode: Literal["unquantised", "affine", "mxfp4", "mxfp8", "nvfp4"] = Field(
        default="affine", description="quantisation mode of MLX"
    )
    bits: int | None = Field(default=None, description="bits of a value, without its scale")
    high_bits: int | None = Field(
        default=None,
        description="bits of the matrices that mlx-lm's mixed recipe of these two widths favours",
    )
    group_size: int | None = Field(
        default=None,
        description="values that share a scale; without it that of the mode, or for `affine`"
        " `training.group_size`",
    )
    # Learned precisions will need calibration text too.
    needs: Literal["weights"] = Field(default="weights", description="what it is made from")

    @property
    def is_quantised(self) -> bool:
        return self.mode != "unquantised"

    @property
    def mixture(self) -> str | None:
        """The name of mlx-lm's mixed recipe; None where all matrices have the same width."""
        return f"mixed_{self.bits}_{self.high_bits}" if self.high_bits else None

    @property
    def groups_follow_the_grid(self) -> bool:
        """Whether `training.group_size` decides how many values share a scale."""
        return self.mode == "affine" and self.group_size is None

    def group_size_in(self, training_group_size: int) -> int | None:
        """Values that share a scale, where the grid's setting is `training_group_size`; None for
        weights that are not quantised.
        """
        if not self.is_quantised:
            return None
        if self.groups_follow_the_grid:
            return training_group_size
        return self.group_size or MODES[self.mode].group_sizes[0]

    @model_validator(mode="after")
    def _is_one_that_mlx_can_make(self) -> Precision:
        if not self.is_quantised:
            if self.bits or self.high_bits or self.group_size:
                raise ValueError(
                    f"the precision {self.name} is unquantised and has no bits, high_bits or "
                    "group_size; leave them out"
                )
            return self

        mode = MODES[self.mode]
        if self.bits not in mode.bits:
            raise ValueError(
                f"the precision {self.name} has {self.bits or 'no'} bits, and the mode "
                f"{self.mode} allows {_listed(mode.bits)}"
            )
        if self.group_size is not None and self.group_size not in mode.group_sizes:
            raise ValueError(
                f"the precision {self.name} has the group size {self.group_size}, and the mode "
                f"{self.mode} allows {_listed(mode.group_sizes)}"
            )
        if self.high_bits is not None and (self.bits, self.high_bits) not in MIXTURES:
            pairs = ", ".join(f"{low} and {high}" for low, high in MIXTURES)
            raise ValueError(
                f"the precision {self.name} mixes {self.bits} and {self.high_bits} bits, and "
                f"mlx-lm has recipes for {pairs}"
            )

        return self


def _listed(values: Iterable[int]) -> str:
    *first, last = (str(value) for value in values)
    return f"{', '.join(first)} or {last}" if first else f"{last} only"


BUILT_IN = {
    precision.name: precision
    for precision in (
        Precision(name=BF16, mode="unquantised"),
        Precision(name="8bit", bits=8),
        Precision(name="6bit", bits=6),
        Precision(name="4bit", bits=4),
        Precision(name="3bit", bits=3),
        Precision(name="2bit", bits=2),
        Precision(name="mxfp8", mode="mxfp8", bits=8),
        Precision(name="mxfp4", mode="mxfp4", bits=4),
        Precision(name="nvfp4", mode="nvfp4", bits=4),
        Precision(name="mixed_4_6", bits=4, high_bits=6),
    )
}


def of_bits(bits: int | None) -> Precision:
    """The plain precision of a width, which the shorthand `bits` means; None: bfloat16."""
    return BUILT_IN[f"{bits}bit" if bits else BF16]


def named(name: str, precisions: dict[str, Precision] = BUILT_IN) -> Precision:
    """A precision by its name. Raises ValueError with the nearest name for an unknown one."""
    if name in precisions:
        return precisions[name]
    near = difflib.get_close_matches(name, precisions, n=1, cutoff=0.5)
    suggestion = f"did you mean {near[0]!r}? Known are" if near else "known are"
    raise ValueError(f"unknown precision {name!r}; {suggestion} {', '.join(precisions)}")


def with_precision_for_bits(values: Any) -> Any:
    """Raw values in which `bits`, as earlier versions wrote it, has become a precision."""
    if isinstance(values, dict) and "bits" in values and "precision" not in values:
        values = dict(values)
        values["precision"] = of_bits(values.pop("bits"))
    return values


def quantised_source_bits(original_precision: str | None) -> int | None:
    """The bits of weights that were quantised before they were fetched, e.g. 4 for `Q4_1`; None for
    others.
    """
    digits = re.search(r"Q(\d)", original_precision or "")
    return int(digits[1]) if digits else None


def title_of(name: str, original_precision: str | None) -> str:
    """A precision as tables name it: bfloat16 of weights that were quantised before is unpacked."""
    if name == BF16 and quantised_source_bits(original_precision):
        return f"{UNPACKED} {original_precision}"
    return name


def reference_note(original_precision: str | None) -> str | None:
    """What must stand beside each comparison with a reference that was quantised before."""
    bits = quantised_source_bits(original_precision)
    if bits is None:
        return None
    beyond = 8 if bits < 8 else 16
    return f"reference already {bits}-bit: nothing follows about {beyond} bits or more"
