"""What landed while another program held the warehouse is loaded by the next command."""

from __future__ import annotations

from functools import cache

from flows.cli.terminal import errors, print_line
from tasks.runtime.home import home


def load_what_waits() -> None:
    """Load results that wait, if there are any; say so where they still have to."""
    from warehouse.place import loading_waits

    if not loading_waits(home() / "landing"):
        return

    from warehouse.waiting import load_waiting, waiting_sentence  # pyarrow comes with it

    if error := load_waiting(home() / "landing"):
        _say_once(waiting_sentence(error))


@cache  # a command that draws its table again and again loads again and again
def _say_once(sentence: str) -> None:
    print_line(errors, sentence)
