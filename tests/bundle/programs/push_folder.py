"""Run in a process of its own, since huggingface_hub reads its settings once: push a folder, print what came of it."""

import json
import sys
from pathlib import Path

from tasks.bundle.bundle import Bundle
from tasks.bundle.push import Target, push, refuse_push
from tasks.runtime.errors import TriageError


def main() -> None:
    assert "huggingface_hub" not in sys.modules, "it would have read another environment"
    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    target = Target(options["repo"], options.get("public", False))
    bundle = Bundle.model_validate_json((folder / "bundle.json").read_text())
    try:
        refuse_push(bundle, target, options.get("unsafe", False))
        answer = {"address": push(folder, target, "a model")}
    except TriageError as error:
        answer = {"error": str(error), "type": type(error).__name__}
    print(json.dumps(answer))
