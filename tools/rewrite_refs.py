"""Rewrite the `uses:` references to mlp-ci's own actions in workflow files.

GitHub has no placeholder for an action's owner or ref, so the templates name a literal one. A release, an organisation
with its own copy, and the sandbox each need another; this is the one place that changes it.

    python tools/rewrite_refs.py --to acme/mlp-ci@v1 workflow-templates/
    python tools/rewrite_refs.py --to mlp-ci/mlp-ci@v2 --check workflow-templates/ model-repos-template/
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_USES = re.compile(
    r"(?P<head>^\s*(?:-\s+)?uses:\s*[\"']?)(?P<repository>[\w.-]+/mlp-ci)(?P<action>/actions/[\w-]+)@(?P<ref>[\w./-]+)",
    re.MULTILINE,
)
_TARGET = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)@(?P<ref>[\w./-]+)")


def rewrite(text: str, repository: str, ref: str) -> str:
    """Return `text` with every reference to an mlp-ci action naming `repository` (owner/name) and `ref`."""
    return _USES.sub(lambda use: f"{use['head']}{repository}{use['action']}@{ref}", text)


def workflow_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the given files, and in given folders every YAML file, also of copier templates (`.yml.jinja`)."""
    for path in paths:
        if path.is_file():
            yield path
            continue
        for pattern in ("*.yml", "*.yaml", "*.yml.jinja", "*.yaml.jinja"):
            yield from sorted(path.rglob(pattern))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Rewrite references to mlp-ci's own actions in workflow files.")
    parser.add_argument("--to", required=True, metavar="OWNER/REPO@REF", help="what the references should name")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 3 if a file would change")
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="workflow files or folders of them")
    options = parser.parse_args(argv)
    target = _TARGET.fullmatch(options.to)
    if target is None:
        parser.error(f"--to takes owner/repo@ref, for example acme/mlp-ci@v1, not {options.to!r}")
    missing = [str(path) for path in options.paths if not path.exists()]
    if missing:
        parser.error(f"no such file or folder: {', '.join(missing)}")
    changed = 0
    for file in workflow_files(options.paths):
        before = file.read_text(encoding="utf-8")
        after = rewrite(before, target["repository"], target["ref"])
        if after == before:
            continue
        changed += 1
        print(f"{'would rewrite' if options.check else 'rewrote'} {file}")
        if not options.check:
            file.write_text(after, encoding="utf-8")
    return 3 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
