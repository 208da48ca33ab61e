"""Trains the model. The training contract, whatever the framework:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED, MLFLOW_TRACKING_URI and MLFLOW_RUN_ID for logging of your own,
        MLP_CHECKPOINTS: a folder that a resumed training finds as the one before left it
leaves  an MLflow model with a signature in $MLP_OUTPUT/model and, if it likes, numbers in $MLP_OUTPUT/metrics.json

The held-out data is not among them, on purpose. `mlp-ci train` runs this file exactly as CI does.
"""

import json
import os
import signal
from importlib.metadata import version
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import pandas as pd
import torch
import yaml
from mlflow.models import infer_signature
from torch import nn

CHANNELS = ["app", "shop", "web"]
FEATURES = ["channel", "amount"]
TARGET = "returned"
PACKAGES = ("mlflow", "pandas", "numpy", "cloudpickle", "torch")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepared(rows: pd.DataFrame) -> torch.Tensor:
    """(rows, 4) numbers: one column per channel and the amount, in hundreds."""
    columns = [(rows["channel"] == name).to_numpy(dtype=np.float32) for name in CHANNELS]
    columns.append(rows["amount"].fillna(0).to_numpy(dtype=np.float32) / 100)
    return torch.from_numpy(np.stack(columns, axis=1))


def network(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(len(CHANNELS) + 1, hidden), nn.ReLU(), nn.Linear(hidden, 1))


class Returns(mlflow.pyfunc.PythonModel):
    """What serving and evaluation load: rows in, the probability of a return out."""

    def load_context(self, context) -> None:
        kept = torch.load(context.artifacts["weights"], map_location="cpu", weights_only=True)
        self.net = network(kept["hidden"])
        self.net.load_state_dict(kept["state"])
        self.net.eval()

    def predict(self, context, model_input: pd.DataFrame, params=None) -> np.ndarray:
        with torch.inference_mode():
            return torch.sigmoid(self.net(prepared(model_input))).squeeze(1).numpy()


def main() -> None:
    rows = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
    params = yaml.safe_load(Path(os.environ["MLP_PARAMS"]).read_text())
    # The same seed gives the same weights; on a GPU some layers also need CUBLAS_WORKSPACE_CONFIG=:4096:8.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    net = fitted(prepared(rows).to(DEVICE), torch.tensor(rows[TARGET], dtype=torch.float32).to(DEVICE), params)

    output = Path(os.environ["MLP_OUTPUT"])
    weights = output / "weights.pt"
    torch.save({"hidden": params["hidden"], "state": net.cpu().state_dict()}, weights)
    features = rows[FEATURES]
    with torch.inference_mode():
        probability = torch.sigmoid(net(prepared(features))).squeeze(1).numpy()
    mlflow.pyfunc.save_model(
        output / "model",
        python_model=Returns(),
        artifacts={"weights": str(weights)},
        signature=infer_signature(features, probability),
        input_example=features.head(3),
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in PACKAGES],
    )
    right = float(((probability > 0.5) == (rows[TARGET] == 1)).mean())
    (output / "metrics.json").write_text(json.dumps({"train_rows": len(rows), "train_accuracy": right}))


def fitted(features: torch.Tensor, target: torch.Tensor, params) -> nn.Module:
    """Train with a checkpoint after every epoch; a resumed training ends with the same weights."""
    seed = int(os.environ["MLP_SEED"])
    torch.manual_seed(seed)
    net = network(params["hidden"]).to(DEVICE)
    optimizer = torch.optim.Adam(net.parameters(), lr=params["learning_rate"])
    checkpoint = Path(os.environ["MLP_CHECKPOINTS"]) / "last.pt"
    first = 0
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=DEVICE, weights_only=True)
        net.load_state_dict(kept["net"])
        optimizer.load_state_dict(kept["optimizer"])
        first = kept["epoch"] + 1
        print(f"going on after epoch {first}")
    # SIGTERM means that the machine is being taken away: the epoch's checkpoint is enough, so just end.
    signal.signal(signal.SIGTERM, lambda number, frame: exit(143))
    for epoch in range(first, params["epochs"]):
        # Shuffled by epoch and seed, not by what was drawn before: a resumed epoch sees the same order.
        order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed * 1000 + epoch))
        total = 0.0
        for rows in order.split(params["batch_size"]):
            loss = nn.functional.binary_cross_entropy_with_logits(net(features[rows]).squeeze(1), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
        unfinished = checkpoint.with_suffix(".new")
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}, unfinished)
        unfinished.replace(checkpoint)  # whole or not at all
        print(f"epoch {epoch + 1} of {params['epochs']}: loss {total / len(order):.4f} on {DEVICE}")
    return net


if __name__ == "__main__":
    main()
