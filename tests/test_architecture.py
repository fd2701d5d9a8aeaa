"""Who may import whom, and which process may load MLX: the rules of the layout, checked on the source itself."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("flows", "tasks", "warehouse", "deployments")
FILES = sorted(path for top in OURS for path in (ROOT / top).rglob("*.py"))
STEPS = (
    "tasks.corpus", "tasks.models", "tasks.judging", "tasks.tuning", "tasks.scoring", "tasks.bench", "tasks.bundle",
)  # fmt: skip
LEAVES = ("tasks.spec", "tasks.precisions")
POINT_METRICS = "tasks.judging.point_metrics"  # formulas that the warehouse shares, and all it may share
# A layer may import itself and what stands in its row; the leaves may be imported by everyone.
ALLOWED = {
    "flows": {"tasks", "tasks/folder", "tasks.runtime", "warehouse", "deployments"},
    "tasks": {"tasks/folder", "tasks.runtime"},
    "tasks/folder": {"tasks.runtime"},
    "tasks.runtime": set(),
    "warehouse": {"tasks.runtime"},
    "deployments": {"tasks.runtime"},
}


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in FILES}


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Dotted names that a file imports anywhere in it; `from a import b` gives a.b where that is a module of ours."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: relative imports hide the layer"
            wholes = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [whole if whole in MODULES else str(node.module) for whole in wholes]

    return tuple(names)


def layer(module: str) -> str | None:
    """`tasks/folder` for a step's plain code, `tasks` for the wrappers beside it; None for what is not ours."""
    if module.split(".")[0] not in OURS:
        return None
    if any(module == step or module.startswith(f"{step}.") for step in STEPS):
        return "tasks/folder"
    return "tasks.runtime" if module.startswith("tasks.runtime") else module.split(".")[0]


def broken_rules(importer: str, imported: str) -> bool:
    importer_layer = layer(importer)
    imported_layer = layer(imported)
    if imported_layer is None or importer_layer == imported_layer or imported in (*LEAVES, "tasks"):
        return False
    if importer == "tasks.landing" and imported_layer == "warehouse":
        return False
    if importer_layer == "warehouse" and imported == POINT_METRICS:
        return False

    return imported_layer not in ALLOWED[str(importer_layer)]


def test_imports_go_downward_only():
    pairs = [(module, name) for module, path in MODULES.items() for name in imports(path)]
    assert [pair for pair in pairs if broken_rules(*pair)] == []


@pytest.mark.parametrize(
    ("importer", "imported", "broken"),
    [
        ("tasks.tuning.job", "tasks.experiment", True),
        ("tasks.experiment", "flows.sweep", True),
        ("warehouse.load", "tasks.judging.evaluation_rows", True),
        ("warehouse.comparison.cells", "tasks.judging.point_metrics", False),
        ("tasks.landing", "warehouse.load", False),
        ("tasks.scoring.job", "tasks.tuning.job", False),
    ],
)
def test_upward_imports_break_the_rules_and_downward_ones_do_not(importer, imported, broken):
    assert broken_rules(importer, imported) is broken


def test_the_leaves_import_nothing_of_ours_but_leaves():
    modules = [module for module in MODULES if module.startswith(LEAVES)]
    names = {name for module in modules for name in imports(MODULES[module]) if layer(name)}
    assert [name for name in names if not name.startswith(LEAVES)] == []
    assert [name for name in imports(MODULES["tasks.precisions"]) if layer(name)] == []


def test_the_formulas_that_the_warehouse_shares_need_numpy_and_the_leaf_alone():
    names = set(imports(MODULES[POINT_METRICS]))
    assert {name for name in names if layer(name)} == {"tasks.spec"}
    others = {name.split(".")[0] for name in names if not layer(name)}
    assert others <= {"__future__", "collections", "dataclasses", "numpy", "typing"}


def test_the_folders_of_the_steps_do_not_import_each_other_in_a_circle():
    needs: dict[str, set[str]] = {step: set() for step in STEPS}
    for module, path in MODULES.items():
        for step in STEPS:
            if module.startswith(step):
                needs[step] |= {other for other in STEPS for name in imports(path) if name.startswith(other)} - {step}

    while result := [step for step, other_values in needs.items() if not other_values]:
        needs = {step: other_values - set(result) for step, other_values in needs.items() if step not in result}

    assert needs == {}


MLX = ("mlx", "mlx_lm", "transformers")


@pytest.mark.parametrize(
    ("beginning", "forbidden"),
    [
        ("tasks.", ("prefect",)),  # in folders: the thin tasks beside them use it
        ("warehouse", ("prefect", *MLX)),
        ("tasks.judging", (*MLX, "tasks.tuning", "tasks.scoring", "tasks.bench")),
    ],
)
def test_plain_code_imports_no_prefect_and_statistics_no_mlx(beginning, forbidden):
    plain = ("tasks/folder", "tasks.runtime", "warehouse")
    modules = [m for m in MODULES if m.startswith(beginning) and layer(m) in plain]
    uses = [(module, name) for module in modules for name in imports(MODULES[module])]
    assert uses
    assert [use for use in uses if any(f"{use[1]}.".startswith(f"{name}.") for name in forbidden)] == []


def test_the_parent_process_never_loads_mlx():
    """Importing mlx_lm lowers the file limit, and a Metal failure aborts the process: only child processes do it."""
    parents = [m for m in MODULES if layer(m) in ("flows", "tasks", "tasks.runtime", "warehouse")]
    parents += ["tasks.models.sources.fetch", "tasks.models.convert", "tasks.corpus.prepare"]
    parents += ["tasks.bundle.asking", "tasks.bundle.from_evaluation", "tasks.bundle.export"]
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    found = {'mlx', 'mlx_lm', 'transformers'} & set(sys.modules)\n"
        "    assert not found, f'{name} loads {found}'\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *parents], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


ASKS_FOR_THE_MACHINE = re.compile(
    r"sys\.platform|os\.uname|platform\.(system|machine|processor|uname|mac_ver|release|platform)\(|"
    r"backend(\(\))?(\.name)? *(==|!=|in \()|metal\.is_available|cuda\.is_available"
)
BACKEND = "tasks.runtime.backend"


def test_what_the_machine_is_and_computes_with_is_asked_of_the_backend_alone():
    others = [path for module, path in MODULES.items() if module != BACKEND]
    lines = [(path.name, line) for path in others for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(name, line) for name, line in lines if ASKS_FOR_THE_MACHINE.search(line)] == []
    for line in ('sys.platform == "linux"', 'backend() == "cpu"', 'backend().name != "metal"', "platform.machine()"):
        assert ASKS_FOR_THE_MACHINE.search(line), "the rule sees such questions"


RUNS_CODE = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def test_nothing_that_runs_code_from_a_file_is_used():
    for module, path in MODULES.items():
        assert not RUNS_CODE & {name.split(".")[0] for name in imports(path)}, module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name, value in options(node):
                if name in ("trust_remote_code", "allow_pickle", "shell"):
                    assert isinstance(value, ast.Constant) and value.value is False, f"{module}, line {value.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), f"{module}, line {node.lineno}"


def options(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Keyword arguments, and entries of a dict that may become some."""
    if isinstance(node, ast.Call):
        yield from ((str(keyword.arg), keyword.value) for keyword in node.keywords)
    elif isinstance(node, ast.Dict):
        yield from ((k.value, v) for k, v in zip(node.keys, node.values, strict=True) if isinstance(k, ast.Constant))
