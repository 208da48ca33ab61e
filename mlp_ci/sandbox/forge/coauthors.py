"""Who wrote a commit: its author, and those whom its ``Co-authored-by`` trailers name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge.objects import Person

if TYPE_CHECKING:
    from mlp_ci.sandbox.forge.access import Forge
    from mlp_ci.sandbox.forge.objects import Commit
    from mlp_ci.sandbox.forge.records import Repo

_TRAILERS = "--format=%(trailers:key=Co-authored-by,valueonly,unfold,separator=%x00)"
_VALUE = re.compile(r"\s*(.*?)\s*<\s*([^<>\s]+)\s*>\s*")


def authors(forge: Forge, repo: Repo, commit: Commit) -> list[Person]:
    """The author first, then each co-author once. What is a trailer is for git to say: the last paragraph, any case."""
    found = {commit.author.email.lower(): commit.author}
    if "co-authored-by" in commit.message.lower():
        for value in forge.git.text(repo, "log", "-1", _TRAILERS, commit.sha).split("\0"):
            if match := _VALUE.fullmatch(value):
                found.setdefault(match[2].lower(), Person(match[1], match[2]))
    return list(found.values())
