"""The files that promotions rely on: policy, owners, workflows. A change of them needs the platform team."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, SpecError
from mlp_ci.promote.files import model_at
from mlp_ci.spec import MODEL_FILE, PLATFORM_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mlp_ci.github import Hub
    from mlp_ci.spec import ModelSpec

# Where GitHub looks for them. A `.github/actions` folder is code that workflows run.
GUARDED_PATHS = (".github/workflows", ".github/actions", "workflow-templates")
GUARDED_FILES = ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS", PLATFORM_FILE)
_GUARDED = re.compile(rf"(?:{'|'.join(re.escape(p) for p in GUARDED_PATHS)})/.*", re.I | re.S)


def guarded_paths(files: Iterable[str]) -> tuple[str, ...]:
    """Those of ``files`` that the platform team has to approve, whatever is in them."""
    plain = {name.lower() for name in GUARDED_FILES}
    return tuple(sorted(f for f in files if f.lower() in plain or _GUARDED.fullmatch(f)))


def _asked(spec: ModelSpec) -> tuple[object, ...]:
    """What of model.yaml decides who has to approve its promotions."""
    return spec.name, spec.tier, spec.promote, spec.evaluate.on_inconclusive


def guarded_changes(hub: Hub, files: Iterable[str], base: str, head: str) -> tuple[str, ...]:
    """The same, with model.yaml where its name, tier, `promote` or what an undecided gate means has changed."""
    paths = guarded_paths(files)
    if MODEL_FILE not in files or hub.read_file(MODEL_FILE, base) is None:
        return paths
    before = model_at(hub, base)
    try:
        after = model_at(hub, head)
    except (SpecError, InputError):
        return (*paths, f"{MODEL_FILE} (it cannot be read)")
    if _asked(before) != _asked(after):
        return (*paths, f"{MODEL_FILE} (its name, tier, promote or on_inconclusive)")
    return paths
