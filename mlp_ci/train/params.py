"""The params file with some values replaced: what a search chose, merged into what the team wrote."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.train.output import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TextIO

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.spec.sweep import Scalar
    from mlp_ci.tracking import Tracking
    from mlp_ci.train.key import TrainKey

    Search = Callable[[Context, ModelSpec, TrainKey, Tracking, TextIO], "Chosen"]


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Values for the params file, by dotted name, and tags of the run that say where they come from."""

    values: Mapping[str, Scalar]
    tags: Mapping[str, str] = field(default_factory=dict)


SWEEP_PARAMS = "mlp.sweep_params"


def noted(tags: Mapping[str, str]) -> Chosen | None:
    """The values that a search chose for a run, as its tags say; None for a run that was not searched for."""
    try:
        values = json.loads(tags.get(SWEEP_PARAMS) or "null")
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    return Chosen(values=values, tags={k: v for k, v in tags.items() if k.startswith("mlp.sweep")})


def write_merged(repo: Path, path: str, values: Mapping[str, Scalar], folder: Path) -> Path:
    """A copy of the params file in ``folder`` with ``values`` in it; same name, same format.

    A name is a key of the file, or keys joined with dots. InputError for one that the file does not have: a command
    that never reads it would make every trial the same.
    """
    document = read_document(repo / path, path)
    missing = [name for name in values if not _replace(document, name, values[name])]
    if missing:
        raise _unknown(missing[0], document, path)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (repo / path).name
    file.write_text(_text(document, path), encoding="utf-8")
    return file


def read_document(file: Path, path: str) -> dict[str, Any]:
    """The params file as nested values; InputError when it is neither YAML nor JSON, or holds no keys."""
    import yaml

    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        msg = f"{path} is not valid YAML: {getattr(error, 'problem', error)}"
        raise InputError(msg, fix="mend the line", file=path, line=mark.line + 1 if mark else 0) from error
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise InputError(msg, fix=f"add {path}, or take train.params out of model.yaml", file="model.yaml") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        msg = f"{path} holds no keys"
        raise InputError(msg, why="params are names and values", fix="write lines such as `depth: 3`", file=path)
    return value


def _replace(document: dict[str, Any], name: str, value: Scalar) -> bool:
    """Set one value in place; False where the document has no such name."""
    if name in document:
        if isinstance(document[name], dict):
            return False
        document[name] = value
        return True
    for cut in (i for i, letter in enumerate(name) if letter == "."):
        inner = document.get(name[:cut])
        if isinstance(inner, dict) and _replace(inner, name[cut + 1 :], value):
            return True
    return False


def _unknown(name: str, document: Mapping[str, Any], path: str) -> InputError:
    names = list(flatten(dict(document)))
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    fix = f"did you mean `{close[0]}`?" if close else f"add it to {path} with a value of its own"
    return InputError(f"{path} has no parameter {name!r}, but train.sweep searches it", fix=fix, file="model.yaml")


def _text(document: Mapping[str, Any], path: str) -> str:
    import yaml

    if path.endswith(".json"):
        return json.dumps(document, indent=2) + "\n"
    return str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True))
