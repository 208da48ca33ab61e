"""A small model repository that really trains: real git, real DVC, a tiny scikit-learn model."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

FAST_TRAIN = """
import json, os
import pandas as pd
from sklearn.linear_model import LogisticRegression
import mlflow.sklearn
from mlflow.models import infer_signature

with open(os.environ["MLP_PARAMS"]) as stream:
    c = float(stream.read().split(":")[1])
frame = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
X, y = frame[["x", "noise"]], frame["y"]
model = LogisticRegression(C=c, random_state=int(os.environ["MLP_SEED"])).fit(X, y)
mlflow.sklearn.save_model(
    model, os.environ["MLP_OUTPUT"] + "/model", signature=infer_signature(X, model.predict(X)),
    pip_requirements=["scikit-learn"], serialization_format="cloudpickle",
)
with open(os.environ["MLP_OUTPUT"] + "/metrics.json", "w") as stream:
    json.dump({"train_accuracy": model.score(X, y)}, stream)
print("trained on", len(frame), "rows")
"""

# The same without the three seconds that scikit-learn, pandas and MLflow take to import here, and again to predict:
# for tests of what goes on around the model. MLflow loads it by the code beside it.
QUICK_TRAIN = """
import csv, json, math, os, pathlib, platform
import cloudpickle

class Model:
    classes_ = [0, 1]
    def __init__(self, weights):
        self.weights = weights
    def predict_proba(self, X):
        import numpy as np
        one = 1 / (1 + np.exp(-X[list(self.weights)].to_numpy(dtype=float) @ list(self.weights.values())))
        return np.column_stack([1 - one, one])
    def predict(self, X):
        return (self.predict_proba(X)[:, 1] > 0.5).astype(int)

columns = ["x", "noise"]
with open(os.environ["MLP_PARAMS"]) as stream:
    c = float(stream.read().split(":")[1])
with open(os.environ["MLP_DATA_TRAIN"]) as stream:
    rows = [([float(row[name]) for name in columns], int(row["y"])) for row in csv.DictReader(stream)]
weights = [0.0] * len(columns)
for _ in range(100):
    steps = [-w / (c * len(rows)) for w in weights]
    for x, y in rows:
        missed = y - 1 / (1 + math.exp(-sum(w * v for w, v in zip(weights, x))))
        steps = [step + missed * v / len(rows) for step, v in zip(steps, x)]
    weights = [w + step for w, step in zip(weights, steps)]
right = sum((sum(w * v for w, v in zip(weights, x)) > 0) == y for x, y in rows)
model = Model(dict(zip(columns, weights)))

output = pathlib.Path(os.environ["MLP_OUTPUT"])
(output / "model" / "code").mkdir(parents=True)
(output / "model" / "model.pkl").write_bytes(cloudpickle.dumps(model))
(output / "model" / "code" / "quick_model.py").write_text('''
import pathlib, pickle

class Around:
    def __init__(self, model):
        self.get_raw_model, self.predict = lambda: model, lambda rows, params=None: model.predict(rows)

def _load_pyfunc(path):
    return Around(pickle.loads((pathlib.Path(path) / "model.pkl").read_bytes()))
''')
inputs = json.dumps([{"type": "double", "name": name, "required": True} for name in columns])
outputs = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}])
(output / "model" / "MLmodel").write_text(json.dumps({  # JSON is YAML
    "flavors": {"python_function": {
        "loader_module": "quick_model", "code": "code", "python_version": platform.python_version(),
    }},
    "signature": {"inputs": inputs, "outputs": outputs},
}))
(output / "metrics.json").write_text(json.dumps({"train_accuracy": right / len(rows)}))
print("trained on", len(rows), "rows")
"""

# The smallest folder that MLflow loads: no scikit-learn, no pandas, so that tests of the contract stay fast.
BARE_MODEL = '''
import os, pathlib
out = pathlib.Path(os.environ["MLP_OUTPUT"]) / "model"
out.mkdir(parents=True)
(out / "MLmodel").write_text("""flavors:
  python_function: {loader_module: nothing}
