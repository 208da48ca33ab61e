"""A job's log as something to read: colours stripped, groups folded, errors and warnings marked, one part per step."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

# CSI sequences, OSC sequences (titles, links), and the two-character rest.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_COMMAND = re.compile(r"(?:##\[(\w+)\]|::([a-z-]+)(?: [^:]*)?::)(.*)")
_TONES = {"error": "bad", "warning": "wait", "notice": "note", "debug": "dim", "command": "dim"}
MAX_LINES = 5000


@dataclass
class Piece:
    """A line (``title`` empty), or a folded group of lines."""

    text: str = ""
    tone: str = ""
    title: str = ""
    lines: list[Piece] = field(default_factory=list)


@dataclass
class Part:
    """The lines of one step; ``step`` is GitHub's record of it, None for what comes before the first."""

    title: str
    step: dict[str, Any] | None
    pieces: list[Piece] = field(default_factory=list)


def clean(text: str) -> str:
    """Without terminal sequences and other control characters; of a progress bar only the last state is left."""
    text = _ANSI.sub("", text).rstrip("\r").rpartition("\r")[2]
    return "".join(c for c in text if c == "\t" or (c >= " " and c != "\x7f"))


def parts(log: str, steps: list[dict[str, Any]]) -> tuple[list[Part], int]:
    """The log by steps, and how many lines at its start were left out for length.

    The runner writes a group ``Run <name>`` where a step begins. Steps that wrote nothing get an empty part.
    """
    lines = log.split("\n")
    if lines and not lines[-1]:
        lines.pop()
    left_out = max(len(lines) - MAX_LINES, 0)
    waiting = list(steps)
    found = [Part("Set up", None)]
    group: Piece | None = None
    for line in lines[left_out:]:
        text = clean(line)
        command, rest = _command(text)
        if command == "group":
            group = None
            step = _next(waiting, found, rest)
            if step is None:
                group = Piece(title=rest or "…")
                found[-1].pieces.append(group)
        elif command == "endgroup":
            group = None
        else:
            piece = Piece(rest, _TONES[command]) if command in _TONES else Piece(text)
            (group.lines if group else found[-1].pieces).append(piece)
    found += [Part(str(step.get("name", "")), step) for step in waiting]
    return [part for part in found if part.step or part.pieces], left_out


def _next(waiting: list[dict[str, Any]], found: list[Part], title: str) -> dict[str, Any] | None:
    """The step that a group's title announces; those before it in the list wrote nothing."""
    names = [f"Run {step.get('name', '')}" for step in waiting]
    if title not in names:
        return None
    for _ in range(names.index(title)):
        silent = waiting.pop(0)
        found.append(Part(str(silent.get("name", "")), silent))
    step = waiting.pop(0)
    found.append(Part(str(step.get("name", "")), step))
    return step


def _command(text: str) -> tuple[str, str]:
    match = _COMMAND.match(text)
    if not match:
        return "", text
    name = match[1] or match[2]
    known = name in _TONES or name in ("group", "endgroup")
    return (name, match[3]) if known else ("", text)
