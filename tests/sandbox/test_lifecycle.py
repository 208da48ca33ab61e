"""The sandbox as a person at a terminal meets it: up, a repository, a push, a schedule, the clock, down."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def sandbox(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "sandbox"
    done = cli("sandbox", "up", "--home", root, "--clock", "2013-04-01")
    assert done.returncode == 0, done.stdout + done.stderr
    yield root
    cli("sandbox", "down", "--home", root)


def said(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout))


def test_a_persons_first_hour(cli: Cli, sandbox: Path, tmp_path: Path) -> None:
    # Its secrets are nobody else's.
    assert stat.S_IMODE((sandbox / "sandbox.json").stat().st_mode) == 0o600

    # A second `up` finds everything running.
    before = (sandbox / "sandbox.json").read_text()
    assert cli("sandbox", "up", "--home", sandbox).returncode == 0
    assert json.loads(before)["processes"] == json.loads((sandbox / "sandbox.json").read_text())["processes"]

    # A repository, cloned with credentials that git finds again, and none of them in its files.
    tree = tmp_path / "my-model"
    made = cli("sandbox", "create", "acme/my-model", "-C", tree, "--home", sandbox)
    assert made.returncode == 0, made.stderr
    assert "sandbox_" not in "".join(p.read_text(errors="ignore") for p in (tree / ".git").rglob("*") if p.is_file())
    (tree / ".github/workflows").mkdir(parents=True)
    (tree / ".github/workflows/tick.yml").write_text(
        "on:\n  schedule: [{cron: '5 * * * *'}]\n"
        "jobs:\n  a:\n    runs-on: ubuntu-latest\n    steps: [{run: 'echo tock'}]\n"
    )
    for command in (["add", "."], ["commit", "-q", "-m", "Tick"], ["push", "-q", "origin", "main"]):
        subprocess.run(["git", *command], cwd=tree, check=True, capture_output=True)

    # The schedule comes due when a person says so.
    assert said(cli("sandbox", "tick", "acme/my-model", "--home", sandbox, "--format", "json"))["data"] == {
        "crons": ["5 * * * *"]
    }

    # The clock goes on from where it is put.
    cli("sandbox", "clock", "2013-07-01", "--home", sandbox)
    now = said(cli("sandbox", "clock", "--home", sandbox, "--format", "json"))["data"]
    assert str(now["now"]).startswith("2013-07-01T00:0")  # type: ignore[index]

    # The environment of a shell, for eval.
    printed = cli("sandbox", "env", "--home", sandbox).stdout
    done = subprocess.run(
        ["bash", "-c", f"{printed}\necho $MLFLOW_TRACKING_URI"], capture_output=True, text=True, check=True
    )
    state = said(cli("sandbox", "status", "--home", sandbox, "--format", "json"))["data"]
    assert done.stdout.strip() == state["mlflow"]  # type: ignore[index]

    # Nothing answers without a token.
    assert httpx.get(f"{state['forge']}/api/v3/repos/acme/my-model").status_code in (401, 404)  # type: ignore[index]

    # Down, and nothing is left; up again, and everything is as it was.
    assert cli("sandbox", "down", "--home", sandbox).returncode == 0
    assert cli("sandbox", "status", "--home", sandbox).returncode == 3
    assert not [p for p in Path("/proc").glob("[0-9]*") if str(sandbox) in _command_line(p)]
    assert cli("sandbox", "up", "--home", sandbox).returncode == 0
    again = cli("sandbox", "create", "acme/my-model", "-C", tmp_path / "second", "--home", sandbox)
    assert "there already" in again.stdout
    assert (tmp_path / "second/.github/workflows/tick.yml").is_file()


@pytest.mark.parametrize("command", [["status"], ["down"], ["tick", "acme/x"], ["clock"], ["create", "acme/x"]])
def test_without_a_sandbox_one_is_told_how_to_start_it(cli: Cli, tmp_path: Path, command: list[str]) -> None:
    done = cli(
        "sandbox", *command, "--home", tmp_path / "none", *(["-C", tmp_path / "t"] if "create" in command else [])
    )
    assert done.returncode == 4
    assert "mlp-ci sandbox up" in done.stderr


def _command_line(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
