"""The repository that a team gets: every combination of answers, and both examples run as CI would run them."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mlp_ci.lint import lint_files
from mlp_ci.report import Outcome
from mlp_ci.scaffold import pointed_at
from mlp_ci.scaffold.template import render
from mlp_ci.spec import ModelSpec, load_model

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
# All but predict.yml, which only some models want.
WORKFLOWS = sorted({p.name for p in (ROOT / "workflow-templates").glob("*.yml")} - {"predict.yml"})
EXAMPLES = ("flights", "blank")
FRAMEWORKS = ("xgboost", "lightgbm", "pytorch", "onnx", "anything")  # see tests/frameworks for whole loops with each
COMBINATIONS = list(
    itertools.product(
        EXAMPLES,
        ("gpu-small", "self-hosted, linux,gpu"),
        ("", "s3://bucket/path", "/srv/data store".replace(" ", "-")),
        ("acme/mlp-ci@v1", "big-corp/ml.platform@release/2.x"),
    )
)


@cache
def rendered(example: str, runner: str = "default", remote: str = "", platform: str = "acme/mlp-ci@v1") -> Any:
    answers = {"name": "flight-delay", "team": "growth-ml", "owner": "acme", "example": example}
    return render(ROOT, {**answers, "runner": runner, "remote": remote, "platform_ref": platform})


def written(folder: Path, example: str, *rest: str) -> Path:
    for path, content in rendered(example, *rest).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("example", "runner", "remote", "platform"), COMBINATIONS)
def test_every_combination_of_answers_gives_a_sound_repository(
    tmp_path: Path, example: str, runner: str, remote: str, platform: str
) -> None:
    files = rendered(example, runner, remote, platform)
    for path, content in files.items():
        text = content.decode()
        assert not re.search(r"<[@%#]|[@%#]>|(?<!\$)\{\{|\{%|\.jinja", text), (
            f"something of the template is left in {path}"
        )
        assert text.endswith("\n"), path
        assert not text.endswith("\n\n"), path
        assert "[[" not in path
        if path.endswith((".yml", ".yaml")):
            assert isinstance(yaml.safe_load(text), dict), path
        if path.endswith(".py"):
            compile(text, path, "exec")
    repo = written(tmp_path, example, runner, remote, platform)
    assert lint_files(repo, []).outcome is Outcome.PASS
    model = load_model(repo)
    assert model.train.runner == ("gpu-small" if runner == "gpu-small" else ("self-hosted", "linux", "gpu"))
    assert (f"url = {remote}" in files[".dvc/config"].decode()) is bool(remote)
    ignored = files["data/.gitignore"].decode().split()
    assert ignored == [f"/{Path(p).name}" for p in (model.data.train, model.data.test)]
    assert f"dvc add {model.data.train} {model.data.test}" in files["README.md"].decode()
    assert ("dvc remote add" in files["README.md"].decode()) is not bool(remote)


@pytest.mark.parametrize("platform", ["acme/mlp-ci@v1", "big-corp/ml.platform@release/2.x", "a/mlp-ci@" + "0a" * 20])
def test_the_workflows_are_the_organisations_templates(platform: str) -> None:
    """One source: workflow-templates/. The template, the package and the release tool fill it in alike."""
    files = rendered("blank", "default", "", platform)
    assert sorted(Path(p).name for p in files if p.startswith(".github/workflows/")) == WORKFLOWS
    repository, _, ref = platform.partition("@")
    for name in WORKFLOWS:
        source = (ROOT / "workflow-templates" / name).read_text().replace("$default-branch", "main")
        assert files[f".github/workflows/{name}"].decode() == pointed_at(source, platform)
        assert pointed_at(source, platform) == tool("rewrite_refs").rewrite(source, repository, ref)
        assert f"uses: {repository}/actions/" in pointed_at(source, platform)


def test_the_python_of_the_examples_is_in_order(tmp_path: Path) -> None:
    for example in (*EXAMPLES, *FRAMEWORKS):
        written(tmp_path / example, example)
    rules = ["--isolated", "--line-length", "120", "--select", "E,F,I,B,UP,SIM,RET,PTH,C4", "--ignore", "E402"]
    done = subprocess.run(
        [Path(sys.executable).with_name("ruff"), "check", "--no-cache", *rules, tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_requirements_cover_what_the_examples_import() -> None:
    for example in (*EXAMPLES, *FRAMEWORKS):
        files = rendered(example)
        wanted = set(re.findall(r"^([\w-]+)>=", files["requirements.txt"].decode(), re.MULTILINE))
        names = {"sklearn": "scikit-learn", "yaml": "pyyaml", "numpy": "pandas"}  # pandas brings numpy
        code = files["train.py"].decode() + files["data/refresh.py"].decode()
        imported = set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) - set(sys.stdlib_module_names)
        assert {names.get(m, m) for m in imported} <= wanted


def test_rendering_twice_gives_the_same_bytes() -> None:
    answers = {"name": "a", "team": "b", "owner": "c", "example": "flights"}
    one, two = render(ROOT, answers), render(ROOT, answers)
    assert {p for p in one if one[p] != two[p]} <= {".copier-answers.yml"}, "only copier's own path may differ"


def run(repo: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=repo, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )


def refreshed(repo: Path, now: str) -> ModelSpec:
    done = run(repo, "data/refresh.py", MLP_NOW=now)
    assert done.returncode == 0, done.stderr
    return load_model(repo)


def read(file: Path) -> Any:
    import pandas as pd

    return pd.read_parquet(file) if file.suffix == ".parquet" else pd.read_csv(file)


@pytest.mark.parametrize("example", EXAMPLES)
def test_refresh_writes_the_columns_of_model_yaml_and_the_same_again(tmp_path: Path, example: str) -> None:
    repo = written(tmp_path, example)
    model = refreshed(repo, "2013-04-01T00:00:00+00:00")
    paths = [repo / model.data.train, repo / model.data.test]
    before = [p.read_bytes() for p in paths]
    for path in paths:
        rows = read(path)
        assert list(rows.columns) == list(model.data.columns)
        assert len(rows) >= model.data.checks.rows.min
        assert not rows.duplicated(list(model.data.key)).any()
        assert str(rows[model.data.time].max()) < "2013-04-01"
    keys = [set(read(p)[model.data.key[0]]) for p in paths]
    assert not keys[0] & keys[1], "no held-out row may be trained on"
    refreshed(repo, "2013-04-01T02:00:00+02:00")
    assert [p.read_bytes() for p in paths] == before, "the same instant, written in another zone"


def test_flights_are_held_out_by_whole_days_evenly_over_the_week(tmp_path: Path) -> None:
    model = refreshed(written(tmp_path, "flights"), "2013-08-01")
    train, test = read(tmp_path / model.data.train), read(tmp_path / model.data.test)
    days = [set(rows["flight_id"].str[:10]) for rows in (train, test)]
    assert not days[0] & days[1]
    assert 0.15 < len(test) / (len(train) + len(test)) < 0.25
    assert test.groupby("weekday").size().min() > 1000
    assert min(train["scheduled_at"]).isoformat() >= "2013-05-03", "ninety days back"


def test_refresh_says_so_when_there_is_no_data(tmp_path: Path) -> None:
    done = run(written(tmp_path, "flights"), "data/refresh.py", MLP_NOW="2030-01-01")
    assert done.returncode == 1
    assert "the data covers 2013" in done.stderr
    assert not list((tmp_path / "data").glob("*.parquet"))


# Training on the flights takes ten seconds; the skeleton keeps the same contract in the fast suite.
@pytest.mark.parametrize("example", [pytest.param("flights", marks=pytest.mark.slow), "blank"])
def test_training_keeps_the_contract(tmp_path: Path, example: str) -> None:
    repo = written(tmp_path / "repo", example)
    model = refreshed(repo, "2013-04-01")
    output = tmp_path / "output"
    output.mkdir()
    contract = {
        "MLP_DATA_TRAIN": str(repo / model.data.train),
        "MLP_PARAMS": str(repo / str(model.train.params)),
        "MLP_SEED": str(model.train.seed),
        "MLP_OUTPUT": str(output),
    }
    (repo / model.data.test).rename(tmp_path / "held-out")  # a training that looks for it fails
    done = run(repo, *model.train.command.split()[1:], **contract)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics["train_rows"] == len(read(repo / model.data.train))
    assert all(isinstance(value, int | float) for value in metrics.values())
    check_model(output / "model", model, read((tmp_path / "held-out").rename(repo / model.data.test)))


def check_model(folder: Path, model: ModelSpec, held_out: Any) -> None:
    """The model has the signature that model.yaml promises, predicts probabilities, and is worth something."""
    import mlflow.pyfunc
    from sklearn.metrics import roc_auc_score

    loaded = mlflow.pyfunc.load_model(str(folder))
    inputs = loaded.metadata.get_input_schema()
    assert set(inputs.input_names()) == set(model.data.features)
    probabilities = loaded.predict(held_out[inputs.input_names()])
    assert probabilities.shape == (len(held_out), 2)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    gate = next(g for g in model.evaluate.gates if g.metric == "roc_auc" and g.slice is None)
    assert gate.min is not None
    assert roc_auc_score(held_out[model.data.target], probabilities[:, 1]) > gate.min
    description = yaml.safe_load((folder / "MLmodel").read_text())
    assert description["flavors"]["sklearn"]["serialization_format"] == "cloudpickle"
    assert (folder / "input_example.json").is_file()
    assert "scikit-learn==" in (folder / "requirements.txt").read_text()
