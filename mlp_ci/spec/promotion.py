"""``promotion.yaml``: which version should be where. The only file that a promotion PR may change."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import Field

from mlp_ci.spec.quantities import ApiVersion, Digest, Name, Strict, VersionNumber, Visible

if TYPE_CHECKING:
    from collections.abc import Mapping


class StageEntry(Strict):
    """The version that a stage should run, bound to the bytes of its artefact."""

    version: VersionNumber = Field(description="Version number in the MLflow registry.")
    digest: Digest = Field(description="SHA-256 over the artefact's files: what is approved is these bytes.")
    evidence: Annotated[
        Digest | None, Field(description="SHA-256 of the evidence that the approvers saw; `mlp-ci promote` writes it.")
    ] = None
    emergency: Annotated[
        Visible,
        Field(max_length=500, description="Why this went ahead without the usual approvals; see platform.yaml."),
    ] = ""

    def same(self, other: StageEntry | None) -> bool:
        """Whether both name the same version with the same bytes: what runs is the same."""
        return other is not None and (self.version, self.digest) == (other.version, other.digest)


class Quarantined(Strict):
    """Bytes that must not be promoted again until a reviewed change takes this entry away."""

    version: VersionNumber = Field(description="Its number when it was taken back.")
    digest: Digest = Field(description="The digest that promotion refuses.")
    reason: Visible = Field("", description="Why.")
    since: datetime = Field(description="When.")


class PromotionSpec(Strict):
    """A whole ``promotion.yaml``."""

    api_version: ApiVersion = Field(alias="apiVersion", description="The version of this format: mlp-ci/v1.")
    model: Name = Field(description="The model, as in model.yaml.")
    stages: dict[Name, StageEntry] = Field({}, description="Stage → version. A stage that is not here runs nothing.")
    quarantine: tuple[Quarantined, ...] = Field((), description="Versions that were rolled back.")


def render_promotion(promotion: PromotionSpec) -> str:
    """The text of a new file: a stable order, so that a promotion PR's diff is the promotion and nothing else."""
    lines = [
        "# Which version should be where. Changed by pull request only; see `mlp-ci promote --help`.",
        f"apiVersion: {promotion.api_version}",
        f"model: {_word(promotion.model)}",
        "stages:" if promotion.stages else "stages: {}",
    ]
    for stage, entry in promotion.stages.items():
        lines.append(f"  {_word(stage)}:")
        lines += [f"    {key}: {_scalar(value)}" for key, value in _fields(entry).items()]
    if promotion.quarantine:
        lines.append("quarantine:")
    for held in promotion.quarantine:
        fields = [f"{key}: {_scalar(value)}" for key, value in _fields(held).items()]
        lines += [f"  - {fields[0]}", *(f"    {field}" for field in fields[1:])]
    return "\n".join(lines) + "\n"


def edited_promotion(text: str, promotion: PromotionSpec) -> str:
    """``text`` changed as little as possible so that it says ``promotion``: comments and ``x-`` keys stay.

    ``text`` is a file that was read without an error; where it is empty, the file is written anew.
    """
    if not text.strip():
        return render_promotion(promotion)
    from io import StringIO

    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    yaml_file = YAML()
    yaml_file.preserve_quotes = True
    yaml_file.width = 2**31
    yaml_file.indent(mapping=2, sequence=4, offset=2)
    file = yaml_file.load(text)
    _edit(file, "stages", {name: _fields(entry) for name, entry in promotion.stages.items()}, CommentedMap)
    held = {q.digest: q for q in promotion.quarantine}
    kept = [item for item in file.get("quarantine") or [] if item.get("digest") in held]
    known = {item.get("digest") for item in kept}
    new = [CommentedMap(_quoted_fields(q)) for digest, q in held.items() if digest not in known]
    if kept or new:
        file["quarantine"] = kept + new if not kept else _extended(file["quarantine"], kept, new)
    else:
        file.pop("quarantine", None)
    stream = StringIO()
    yaml_file.dump(file, stream)
    return stream.getvalue()


def _edit(file: Any, key: str, wanted: Mapping[str, Mapping[str, Any]], new: type) -> None:
    """Bring the mapping ``file[key]`` of small mappings to ``wanted``, touching only what differs."""
    section = file.get(key)
    if not section:
        section = file[key] = new()
    for name in [n for n in section if n not in wanted and not str(n).startswith("x-")]:
        del section[name]
    for name, fields in wanted.items():
        entry = section.setdefault(name if _word(name) == name else _in_quotes(name), new())
        for old in [f for f in entry if f not in fields and not str(f).startswith("x-")]:
            del entry[old]
        for field, value in fields.items():
            if entry.get(field) != value:
                entry[field] = _in_quotes(value)


def _extended(sequence: Any, kept: list[Any], new: list[Any]) -> Any:
    for item in [i for i in sequence if i not in kept]:
        sequence.remove(item)
    sequence.extend(new)
    return sequence


def _quoted_fields(item: StageEntry | Quarantined) -> dict[str, Any]:
    return {key: _in_quotes(value) for key, value in _fields(item).items()}


def _in_quotes(value: Any) -> Any:
    from ruamel.yaml.scalarstring import DoubleQuotedScalarString

    return DoubleQuotedScalarString(value) if isinstance(value, str) else value


def _fields(item: StageEntry | Quarantined) -> dict[str, Any]:
    """The fields that are written: those that say something."""
    values = {"version": item.version, "digest": item.digest}
    if isinstance(item, Quarantined):
        return {**values, "since": item.since, "reason": item.reason}
    values |= {"evidence": item.evidence} if item.evidence else {}
    return values | ({"emergency": item.emergency} if item.emergency else {})


def _scalar(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return _quoted(value) if isinstance(value, str) else str(value)


def _word(name: str) -> str:
    """A name as YAML reads it back: in quotes where it would become a number, true or null."""
    return name if yaml.safe_load(name) == name else _quoted(name)


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=2**31, allow_unicode=True)).strip()
