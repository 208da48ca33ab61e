"""A patch as lines with their numbers on both sides, ready for a table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.objects import Change

_HUNK = re.compile(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@")
MAX_LINES = 3000
MAX_LINES_TOGETHER = 20_000
FOLD_OVER = 400


@dataclass(frozen=True)
class Line:
    """``kind``: add | del | same | hunk | note; a side's number is None where the line is not on it."""

    kind: str
    old: int | None
    new: int | None
    text: str


@dataclass(frozen=True)
class FileDiff:
    change: Change
    lines: list[Line]
    cut: bool

    @property
    def folded(self) -> bool:
        return len(self.lines) > FOLD_OVER


def file_diffs(changes: list[Change]) -> list[FileDiff]:
    """A page's worth of every change: long files, and what comes after very many lines, are cut."""
    found, left = [], MAX_LINES_TOGETHER
    for change in changes:
        lines = parse(change.patch or "")
        shown = lines[: min(MAX_LINES, left)]
        left -= len(shown)
        found.append(FileDiff(change, shown, len(shown) < len(lines)))
    return found


def parse(patch: str) -> list[Line]:
    """The lines of hunks as git prints them; text is without its sign."""
    lines: list[Line] = []
    old = new = 0
    for text in patch.split("\n") if patch else []:
        start = _HUNK.match(text)
        if start:
            old, new = int(start[1]), int(start[2])
            lines.append(Line("hunk", None, None, text))
        elif text.startswith("+"):
            lines.append(Line("add", None, new, text[1:]))
            new += 1
        elif text.startswith("-"):
            lines.append(Line("del", old, None, text[1:]))
            old += 1
        elif text.startswith("\\"):
            lines.append(Line("note", None, None, text))
        else:
            lines.append(Line("same", old, new, text[1:]))
            old, new = old + 1, new + 1
    return lines
