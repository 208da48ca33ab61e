"""Compiles what an image holds: its root is read-only, so nothing would be compiled there, and every start be slow.

Files are marked as unchecked (PEP 552), so that nothing in them depends on times. What the compiler writes depends a
little on what the same process compiled before; so a file always has the same predecessors, however many processors
there are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from mlp_ci.errors import OutsideError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

GROUPS = 8  # of files, each compiled by a process of its own; another number is another image
CACHE_TAG = str(sys.implementation.cache_tag)
_COMPILE = """\
import json, py_compile, sys
for source, shown, compiled in json.load(sys.stdin):
    try:
        py_compile.compile(source, compiled, shown, doraise=True, quiet=1,
                           invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    except (py_compile.PyCompileError, ValueError):
        pass  # a template, or for another Python: it is no loss
"""


def compiled(sources: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Path in the image of each compiled file → where it lies, below ``folder``. ``sources``: path in the image → file.

    Raises OutsideError when the compiler itself fails, as on a full disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets = {}
    groups: list[list[tuple[str, str, str]]] = [[] for _ in range(GROUPS)]
    for number, path in enumerate(sorted(sources)):
        file = folder / f"{number}.pyc"
        parent, _, name = path.rpartition("/")
        targets[f"{parent}/__pycache__/{name.removesuffix('.py')}.{CACHE_TAG}.pyc"] = file
        groups[number * GROUPS // len(sources)].append((str(sources[path]), path, str(file)))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(_compile, groups))
    return {path: file for path, file in targets.items() if file.is_file()}


def _compile(group: list[tuple[str, str, str]]) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-c", _COMPILE],
        input=json.dumps(group).encode(),
        capture_output=True,
        check=False,
        env={"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        msg = "the packages of the image could not be compiled"
        raise OutsideError(msg, why=said[-1] if said else "", fix="make room on the disk, and run it again")
