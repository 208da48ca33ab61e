"""Which packages an image needs: those of our server, and those that the model asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.serve.model import read_description

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# What `python -m mlp_ci.serve.server` imports; a test looks whether it imports anything else.
SERVER = (
    "uvicorn>=0.34",
    "httptools>=0.6.4",
    "uvloop>=0.21",
    "starlette>=0.46",
    "orjson>=3.10",
    "pyyaml>=6.0.2",
    "numpy>=2.0",
    "pandas>=2.3",
)
# What a model is loaded with where it does not say itself what it needs: flavour of MLflow → packages.
OF_FLAVOURS = {
    "sklearn": ("scikit-learn",),
    "onnx": ("onnx", "onnxruntime"),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "catboost": ("catboost",),
    "pytorch": ("torch",),
    "statsmodels": ("statsmodels",),
}
# Where packages come from is for the machine that fetches them to say, not for the model.
_OF_THE_INDEX = re.compile(r"(--index-url|-i|--extra-index-url|--find-links|-f|--trusted-host|--no-binary|--pre)\b")
_HASH = re.compile(r"\s--hash[= ]\S+")


@dataclass(frozen=True)
class Needs:
    """Requirements as a package manager reads them, and constraints on whatever else comes with them."""

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()


def needs_of(folder: Path) -> Needs:
    """What the image of the model in ``folder`` needs; raises InputError where the model does not let it be known."""
    description = read_description(folder)
    flavours = dict(description["flavors"])
    file = folder / "requirements.txt"
    if file.is_file():
        asked, constraints = _read(file)
    else:
        asked, constraints = _by_flavour(folder, flavours), ()
    if (flavours.get("sklearn") or {}).get("serialization_format") == "cloudpickle":
        asked = (*asked, "cloudpickle")
    return Needs(tuple(dict.fromkeys((*SERVER, *asked))), constraints)


def _by_flavour(folder: Path, flavours: Mapping[str, Any]) -> tuple[str, ...]:
    known = [package for name in flavours for package in OF_FLAVOURS.get(name, ())]
    if not known:
        msg = f"the model in {folder} does not say which packages it needs, and its flavours do not tell"
        raise InputError(msg, fix="save it with `pip_requirements`, so that it has a requirements.txt")
    return ("mlflow-skinny", *known)


def _read(file: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The requirements and the constraints that a model's requirements.txt names."""
    from packaging.requirements import InvalidRequirement, Requirement

    requirements: list[str] = []
    constraints: list[str] = []
    for number, line in _lines(file):
        option, _, value = line.partition(" ")
        if option in ("-c", "--constraint"):
            constraints += [text for _, text in _lines(file.parent / value.strip())]
        elif not _OF_THE_INDEX.match(line):
            try:
                requirements.append(_lean(Requirement(_HASH.sub("", line))))
            except InvalidRequirement as error:
                msg = f"the model's requirements.txt asks for {line!r}, which is no name of a package with versions"
                fix = "save the model with `pip_requirements` that name packages, such as `scikit-learn==1.7.2`"
                raise InputError(msg, why=str(error), fix=fix, file=str(file), line=number) from error
    return tuple(requirements), tuple(constraints)


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        msg = f"{file.name} of the model cannot be read: {error}"
        raise InputError(msg, fix="save the model again", file=str(file)) from error
    for number, line in enumerate(text.replace("\\\n", " ").splitlines(), 1):
        stripped = re.sub(r"(^|\s)#.*", "", line).strip()
        if stripped:
            yield number, stripped


def _lean(requirement: Any) -> str:
    """The same without what serving never uses: loading a model takes mlflow-skinny, a tenth of all of MLflow."""
    if requirement.name.lower() == "mlflow":
        requirement.name = "mlflow-skinny"
        requirement.extras = set()
    if requirement.url:
        msg = f"the model's requirements.txt asks for {requirement.name} from an address"
        why = "what lies there may be something else tomorrow"
        raise InputError(msg, why=why, fix="publish it to your package index, and ask for it by name and version")
    return str(requirement)
