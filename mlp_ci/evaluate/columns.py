"""Which columns a model may read of the held-out rows, and whether it asks for others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.spec import ModelSpec

MODEL_FILE = "MLmodel"


def features_of(frame: Any, spec: ModelSpec) -> Any:
    """What a model may be given: the columns that model.yaml describes, keys, time and group; never the target."""
    known = [*spec.data.columns, *spec.data.key, spec.data.time, spec.evaluate.group]
    names = dict.fromkeys(name for name in known if name in frame.columns and name != spec.data.target)
    return frame[list(names)]


def check_reads(folder: Path, frame: Any, spec: ModelSpec) -> None:
    """InputError when the signature of the model in ``folder`` asks for a column that it may not read, or for one that
    the held-out rows lack."""
    wanted = required_by(folder)
    allowed = set(features_of(frame, spec).columns)
    missing = [name for name in wanted if name not in allowed]
    if spec.data.target in missing:
        msg = f"the model reads {spec.data.target}, the target"
        fix = f"train without {spec.data.target}: what is to be predicted is not known when a prediction is asked for"
        raise InputError(msg, fix=fix)
    if not missing:
        return
    names = ", ".join(missing[:20])
    if all(name in frame.columns for name in missing):
        msg = f"the model reads {names}, which data.columns of model.yaml does not describe"
        fix = "describe it there, so that it is validated, watched and served; or train without it"
        raise InputError(msg, fix=fix, file="model.yaml")
    absent = ", ".join(name for name in missing if name not in frame.columns)
    msg = f"the model reads {absent}, and {spec.data.test} has no such column"
    raise InputError(msg, fix=f"add it to the held-out data, which has {', '.join(map(str, frame.columns))}")


def required_by(folder: Path) -> list[str]:
    """The columns that the signature in ``folder`` requires; none where there is no signature or it names none."""
    import yaml

    try:
        text = (folder / MODEL_FILE).read_text(encoding="utf-8")
        inputs = json.loads((yaml.safe_load(text).get("signature") or {}).get("inputs") or "[]")
        return [str(c["name"]) for c in inputs if c.get("name") is not None and c.get("required", True)]
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError):
        return []  # what is wrong with it is told by loading it
