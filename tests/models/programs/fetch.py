"""Run in a process of its own, since huggingface_hub reads its settings once: fetch a Hub model, print what came of it."""

import json
import sys
from pathlib import Path

from tasks.models.sources import fetch as fetching
from tasks.models.sources import hub_source
from tasks.models.sources.fetch import availabilities, fetch_base
from tasks.runtime.errors import TriageError
from tasks.spec import BaseModelSpec


def main() -> None:
    assert "huggingface_hub" not in sys.modules, "it would have read another environment"
    # What the Hub answers is to be seen on a busy machine, too.
    fetching.PROBE_SECONDS = hub_source.CONNECT_SECONDS = 60.0
    hub_source.BUSY_PAUSES = (0.05, 0.05)  # as many attempts, without the wait
    action = sys.argv[1]
    root = Path(sys.argv[2])
    source = json.loads(sys.argv[3])
    options = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    spec = BaseModelSpec(name="m", licence="Apache-2.0", sources=tuple(source), **options)

    calls = []
    try:
        if action == "fetch":
            folder = fetch_base(spec, root, progress=lambda *step: calls.append(step))
            answer = {"folder": str(folder), "progress": calls}
        else:
            answer = {"state": availabilities([spec], root)["m"][0][1]}
    except TriageError as error:
        answer = {"error": str(error), "type": type(error).__name__, "transient": error.transient}

    print(json.dumps(answer))


if __name__ == "__main__":
    main()
