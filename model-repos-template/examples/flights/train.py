"""Trains the model. The training contract, whatever the framework:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED, MLFLOW_TRACKING_URI and MLFLOW_RUN_ID for logging of your own
leaves  an MLflow model with a signature in $MLP_OUTPUT/model and, if it likes, numbers in $MLP_OUTPUT/metrics.json

The held-out data is not among them, on purpose. `mlp-ci train` runs this file exactly as CI does.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

# Before scikit-learn is imported: on a runner that others use too, its threads wait for each other most of the time,
# and for so little data one is as fast.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlflow.sklearn
import pandas as pd
import yaml
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

CATEGORIES = ["carrier", "origin"]
NUMBERS = ["hour", "weekday", "distance", "wind_speed", "precip"]
TARGET = "delayed"


def main() -> None:
    rows = pd.read_parquet(os.environ["MLP_DATA_TRAIN"], columns=[*CATEGORIES, *NUMBERS, TARGET])
    params = yaml.safe_load(Path(os.environ["MLP_PARAMS"]).read_text())
    features, target = rows.drop(columns=TARGET), rows[TARGET]

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        make_column_transformer((encoder, CATEGORIES), remainder="passthrough"),
        HistGradientBoostingClassifier(
            max_iter=params["iterations"],
            learning_rate=params["learning_rate"],
            max_leaf_nodes=params["max_leaf_nodes"],
            min_samples_leaf=params["min_samples_leaf"],
            l2_regularization=params["l2_regularization"],
            categorical_features=list(range(len(CATEGORIES))),
            random_state=int(os.environ["MLP_SEED"]),
        ),
    ).fit(features, target)

    probabilities = model.predict_proba(features)
    output = Path(os.environ["MLP_OUTPUT"])
    mlflow.sklearn.save_model(
        model,
        output / "model",
        signature=infer_signature(features, probabilities),
        input_example=features.head(3),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "scikit-learn", "pandas", "cloudpickle")],
        serialization_format="cloudpickle",
    )
    metrics = {"train_rows": len(rows), "train_roc_auc": roc_auc_score(target, probabilities[:, 1])}
    (output / "metrics.json").write_text(json.dumps(metrics))
    print(f"trained on {len(rows):,} rows, roc_auc there {metrics['train_roc_auc']:.3f}")


if __name__ == "__main__":
    main()
