"""A bundled model in a process of its own, as whoever asks it sees it: texts in, decisions out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import TracebackType

from tasks.bundle.arguments import PredictJob
from tasks.bundle.bundle import BundledModel
from tasks.bundle.decision import Decision
from tasks.runtime.conversation import Answered, Conversation
from tasks.runtime.home import home
from tasks.runtime.locks import lock_of, locked, remove_abandoned_locks

FUNCTION = "tasks.bundle.predict_job:run"


class AskedModel:
    """One child process with a loaded model; texts reach it by its pipe alone.

    `passes`: dropout passes of each text for the review flag, which a recipe without dropout cannot
    give: then none run. `use`: names the folder of its log.
    """

    def __init__(
        self, model: BundledModel, passes: int | None = None, use: str = "predict"
    ) -> None:
        self.bundle = model.bundle
        self.passes = passes if self.bundle.review.available else None
        job = PredictJob(bundle=model.bundle, folder=model.folder, passes=self.passes)
        log = home() / "logs" / f"{use}-{self.bundle.model_id}"
        self._conversation = Conversation(FUNCTION, job.model_dump(mode="json"), log)

    def __enter__(self) -> AskedModel:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._conversation.close()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended."""
        return self._conversation.is_over

    def wait_until_loaded(self) -> None:
        """Return once the model is loaded. Raises the error with which that failed."""
        self._conversation.ready.result()

    def ask(self, text: str) -> Answered:
        """Send a text, to be read with `decision_of`; many may wait at once."""
        return self._conversation.ask({"text": text})


@contextlib.contextmanager
def in_use(model: BundledModel, use: str) -> Iterator[None]:
    """Hold a lock of this process in the home of a model, so that what it reads is not removed.

    `triage data forget` and `triage clean` see it (tasks/removal.py);
    an exported folder needs none.
    """
    if model.folder != home():
        yield
        return

    logs = home() / "logs"
    remove_abandoned_locks(logs, lock_of(logs / f"{use}-*").name)  # a killed program leaves its own

    name = logs / f"{use}-{model.bundle.model_id}-{os.getpid()}"
    with locked(name):
        try:
            yield
        finally:
            lock_of(name).unlink(missing_ok=True)


def decision_of(answer: Answered) -> Decision:
    """Wait for an answer. Raises the error with which the process has ended."""
    return Decision.from_json(answer.result())
