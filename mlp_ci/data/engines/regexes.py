"""Regular expressions of ``model.yaml`` (RE2) as other databases read them, anchored at both ends.

What is the same everywhere stays. Classes mean ASCII, as in RE2. One difference is left: a negated class of
PostgreSQL does not match a line break.
"""

from __future__ import annotations

import re

_OUTSIDE = {
    "b": r"\y",
    "B": r"\Y",
    "z": r"\Z",
    "d": "[0-9]",
    "w": "[0-9A-Za-z_]",
    "s": r"[\t\n\f\r ]",
    "D": "[^0-9]",
    "W": "[^0-9A-Za-z_]",
    "S": r"[^\t\n\f\r ]",
}
_INSIDE = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
# The dot stops at line breaks (p); with RE2's m also ^ and $ look at lines (n), with its s the dot does not stop.
_MODES = {"": "p", "m": "n", "s": "s", "ms": "w"}
_TOKEN = re.compile(r"\\.|\[:\^?\w+:\]|\[\^?\]?|\]|\(\?P<\w+>", re.DOTALL)


def postgres(pattern: str) -> str:
    """For PostgreSQL's ``~``."""
    flags = re.match(r"\(\?([ims]+)\)", pattern)
    letters = set(flags[1]) if flags else set()
    mode = _MODES["".join(sorted(letters - {"i"}))] + ("i" if "i" in letters else "")
    inside = False

    def rewritten(token: re.Match[str]) -> str:
        nonlocal inside
        text = token[0]
        if text.startswith("\\"):
            return (_INSIDE if inside else _OUTSIDE).get(text[1:], text)
        if text.startswith("(?P<"):
            return text if inside else "("
        inside = text != "]" if inside else text.startswith("[")
        return text

    body = _TOKEN.sub(rewritten, pattern[flags.end() :] if flags else pattern)
    return f"(?{mode})\\A(?:{body})\\Z"


def java(pattern: str) -> str:
    """For Spark's ``RLIKE``, which is Java's."""
    body = re.sub(r"\(\?P<", "(?<", spaces(pattern))
    return rf"(?d)\A(?:{body})\z"


def spaces(pattern: str) -> str:
    """For readers whose white space has a vertical tab, which RE2's has not."""
    inside = False

    def rewritten(token: re.Match[str]) -> str:
        nonlocal inside
        text = token[0]
        if text in (r"\s", r"\S"):
            return text if inside and text == r"\S" else (_INSIDE if inside else _OUTSIDE)[text[1:]]
        if not text.startswith(("\\", "(?P<")):
            inside = text != "]" if inside else text.startswith("[")
        return text

    return _TOKEN.sub(rewritten, pattern)
