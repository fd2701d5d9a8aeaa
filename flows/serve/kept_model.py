"""The model behind the server: one child process, started again if it is lost."""

from __future__ import annotations

from tasks.bundle.asking import AskedModel
from tasks.bundle.bundle import BundledModel
from tasks.runtime.conversation import Answered


class KeptModel:
    """A loaded model that texts are sent to. Raises, where it is made, the error of its loading."""

    def __init__(self, model: BundledModel, passes: int | None) -> None:
        self._model = model
        self._passes = passes
        self._asked = self._start()
        self._asked.wait_until_loaded()
        self.bundle = model.bundle

    @property
    def is_lost(self) -> bool:
        """Whether the process has ended; the next text starts another one."""
        return self._asked.is_over

    def ask(self, text: str) -> Answered:
        """Send a text; answers come in the order of the texts."""
        # Asked from the event loop alone, so no two texts can start a process each.
        if self._asked.is_over:
            self._asked = self._start()
        return self._asked.ask(text)

    def _start(self) -> AskedModel:
        return AskedModel(self._model, self._passes, use="serve")
