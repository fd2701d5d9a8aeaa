"""How long a step may take before it counts as hanging."""

from __future__ import annotations

from pydantic import Field

from tasks.spec.base import Strict


class TimeLimit(Strict):
    """How long a step may take before it is ended and tried again, a training from its checkpoint.

    It decides no result.
    """

    factor: float = Field(
        default=10,
        ge=1,
        description="multiple of the plan's estimate, made without the speed probe",
    )
    floor_seconds: float = Field(
        default=3600, gt=0, description="minimum time limit, whatever the plan expects"
    )

    def seconds(self, expected_seconds: float) -> float:
        """The limit of a step that is expected to take `expected_seconds` seconds."""
        return max(self.floor_seconds, self.factor * expected_seconds)
