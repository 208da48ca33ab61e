"""Trains the model. The training contract, whatever the framework:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED, MLFLOW_TRACKING_URI and MLFLOW_RUN_ID for logging of your own
leaves  an MLflow model with a signature in $MLP_OUTPUT/model and, if it likes, numbers in $MLP_OUTPUT/metrics.json

The held-out data is not among them, on purpose. `mlp-ci train` runs this file exactly as CI does.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import lightgbm
import mlflow.sklearn
import pandas as pd
import yaml
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

CATEGORIES = ["channel"]
NUMBERS = ["amount"]
TARGET = "returned"
PACKAGES = ("mlflow", "scikit-learn", "pandas", "cloudpickle", "lightgbm")


def main() -> None:
    rows = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
    params = yaml.safe_load(Path(os.environ["MLP_PARAMS"]).read_text())
    features, target = rows[CATEGORIES + NUMBERS], rows[TARGET]
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES), remainder="passthrough"
    )
    # Without these two, the same data on another number of processors gives other trees.
    repeatable = {"deterministic": True, "force_row_wise": True}
    classifier = lightgbm.LGBMClassifier(
        **params, **repeatable, random_state=int(os.environ["MLP_SEED"]), n_jobs=1, verbosity=-1
    )
    model = make_pipeline(columns, classifier).fit(features, target)

    output = Path(os.environ["MLP_OUTPUT"])
    mlflow.sklearn.save_model(
        model,
        output / "model",
        signature=infer_signature(features, model.predict_proba(features)),
        input_example=features.head(3),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=[f"{name}=={version(name)}" for name in PACKAGES],
        serialization_format="cloudpickle",
    )
    metrics = {"train_rows": len(rows), "train_accuracy": model.score(features, target)}
    (output / "metrics.json").write_text(json.dumps(metrics))


if __name__ == "__main__":
    main()
