"""What git asks before a push moves a ref: a script, because git starts it in a process of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SCRIPT = """#!/bin/sh
# $1 ref, $2 old, $3 new. FORGE_CLOSED: refs that take no push, FORGE_UNFORCED: no force, FORGE_UNDELETED: no deletion.
case "$1" in refs/heads/*|refs/tags/*) ;; *) echo "error: $1 cannot be changed by a push" >&2; exit 1;; esac
for ref in $FORGE_CLOSED; do
  if [ "$ref" = "$1" ]; then
    echo "error: GH006: Protected branch update failed for $1." >&2
    echo "error: Changes must be made through a pull request." >&2
    exit 1
  fi
done
case "$3" in *[!0]*) ;; *)
  for ref in $FORGE_UNDELETED; do
    [ "$ref" = "$1" ] && { echo "error: GH006: Cannot delete the protected branch $1." >&2; exit 1; }
  done
  exit 0;;
esac
case "$2" in *[!0]*) ;; *) exit 0;; esac
for ref in $FORGE_UNFORCED; do
  if [ "$ref" = "$1" ]; then
    git merge-base --is-ancestor "$2" "$3" && exit 0
    echo "error: GH006: Cannot force-push to the protected branch $1." >&2
    exit 1
  fi
done
exit 0
"""


def install(folder: Path) -> None:
    """Put the hook into ``folder``, whole: another process of the same forge may be running it."""
    hook = folder / "update"
    if not hook.exists() or hook.read_text(encoding="utf-8") != _SCRIPT:
        scratch = hook.with_name(f".update.{os.getpid()}")
        scratch.write_text(_SCRIPT, encoding="utf-8")
        scratch.chmod(0o755)
        scratch.replace(hook)
