"""Which data an argument of ``mlp-ci data`` means: files or an address, now or as they were at a git revision."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping


def here(what: str, types: Mapping[str, str] | None = None) -> Source:
    """What lies at a path or an address now. Raises InputError when nothing does."""
    if "://" not in what and not glob.has_magic(what) and not Path(what).exists():
        msg = f"there is no {what}"
        tracked = Path(f"{what}.dvc").is_file()
        fix = f"DVC tracks it: `dvc pull {what}` brings it here" if tracked else "correct the path"
        raise InputError(msg, fix=fix)
    return Source.parse(what, types=types)
