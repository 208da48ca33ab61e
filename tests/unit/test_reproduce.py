"""What counts as the same model, and which causes code and log give away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mlp_ci.evaluate.metrics import BINARY, REGRESSION, Predictions
from mlp_ci.reproduce.causes import causes, machine_differences, signs
from mlp_ci.reproduce.compare import difference, differing_files, differing_requirements

if TYPE_CHECKING:
    from pathlib import Path


def folder(place: Path, weights: str = "1", moment: str = "10:00", **more: str) -> Path:
    place.mkdir()
    (place / "MLmodel").write_text(f"flavors: {{sklearn: {{}}}}\nmodel_uuid: {moment}\nutc_time_created: '{moment}'\n")
    (place / "weights").write_text(weights)
    for name, text in more.items():
        (place / f"{name}.txt").write_text(text)
    return place


def test_the_moment_of_saving_is_no_difference_and_everything_else_is(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", requirements="numpy==2.0\nmlflow==3\n")
    assert differing_files(one, folder(tmp_path / "b", moment="11:00", requirements="numpy==2.0\nmlflow==3\n")) == []
    other = folder(tmp_path / "c", weights="2", requirements="numpy==2.1\nmlflow==3\n", extra="x")
    assert differing_files(one, other) == ["extra.txt", "requirements.txt", "weights"]
    assert differing_requirements(one, other) == ["numpy==2.0", "numpy==2.1"]
    (other / "MLmodel").write_text("flavors: {pytorch: {}}\n")
    assert "MLmodel" in differing_files(one, other)


def binary(probability: list[float], classes: tuple[str, ...] = ("0", "1")) -> Predictions:
    values = np.asarray(probability)
    target = np.asarray([0, 1, 0, 1])
    return Predictions(
        task=BINARY, target=target, label=(values >= 0.5).astype(int), probability=values, classes=classes
    )


def test_predictions_are_compared_row_by_row() -> None:
    one = binary([0.1, 0.9, 0.3, 0.499])
    same = difference(one, binary([0.1 + 1e-9, 0.9, 0.3, 0.499]), 1e-6)
    assert (same.same, same.rows, same.decided_otherwise) == (True, 4, 0.0)
    other = difference(one, binary([0.2, 0.9, 0.3, 0.501]), 1e-6)
    assert (other.same, other.share, other.decided_otherwise) == (False, 0.5, 0.25)
    assert other.most == pytest.approx(0.1)
    assert "same classes" in difference(one, binary([0.1, 0.9, 0.3, 0.4], ("a", "b")), 1e-6).incomparable
    numbers = [
        Predictions(task=REGRESSION, target=np.zeros(2), label=np.asarray(values))
        for values in ([1e9, 1], [1e9 + 1, 1])
    ]
    assert difference(numbers[0], numbers[1], 1e-6).same, "large numbers are compared relatively"
    assert difference(numbers[0], numbers[1], 1e-6).decided_otherwise is None


@pytest.mark.parametrize(
    ("code", "log", "said"),
    [
        ("model.fit(X)", "", "no seed is set"),
        ("import torch\ntorch.manual_seed(1)", "", "use_deterministic_algorithms"),
        ("import torch; torch.manual_seed(1); x.cuda()", "", "CUBLAS_WORKSPACE_CONFIG"),
        ("seed=1", "UserWarning: scatter_add_cuda does not have a deterministic implementation", "names an operation"),
        ("import xgboost\nxgboost.train({'device': 'cuda', 'seed': 1})", "", "XGBoost's histograms on a GPU"),
        ("import lightgbm\nlightgbm.train({'seed': 1})", "", "force_row_wise=True"),
        ("seed=1\nnp.random.default_rng(time.time())", "", "reads the clock"),
        ("RandomForestClassifier(n_jobs=-1, random_state=1)", "", "several threads"),
    ],
)
def test_code_and_log_give_causes_away(code: str, log: str, said: str) -> None:
    assert any(said in cause for cause in signs(code, log)), signs(code, log)


def test_what_is_cured_is_no_cause() -> None:
    cured: dict[str, Any] = {
        "code": "import torch, lightgbm, os\nos.environ['CUBLAS_WORKSPACE_CONFIG'] = ':4096:8'\n"
        "torch.use_deterministic_algorithms(True); torch.manual_seed(1); x.cuda()\n"
        "lightgbm.train({'deterministic': True, 'force_row_wise': True})",
        "log": "",
    }
    assert signs(**cured) == []
    assert signs("LogisticRegression(random_state=int(os.environ['MLP_SEED']))", "trained") == []


def test_what_differs_between_machines_comes_first() -> None:
    before = {"mlp.gpu": "NVIDIA T4", "mlp.python": "3.11.7", "mlp.cpus": "8"}
    now = {"mlp.gpu": "none", "mlp.python": "3.11.7", "mlp.host": "b"}
    assert machine_differences(before, now) == ["GPU and driver: NVIDIA T4 then, none now"]
    said = causes(["GPU and driver: a then, b now"], ["numpy==1", "numpy==2"], ["no seed is set"])
    assert said == ["GPU and driver: a then, b now", "packages of the model: numpy==1, numpy==2", "no seed is set"]
    alone = causes([], [], [])
    assert alone[0] == "the machines and packages are the same, so training itself varies"
    assert len(alone) == 2
