"""How near two results must be that are equal but for rounding, on the backend that the tests run on."""

from tasks.runtime.backend import backend

# bfloat16 keeps 8 bits where float32 keeps 24. Measured with packed bfloat16 on the CPU against stock in float32.
BFLOAT16 = 2e-2


def near(float32: float, bfloat16: float = BFLOAT16) -> float:
    """The tolerance of a result in the data type that this backend computes in."""
    return float32 if backend().compute_dtype == "float32" else bfloat16
