"""Text from outside (names, titles, answers of servers) as it may be shown: it cannot steer a terminal or a page.

A terminal obeys escape sequences, and a log is forged with newlines; the name of a file or a column, the title of a
pull request or the answer of a server may hold both.
"""

from __future__ import annotations

import re

# Control characters but newline and tab; C1, which some terminals obey; marks that turn the direction of the text
# around; halves of surrogate pairs, which no stream can encode.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """``text`` with everything that steers a terminal shown as an escape such as ``\\x1b``; lines stay lines."""
    return _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def in_one_line(text: str) -> str:
    """The same for a place that has one line: a newline becomes ``\\n``, so that nothing forges a second line."""
    return printable(text).replace("\n", "\\n")


def indented(text: str, by: int) -> str:
    """The same for text of several lines, all but the first indented, so that none passes for one of ours."""
    return printable(text).replace("\n", "\n" + " " * by)


def markdown_text(text: str) -> str:
    """Words for Markdown that cannot end a table cell, open a tag, make a link or mention a person.

    Invisible word joiners break what would be markup; a backslash of the text itself must not undo ours.
    """
    flat = printable(" ".join(text.split()))
    safe = flat.replace("\\|", "\\\u2060|").replace("|", "\\|").replace("](", "]\u2060(")
    return safe.replace("<", "&lt;").replace("@", "@\u2060")


def markdown_code(text: str) -> str:
    """A code span around ``text``, whatever it holds, that may stand in a table cell."""
    flat = in_one_line(text).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", flat)), default=0)
    fence = "`" * (longest + 1)
    return f"{fence} {flat} {fence}" if longest else f"`{flat}`"