signature: {inputs: '[{"name": "x", "type": "double"}]', outputs: '[{"type": "long"}]'}
""")
(out / "weights").write_text(os.environ["MLP_SEED"])
print("made a model")
'''


@dataclass(frozen=True)
class ModelRepo:
    """A model repository in ``path`` whose model is called ``name``."""

    path: Path
    name: str

    def write(self, file: str, text: str) -> None:
        target = self.path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.path), *arguments], capture_output=True, text=True, check=True, env=os.environ
        )
        return done.stdout.strip()

    def commit(self, message: str = "Change") -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)

    def dvc(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "dvc", *arguments],
            cwd=self.path,
            check=True,
            capture_output=True,
            env={**os.environ, "CI": "1"},
        )

    def spec(self, **changes: object) -> None:
        """Write model.yaml with these sections changed: ``spec(train={"seed": 3})``."""
        value = yaml.safe_load((self.path / "model.yaml").read_text())
        for section, change in changes.items():
            if isinstance(change, dict) and isinstance(value.get(section), dict):
                value[section].update(change)
            else:
                value[section] = change
        self.write("model.yaml", yaml.safe_dump(value, sort_keys=False))


def rows(count: int, seed: int, *, flip: float = 0.15) -> str:
    """CSV with id, x, noise, kind and the target y, which x decides but for a share ``flip``."""
    import random

    chance = random.Random(seed)
    lines = ["id,x,noise,kind,y"]
    for number in range(count):
        x, noise = chance.gauss(0, 1), chance.gauss(0, 1)
        y = int(x > 0) if chance.random() > flip else int(x <= 0)
        lines.append(f"{seed}-{number},{x:.4f},{noise:.4f},{'ab'[number % 2]},{y}")
    return "\n".join(lines) + "\n"


def make_repo(folder: Path, train: str = BARE_MODEL, *, remote: bool = False) -> ModelRepo:
    """A committed model repository; its data is tracked as by DVC (``remote``: really by DVC, pushed to a folder)."""
    repo = ModelRepo(path=folder / "repo", name=f"m-{uuid.uuid4().hex[:8]}")
    repo.path.mkdir(parents=True)
    repo.git("init", "-q", "-b", "main")
    repo.write("data/train.csv", rows(600, 1))
    repo.write("data/test.csv", rows(400, 2))
    repo.write("train.py", train)
    repo.write("params.yaml", "c: 1.0\n")
    repo.write(".gitignore", "__pycache__/\n.mlp/\n")
    repo.write("README.md", "# A model\n")
    spec = {
        "apiVersion": "mlp-ci/v1",
        "name": repo.name,
        "team": "growth",
        "data": {
            "train": "data/train.csv",
            "test": "data/test.csv",
            "key": ["id"],
            "target": "y",
            "columns": {"x": {"type": "float"}, "noise": {"type": "float"}},
        },
        "train": {"command": "python train.py", "params": "params.yaml", "seed": 17, "timeout": "60s"},
        "evaluate": {"gates": [{"metric": "accuracy", "min": 0.6}]},
    }
    repo.write("model.yaml", yaml.safe_dump(spec, sort_keys=False))
    if remote:
        for path, (mode, content) in _pushed().items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.replace(b"ELSEWHERE", str(folder / "storage").encode()))
            file.chmod(mode)
    else:
        for name in ("train", "test"):
            track(repo, f"data/{name}.csv")
    repo.commit("Start the model")
    return repo


@cache
def _pushed() -> dict[str, tuple[int, bytes]]:
    """Mode and content of the files that real DVC makes when it tracks and pushes the data; once for each process."""
    with TemporaryDirectory(prefix="mlp-dvc-") as place:
        repo = ModelRepo(path=Path(place) / "repo", name="")
        repo.path.mkdir()
        repo.git("init", "-q")
        repo.write("data/train.csv", rows(600, 1))
        repo.write("data/test.csv", rows(400, 2))
        storage = Path(place) / "storage"
        storage.mkdir()
        repo.dvc("init", "-q")
        repo.dvc("remote", "add", "-q", "-d", "storage", str(storage))
        repo.dvc("add", "-q", "data/train.csv", "data/test.csv")
        repo.dvc("push", "-q")
        config = repo.path / ".dvc/config"
        config.write_text(config.read_text().replace(str(storage), "ELSEWHERE"))
        made = [*storage.rglob("*"), *repo.path.glob("data/*"), *repo.path.glob(".dvc*"), config]
        made += [repo.path / ".dvc/.gitignore", *repo.path.glob(".dvc/cache/**/*")]
        files = {file for file in made if file.is_file()}
        return {str(f.relative_to(place)): (f.stat().st_mode & 0o777, f.read_bytes()) for f in files}


def begin_dvc(repo: ModelRepo, storage: Path) -> None:
    """What ``dvc init`` and ``dvc remote add`` leave there, with its remote at ``storage``."""
    for path, (_, content) in _pushed().items():
        if path in {"repo/.dvcignore", "repo/.dvc/.gitignore", "repo/.dvc/config"}:
            repo.write(path.removeprefix("repo/"), content.decode().replace("ELSEWHERE", str(storage)))


def track(repo: ModelRepo, path: str) -> None:
    """Write what ``dvc add`` writes, without the second that starting DVC takes."""
    import hashlib

    content = (repo.path / path).read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    name = Path(path).name
    repo.write(f"{path}.dvc", f"outs:\n- md5: {md5}\n  size: {len(content)}\n  hash: md5\n  path: {name}\n")
    ignore = repo.path / Path(path).parent / ".gitignore"
    lines = ignore.read_text().splitlines() if ignore.exists() else []
    if f"/{name}" not in lines:
        ignore.write_text("\n".join([*lines, f"/{name}"]) + "\n")
