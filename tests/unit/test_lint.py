"""``mlp-ci lint``, ``schema``, ``--help``: what a person, a program and GitHub see."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.unit.test_spec import MODEL

Cli = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"mlflow", "dvc", "pandas", "scipy", "sklearn", "kubernetes", "docker", "github", "duckdb", "numpy", "pyarrow",
         "starlette", "uvicorn", "httpx", "copier", "jinja2"}  # fmt: skip


def test_a_good_repository(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL)
    done = cli("lint", "--path", tmp_path)
    assert done.returncode == 0
    assert "no problems" in done.stdout


def test_problems_for_people_name_file_line_and_column(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL.replace("seed:", "sed:"))
    done = cli("lint", "--path", tmp_path)
    assert done.returncode == 2
    assert "model.yaml:17:3" in done.stderr
    assert "   17 |   sed: 17" in done.stderr
    assert "did you mean `seed`?" in done.stderr
    assert "Traceback" not in done.stderr


def test_json_is_all_that_is_on_stdout(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL.replace("seed:", "sed:"))
    done = cli("lint", "--path", tmp_path, "--format", "json")
    report = json.loads(done.stdout)
    assert done.returncode == report["error"]["exit_code"] == 2
    assert report["error"]["problems"][0]["line"] == 17


def test_annotations_outputs_and_summary_on_github(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL.replace("seed:", "sed:"))
    outputs = tmp_path / "out"
    env = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(outputs), "GITHUB_REPOSITORY": "acme/m"}
    done = cli("lint", "--path", tmp_path, **env)
    assert "::error title=mlp-ci,file=" in done.stdout
    assert ",line=17,col=3::unknown key 'train.sed'%0AFix: did you mean `seed`?" in done.stdout
    assert "outcome<<mlp_" in outputs.read_text()


def test_files_must_agree(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(MODEL.replace("seed: 17", "params: nowhere.yaml"))
    (tmp_path / "promotion.yaml").write_text("apiVersion: mlp-ci/v1\nmodel: other\n")
    done = cli("lint", "--path", tmp_path)
    assert done.returncode == 2
    assert "nowhere.yaml does not exist" in done.stderr
    assert "write `model: flight-delay`" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lint", "--path", "/nowhere"], "mlp-ci init"),
        (["lint", "--format", "xml"], "text or json"),
        (["schema", "modle"], "none of model, promotion, platform"),
        (["schema", "model", "--format", "xml"], "text or json"),
        (["lnit"], "lint"),
    ],
)
def test_bad_usage_is_exit_code_2(cli: Cli, arguments: list[str], said: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_committed_schema_accepts_and_refuses_what_lint_does(cli: Cli) -> None:
    schema = json.loads(cli("schema", "model").stdout)
    jsonschema.validate(yaml.safe_load(MODEL), schema)
    with pytest.raises(jsonschema.ValidationError, match="sed"):
        jsonschema.validate(yaml.safe_load(MODEL.replace("seed:", "sed:")), schema)


def test_reference_pages_and_schemas_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools/reference.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["lint", "--path", str(ROOT / "tests")]])
def test_nothing_heavy_is_imported_on_the_way(arguments: list[str]) -> None:
    code = f"import sys; from mlp_ci.cli import run; run({arguments!r}); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


def test_every_command_and_option_is_explained() -> None:
    import typer

    from mlp_ci.cli import app

    top = typer.main.get_command(app)
    unexplained = []
    waiting = [("mlp-ci", top)]
    while waiting:
        name, command = waiting.pop()
        unexplained += [] if command.help else [name]
        unexplained += [f"{name} {p.name}" for p in command.params if not getattr(p, "help", None)]
        waiting += [(f"{name} {n}", c) for n, c in getattr(command, "commands", {}).items()]
    assert not unexplained
