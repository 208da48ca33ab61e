"""``promotion.yaml``: which version should be where. The only file that a promotion PR may change."""

from __future__ import annotations

from datetime import datetime

import yaml
from pydantic import Field

from mlp_ci.spec.quantities import ApiVersion, Digest, Name, Strict, VersionNumber


class StageEntry(Strict):
    """The version that a stage should run, bound to the bytes of its artefact."""

    version: VersionNumber = Field(description="Version number in the MLflow registry.")
    digest: Digest = Field(description="SHA-256 over the artefact's files: what is approved is these bytes.")


class Quarantined(Strict):
    """Bytes that must not be promoted again until a reviewed change takes this entry away."""

    version: VersionNumber = Field(description="Its number when it was taken back.")
    digest: Digest = Field(description="The digest that promotion refuses.")
    reason: str = Field("", description="Why.")
    since: datetime = Field(description="When.")


class PromotionSpec(Strict):
    """A whole ``promotion.yaml``."""

    api_version: ApiVersion = Field(alias="apiVersion", description="The version of this format: mlp-ci/v1.")
    model: Name = Field(description="The model, as in model.yaml.")
    stages: dict[Name, StageEntry] = Field({}, description="Stage → version. A stage that is not here runs nothing.")
    quarantine: tuple[Quarantined, ...] = Field((), description="Versions that were rolled back.")


def render_promotion(promotion: PromotionSpec) -> str:
    """The file's text: a stable order, so that a promotion PR's diff is the promotion and nothing else."""
    lines = [
        "# Which version should be where. Changed by pull request only; see `mlp-ci promote --help`.",
        f"apiVersion: {promotion.api_version}",
        f"model: {_word(promotion.model)}",
        "stages:" if promotion.stages else "stages: {}",
    ]
    for stage, entry in promotion.stages.items():
        lines += [f"  {_word(stage)}:", f"    version: {entry.version}", f'    digest: "{entry.digest}"']
    if promotion.quarantine:
        lines.append("quarantine:")
    for held in promotion.quarantine:
        lines += [
            f"  - version: {held.version}",
            f'    digest: "{held.digest}"',
            f"    since: {held.since.isoformat()}",
            f"    reason: {_quoted(held.reason)}",
        ]
    return "\n".join(lines) + "\n"


def _word(name: str) -> str:
    """A name as YAML reads it back: in quotes where it would become a number, true or null."""
    return name if yaml.safe_load(name) == name else _quoted(name)


def _quoted(text: str) -> str:
    return str(yaml.safe_dump(text, default_style='"', width=2**31)).strip()
