"""What a request may tell a model besides its rows: the ``params`` that its MLflow signature declares."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.payload import BadRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

_WORDS = {
    "double": "a number",
    "float": "a number",
    "integer": "a whole number",
    "long": "a whole number",
    "boolean": "true or false",
    "string": "text",
    "datetime": "an ISO 8601 time",
}


@dataclass(frozen=True)
class Params:
    """The params that a model declares, as its MLmodel has them; most declare none."""

    declared: tuple[Mapping[str, Any], ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Their names, in the order of the signature."""
        return tuple(str(one["name"]) for one in self.declared)

    def checked(self, given: Any) -> dict[str, Any] | None:
        """The values as ``predict`` gets them, None where there are none; raises BadRequest that names the param.

        What is not given has its default, which MLflow fills in.
        """
        if given is None or given == {}:
            return None
        if not isinstance(given, dict):
            msg = "params must be an object of values by name"
            raise BadRequest(msg)
        unknown = next((name for name in given if name not in self.names), None)
        if unknown is not None:
            known = f"it declares {', '.join(self.names)}" if self.names else "its signature declares none"
            msg = f"the model takes no param {unknown[:60]}; {known}"
            raise BadRequest(msg)
        return {name: self._value(name, value) for name, value in given.items()}

    def known(self, given: Any) -> dict[str, Any] | None:
        """The same of an Open Inference request's ``parameters``, of which some may be that protocol's own."""
        if not self.declared or given is None:
            return None
        if not isinstance(given, dict):
            msg = "parameters must be an object of values by name"
            raise BadRequest(msg)
        return self.checked({name: value for name, value in given.items() if name in self.names})

    def _value(self, name: str, value: Any) -> Any:
        from mlflow.exceptions import MlflowException
        from mlflow.types.schema import ParamSpec

        spec = self._specs[name]
        try:
            return ParamSpec.validate_param_spec(value, spec)
        except MlflowException:
            shown = json.dumps(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            kind = next(one for one in self.declared if one["name"] == name)
            expected = _WORDS.get(str(kind.get("type")), "an object with the keys that the signature declares")
            expected = f"a list, each item {expected}" if kind.get("shape") else expected
            msg = f"param {name}: {shown} is not {expected}"
            raise BadRequest(msg) from None

    @cached_property
    def _specs(self) -> dict[str, Any]:
        from mlflow.types.schema import ParamSpec

        return {str(one["name"]): ParamSpec.from_json_dict(**one) for one in self.declared}


def compile_params(declared: str | None) -> Params:
    """From the ``signature.params`` JSON of an MLmodel file."""
    return Params(tuple(json.loads(declared) or ()) if declared else ())
