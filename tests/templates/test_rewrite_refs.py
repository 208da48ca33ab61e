"""The one tool that changes owner and ref of our actions in workflow files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def rewrite(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "rewrite_refs.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


BEFORE = """\
steps:
  - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683 # v4.2.2
  - uses: mlp-ci/mlp-ci/actions/train@v1
  - id: x
    uses: "mlp-ci/mlp-ci/actions/evaluate@v1.2.3"
  - run: echo mlp-ci/mlp-ci/actions/train@v1
"""


def test_owner_and_ref_change_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text(BEFORE)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "b.yml.jinja").write_text(BEFORE)
    (tmp_path / "notes.md").write_text(BEFORE)
    done = rewrite("--to", "acme/mlp-ci@v2", tmp_path)
    assert done.returncode == 0
    after = BEFORE.replace("uses: mlp-ci/mlp-ci/actions/train@v1", "uses: acme/mlp-ci/actions/train@v2").replace(
        "mlp-ci/mlp-ci/actions/evaluate@v1.2.3", "acme/mlp-ci/actions/evaluate@v2"
    )
    assert (tmp_path / "a.yml").read_text() == after
    assert (tmp_path / "deep" / "b.yml.jinja").read_text() == after
    assert (tmp_path / "notes.md").read_text() == BEFORE
    assert rewrite("--to", "acme/mlp-ci@v2", tmp_path).stdout == "", "the second time there is nothing to do"


def test_check_changes_nothing_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "a.yml"
    file.write_text(BEFORE)
    done = rewrite("--check", "--to", "acme/mlp-ci@v2", file)
    assert (done.returncode, file.read_text()) == (3, BEFORE)
    assert f"would rewrite {file}" in done.stdout
    assert rewrite("--check", "--to", "mlp-ci/mlp-ci@v1", ROOT / "workflow-templates").returncode == 0


def test_bad_arguments_are_refused_with_the_reason(tmp_path: Path) -> None:
    for target in ("acme", "acme/mlp-ci", "acme/mlp-ci@a b", "acme/mlp-ci@v1 # x"):
        done = rewrite("--to", target, tmp_path)
        assert done.returncode == 2
        assert "owner/repo@ref" in done.stderr
    done = rewrite("--to", "acme/mlp-ci@v1", tmp_path / "none")
    assert done.returncode == 2
    assert "no such file or folder" in done.stderr
