"""Facts that one version of mlp-ci writes as JSON and another reads: what runs outlives an upgrade of its deployer."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def known(kind: type, raw: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``raw`` that the dataclass ``kind`` has; a newer mlp-ci may have written others."""
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in raw.items() if name in names}
