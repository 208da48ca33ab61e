"""Trains the model. The training contract, whatever the framework:

gets    MLP_DATA_TRAIN, MLP_PARAMS (paths), MLP_SEED, MLFLOW_TRACKING_URI and MLFLOW_RUN_ID for logging of your own,
        MLP_CHECKPOINTS: a folder that a resumed training finds as the one before left it
leaves  an MLflow model with a signature in $MLP_OUTPUT/model and, if it likes, numbers in $MLP_OUTPUT/metrics.json

The held-out data is not among them, on purpose. `mlp-ci train` runs this file exactly as CI does.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import mlflow.sklearn
import pandas as pd
import xgboost
import yaml
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

CATEGORIES = ["channel"]
NUMBERS = ["amount"]
TARGET = "returned"
PACKAGES = ("mlflow", "scikit-learn", "pandas", "cloudpickle")


def main() -> None:
    rows = pd.read_csv(os.environ["MLP_DATA_TRAIN"])
    params = yaml.safe_load(Path(os.environ["MLP_PARAMS"]).read_text())
    features, target = rows[CATEGORIES + NUMBERS], rows[TARGET]
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), CATEGORIES), remainder="passthrough")
    classifier = boosted(columns.fit_transform(features), target, params)
    model = make_pipeline(columns, classifier)

    output = Path(os.environ["MLP_OUTPUT"])
    mlflow.sklearn.save_model(
        model,
        output / "model",
        signature=infer_signature(features, model.predict_proba(features)),
        input_example=features.head(3),
        pyfunc_predict_fn="predict_proba",
        # xgboost may be installed as xgboost-cpu, so its version is asked of the package itself.
        pip_requirements=[*(f"{name}=={version(name)}" for name in PACKAGES), f"xgboost=={xgboost.__version__}"],
        serialization_format="cloudpickle",
    )
    metrics = {"train_rows": len(rows), "train_accuracy": model.score(features, target)}
    (output / "metrics.json").write_text(json.dumps(metrics))


def boosted(matrix, target, params) -> xgboost.XGBClassifier:
    """Boost a few rounds at a time, with a checkpoint after each: a lost machine costs at most those few."""
    checkpoint = Path(os.environ["MLP_CHECKPOINTS"]) / "booster.ubj"
    settings = {"max_depth": params["max_depth"], "learning_rate": params["learning_rate"], "n_jobs": 1}
    booster, done = None, 0
    if checkpoint.exists():
        booster = xgboost.Booster(model_file=checkpoint)
        done = booster.num_boosted_rounds()
        print(f"going on after round {done}")
    while done < params["rounds"] or booster is None:
        # The seed names the rounds, so that a resumed training draws what an undisturbed one would have drawn.
        seed = int(os.environ["MLP_SEED"]) + done
        count = min(params["checkpoint_rounds"], params["rounds"] - done)
        classifier = xgboost.XGBClassifier(n_estimators=count, random_state=seed, **settings)
        booster = classifier.fit(matrix, target, xgb_model=booster).get_booster()
        done = booster.num_boosted_rounds()
        unfinished = checkpoint.with_suffix(".new.ubj")
        booster.save_model(unfinished)
        unfinished.replace(checkpoint)  # whole or not at all
        print(f"round {done} of {params['rounds']}")
    classifier = xgboost.XGBClassifier(n_estimators=done, **settings)
    classifier.load_model(checkpoint)
    return classifier


if __name__ == "__main__":
    main()
