"""A model in any language: a folder with a program ``predict`` becomes an MLflow model that everything else can load.

The program stands in ``$MLP_OUTPUT/model/predict``, with whatever it needs beside it. It reads CSV with a header line
from standard input (the features of model.yaml, in their order) and prints one prediction per row, in the order of
the rows: a number, or a class. It is started in its own folder, once for each call of the model.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from mlp_ci.spec import ModelSpec

PROGRAM = "predict"
LOADER = "any_folder_loader"
# What MLflow calls the types of model.yaml.
TYPES = {"int": "long", "float": "double", "string": "string", "bool": "boolean", "timestamp": "datetime"}


def made_loadable(folder: Path, spec: ModelSpec) -> bool:
    """Write what MLflow needs into a folder that has a program ``predict`` and no ``MLmodel``; whether it did.

    The folder stays complete in itself: it can be loaded where mlp-ci is not installed.
    """
    program = folder / PROGRAM
    if (folder / "MLmodel").exists() or not program.is_file():
        return False
    if not os.access(program, os.X_OK):
        msg = "$MLP_OUTPUT/model/predict is not a program that can be started"
        raise InputError(msg, fix='end the training command with `chmod +x "$MLP_OUTPUT/model/predict"`')
    code = folder / "code"
    code.mkdir(exist_ok=True)
    shutil.copyfile(Path(__file__).with_name(f"{LOADER}.py"), code / f"{LOADER}.py")
    (folder / "requirements.txt").write_text("mlflow\npandas\n", encoding="utf-8")
    (folder / "MLmodel").write_text(_description(spec), encoding="utf-8")
    return True


def _description(spec: ModelSpec) -> str:
    import yaml

    columns = [
        {"name": name, "type": TYPES.get(spec.data.columns[name].type, "string"), "required": False}
        for name in spec.data.features
    ]
    flavor = {"loader_module": LOADER, "code": "code", "env": {"virtualenv": "requirements.txt"}}
    value = {
        "flavors": {"python_function": flavor},
        "signature": {"inputs": json.dumps(columns), "outputs": None, "params": None},
    }
    return yaml.safe_dump(value, sort_keys=True)
