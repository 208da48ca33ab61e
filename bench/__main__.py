"""``make bench``: run every benchmark of this folder, or those named, each in a process of its own.

A benchmark is a script that prints its figure next to its rivals'; timings never fail anything. ``--list`` says which
there are. Rivals are installed on first use under ``.cache/bench``.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Run the benchmarks called ``names``, all without any; returns 1 if one of them could not run."""
    scripts = {p.stem: p for p in sorted(HERE.glob("*.py")) if p.stem not in ("__main__", "peers", "wrk")}
    if names == ["--list"]:
        print("\n".join(f"{name:15} {summary(script)}" for name, script in scripts.items()))
        return 0
    unknown = [n for n in names if n not in scripts]
    if unknown:
        print(f"no benchmark {', '.join(unknown)}; there are {', '.join(scripts)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or list(scripts):
        print(f"\n== {name}: {summary(scripts[name])}", flush=True)
        if subprocess.run([sys.executable, scripts[name]], check=False, cwd=HERE.parent).returncode:
            failed.append(name)
    if failed:
        print(f"\ncould not run: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def summary(script: Path) -> str:
    """The first line of a script's docstring."""
    return script.read_text(encoding="utf-8").split('"""')[1].strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
