"""Whose review GitHub asks for: the file CODEOWNERS, read as GitHub reads it.

https://docs.github.com/repositories/managing-your-repositorys-settings-and-features/customizing-your-repository/about-code-owners
"""

from __future__ import annotations

import re

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS")  # the first that exists counts


def owners_of(text: str, path: str) -> tuple[str, ...]:
    """The owners of ``path`` (without a leading slash): those of the last line that matches; () for nobody."""
    found: tuple[str, ...] = ()
    for pattern, owners in _lines(text):
        if re.fullmatch(_expression(pattern), path):
            found = owners
    return found


def _lines(text: str) -> list[tuple[str, tuple[str, ...]]]:
    lines = []
    for raw in text.splitlines():
        words = re.split(r"(?<!\\)\s+", raw.strip())
        owners = []
        for word in words[1:]:
            if word.startswith("#"):
                break
            owners.append(word)
        if words[0] and not words[0].startswith("#"):
            lines.append((words[0], tuple(owners)))
    return lines


def _expression(pattern: str) -> str:
    """A pattern of CODEOWNERS as a regular expression over whole paths: gitignore's rules without ``!`` and ``[ ]``."""
    body = pattern.replace("\\ ", " ")
    folder = body.endswith("/")
    body = body.rstrip("/")
    rooted = "/" in body  # a slash at the start or inside ties the pattern to the root
    body = body.lstrip("/")
    parts = re.split(r"(\*\*/|/\*\*$|\*\*|\*|\?)", body)
    said = {"**/": "(?:.*/)?", "/**": "/.*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    inside = "".join(said.get(part, re.escape(part)) for part in parts)
    # `docs/*` owns the files in docs, not those further down; `docs` and `*.js` own what is below them, too.
    below = "/.*" if folder else "" if rooted and body.endswith("/*") else "(?:/.*)?"
    return ("" if rooted else "(?:.*/)?") + inside + below
