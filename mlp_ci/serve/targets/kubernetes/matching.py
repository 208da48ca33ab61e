"""Whether an object of a cluster is what was asked for; what the server added to it is no difference."""

from __future__ import annotations

from typing import Any


def contains(found: Any, wanted: Any) -> bool:
    """Whether ``found`` has all that ``wanted`` says."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(contains(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return not wanted and not found
        return all(map(contains, found, wanted))
    return bool(found == wanted)
