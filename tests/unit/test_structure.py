"""The shape of the package: one direction of imports, distinct exit codes, no module named after nothing."""

from __future__ import annotations

import ast
from pathlib import Path

from mlp_ci import errors

PACKAGE = Path(errors.__file__).parent
# A module may import from its own layer's package and from lower layers; the same layer only where listed.
LAYERS = {
    "errors": 0,
    "__init__": 0,
    "printable": 0,
    "clock": 1,
    "report": 1,
    "spec": 2,
    "git": 3,
    "context": 4,
    "lint": 4,
    "github": 5,
    "dvc": 5,
    "train_key": 6,
    "tracking": 5,
    "data": 6,
    "train": 7,
    "evaluate": 8,
    "serve": 9,
    "promote": 8,
    "register": 9,
    "monitor": 10,
    "scaffold": 7,
    "doctor": 10,
    "sandbox": 11,
    "presenter": 4,
    "cli": 12,
    "__main__": 13,
}
NAMED_AFTER_NOTHING = {"utils", "util", "helpers", "helper", "common", "base", "constants", "misc"}


def modules() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if "_data" not in p.parts]


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """The parts of mlp_ci that a module imports, whether at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def test_no_relative_imports() -> None:
    relative = [
        str(path)
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level
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
