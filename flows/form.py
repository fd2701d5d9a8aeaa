"""What the forms of the Prefect UI offer in their drop-downs; another value can be typed.

A parameter's type makes its form, so these are types; a test holds them to the built-in grids,
models, recipes and precisions.
"""

from __future__ import annotations

from typing import Literal

GridName = Literal["ablation", "demo", "paper", "smoke", "study", "study_gemma", "tuned"] | str
ModelName = (
    Literal["gemma-3-270m", "smollm2-135m", "smollm2-360m", "tiny-gemma3", "tiny-llama"] | str
)
PrecisionName = (
    Literal["bf16", "8bit", "6bit", "4bit", "3bit", "2bit", "mxfp8", "mxfp4", "nvfp4", "mixed_4_6"]
    | str
)
RecipeName = (
    Literal[
        "balanced_safe",
        "baseline",
        "both",
        "conservative",
        "cost",
        "fast",
        "high_capacity",
        "high_capacity_safe",
        "high_precision",
        "performance_safe",
        "plain",
        "quick",
        "quick_safe",
        "triage_optimized",
        "tuned",
        "tuned_safe",
        "ultra_safe",
        "weights",
    ]
    | str
)
