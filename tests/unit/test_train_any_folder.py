"""A folder with a program `predict` is a model: loaded by MLflow and by our server, its mistakes told."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from mlp_ci.errors import InputError
from mlp_ci.serve.model import load
from mlp_ci.spec import ModelSpec, parse_model
from mlp_ci.train.any_folder import made_loadable
from mlp_ci.train.output import check_output

MODEL = """\
apiVersion: mlp-ci/v1
name: any
team: growth
data:
  train: train.csv
  test: test.csv
  key: [id]
  target: y
  columns: {id: {type: int}, name: {type: string}, size: {type: float}, y: {type: int}}
train: {command: make}
evaluate: {gates: [{metric: accuracy, min: 0.5}]}
"""
ROWS = pd.DataFrame({"name": ["a", 'with "quotes", and a comma', "c"], "size": [1.0, 2.5, float("nan")]})


@pytest.fixture
def spec() -> ModelSpec:
    return parse_model(MODEL.encode())


def program(folder: Path, text: str, mode: int = 0o755) -> Path:
    (folder / "model").mkdir()
    file = folder / "model" / "predict"
    file.write_text(text)
    file.chmod(mode)
    return folder / "model"


def test_a_program_becomes_a_model_that_predicts(tmp_path: Path, spec: ModelSpec) -> None:
    model = program(tmp_path, "#!/bin/sh\ncat > seen.csv; echo 0.25; echo 0.5; echo 1\n")
    assert made_loadable(model, spec)
    assert not made_loadable(model, spec), "what is a model already stays as it is"
    assert check_output(tmp_path).flavors == ("python_function",)
    (model / "predict").chmod(0o644)  # as it comes back from a store of artefacts
    loaded = load(model)
    assert [(r.name, r.type) for r in loaded.signature.rules] == [("name", "string"), ("size", "double")]
    assert loaded.predict(ROWS) == [0.25, 0.5, 1.0]
    seen = pd.read_csv(model / "seen.csv")
    assert seen["name"].tolist() == ROWS["name"].tolist()
    assert seen["size"].isna().tolist() == [False, False, True]


def test_classes_are_text(tmp_path: Path, spec: ModelSpec) -> None:
    model = program(tmp_path, "#!/bin/sh\ncat > /dev/null; echo late; echo 1; echo early\n")
    made_loadable(model, spec)
    assert load(model).predict(ROWS) == ["late", "1", "early"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("#!/bin/sh\ncat > /dev/null; echo 1\n", "printed 1 predictions for 3 rows"),
        ("#!/bin/sh\ncat > /dev/null; echo no weights >&2; exit 3\n", "ended with code 3: no weights"),
    ],
)
def test_a_program_that_goes_wrong_says_so(tmp_path: Path, spec: ModelSpec, text: str, told: str) -> None:
    model = program(tmp_path, text)
    made_loadable(model, spec)
    with pytest.raises(RuntimeError, match=told):
        load(model).predict(ROWS)


def test_a_program_must_be_one(tmp_path: Path, spec: ModelSpec) -> None:
    with pytest.raises(InputError, match="not a program that can be started"):
        made_loadable(program(tmp_path, "#!/bin/sh\n", mode=0o644), spec)
