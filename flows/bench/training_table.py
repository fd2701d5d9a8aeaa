"""The training benchmark as people read it: a column per engine, and below it how the figures came
about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from flows.report.names import RANDOM
from tasks.runtime.events import Device

Figures = dict[str, Any]
ENOUGH = 5  # timed steps that a median should have


def _seconds(f: Figures, n: int) -> str:
    if n == 1:
        return f"{f['seconds_per_step']:.3g} (n=1)"
    low = f["seconds_per_step_min"]
    high = f["seconds_per_step_max"]
    return f"{f['seconds_per_step']:.3g} ({low:.3g} to {high:.3g}, n={n})"


def _column_text(key: str, template: str, factor: float = 1.0) -> Callable[[Figures, int], str]:
    def show(f: Figures, n: int) -> str:
        return template.format(f[key] * factor) if f.get(key) is not None else ""

    return show


LINES: tuple[tuple[str, Callable[[Figures, int], str]], ...] = (
    ("seconds per step, median (range)", _seconds),
    ("tokens per second", _column_text("tokens_per_second", "{:.0f}")),
    ("times faster than stock as installed", _column_text("speed_up_over_stock", "{:.1f}")),
    ("times faster than stock, fast BLAS", _column_text("speed_up_over_stock_dense", "{:.1f}")),
    ("weights, MB", _column_text("weights_memory_bytes", "{:.0f}", 1e-6)),
    ("peak memory, MB", _column_text("peak_memory_bytes", "{:.0f}", 1e-6)),
    ("peak over weights, MB", _column_text("peak_over_weights_bytes", "{:.0f}", 1e-6)),
    ("  of that of stock, fast BLAS", _column_text("memory_against_stock_dense", "{:.2f}")),
    ("MLX cache after the last step, MB", _column_text("cache_memory_bytes", "{:.0f}", 1e-6)),
    ("peak RSS of the process, MB", _column_text("peak_rss_bytes", "{:.0f}", 1e-6)),
    (
        "gradients: difference to stock as installed",
        _column_text("gradient_difference_to_stock", "{:.1e}"),
    ),
    ("gradients: difference to float64", _column_text("gradient_difference_to_float64", "{:.1e}")),
    ("matrix products of a step, GFLOP", _column_text("matmul_flops", "{:.3g}", 1e-9)),
    ("share of this machine's matmul speed", _column_text("matmul_share", "{:.0%}")),
)


def print_table(console: Console, report: dict[str, Any]) -> None:
    """Print a report of `triage bench train`."""
    weights = RANDOM if report["random_weights"] else ""
    title = (
        f"{report['model']} {report['bits']}-bit{weights}: one step of {report['batch']} x "
        f"{report['length']} tokens, LoRA on {report['layers']} of {report['blocks']} blocks"
    )
    table = Table(title=title, title_justify="left")
    table.add_column("")

    for engine in report["engines"]:
        table.add_column(engine["title"], justify="right")

    for name, show in LINES:
        cells = [show(engine["figures"], len(engine["seconds"])) for engine in report["engines"]]
        if any(cells):
            table.add_row(name, *cells)

    console.print(table)
    for line in _remarks(report):
        console.print(line, soft_wrap=True)


def _remarks(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{engine['title']}: {Device(**engine['device']).products} ({engine['matmul_gflops']:.0f} "
        "GFLOP/s), " + ", ".join(engine["notes"])
        for engine in report["engines"]
    ]
    our_engine = report["engines"][-1]
    prefix = our_engine["prefix"]
    common = our_engine["leading_tokens"]
    lines.append(
        f"The first {common} of each prompt's {report['length']} tokens "
        f"({common / report['length']:.0%}) are the same in all cases, as an instruction is: ours "
        "computes them once a step, stock for each case."
    )

    if prefix["blocks"]:
        prefix_cost = f"{prefix['seconds']:.2g} s for this batch"
        lines.append(
            f"ours: reads the output of {prefix['blocks']} frozen blocks, computed once per "
            f"variant ({prefix_cost})."
        )
    else:
        lines.append(
            "ours: no frozen blocks stored, since with so many trained ones it would not pay."
        )

    if len(our_engine["seconds"]) < ENOUGH:
        lines.append(
            f"ours: the median of {len(our_engine['seconds'])} steps only; {ENOUGH} or more "
            "(--repeats) are steadier."
        )

    lines.append(
        "Gradients: largest difference over largest value of a tensor, the worst tensor; lora_b "
        "random."
    )
    return lines


def print_summary(console: Console, reports: list[dict[str, Any]]) -> None:
    """Print reports of `triage bench train` a line each: ours beside the two stock engines."""
    table = Table(title="One training step, ours against stock mlx-lm", title_justify="left")
    table.add_column("case")
    for name in (
        "seconds",
        "x as installed",
        "x fast BLAS",
        "memory of it",
        "largest gradient difference",
        "of matmul speed",
    ):
        table.add_column(name, justify="right")

    for report in reports:
        our_figures = next(e for e in report["engines"] if e["engine"] == "ours")["figures"]
        weights = RANDOM if report["random_weights"] else ""
        case = (
            f"{report['model']} {report['bits']}-bit{weights}, {report['layers']} of "
            f"{report['blocks']} blocks, "
        )
        table.add_row(
            f"{case}{report['batch']} x {report['length']}", f"{our_figures['seconds_per_step']:.3g}",
            *(_column_text(key, form)(our_figures, 1) for key, form in (
                ("speed_up_over_stock", "{:.1f}"), ("speed_up_over_stock_dense", "{:.1f}"),
                ("memory_against_stock_dense", "{:.2f}"), ("gradient_difference_to_stock", "{:.1e}"),
                ("matmul_share", "{:.0%}"),
            )),
        )  # fmt: skip

    console.print(table)
