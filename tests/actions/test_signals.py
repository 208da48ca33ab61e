"""A cancelled job: GitHub signals the step's shell alone, and mlp-ci must hear of it while there is time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).resolve().parents[2] / "actions" / "setup" / "run.sh"
PROGRAM = """#!{python}
import signal, sys, time
def stop(number, frame):
    print("asked to stop", flush=True)
    raise SystemExit(130)
signal.signal(signal.SIGTERM, stop)
print("at work", flush=True)
time.sleep(float(sys.argv[1]))
raise SystemExit(int(sys.argv[2]))
"""


def step(folder: Path, *words: str) -> subprocess.Popen[str]:
    """A step as GitHub starts it, with a stand-in for mlp-ci that says what it hears."""
    (folder / "run.sh").write_text(RUN.read_text())
    (folder / "install.sh").write_text(f"echo '{folder}/mlp-ci'\n")
    (folder / "mlp-ci").write_text(PROGRAM.format(python=sys.executable))
    (folder / "mlp-ci").chmod(0o755)
    (folder / "step.sh").write_text(f'exec bash "{folder}/run.sh" {" ".join(words)}\n')
    command = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(folder / "step.sh")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


def test_a_signal_to_the_step_reaches_mlp_ci(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        process = step(tmp_path, "60", "0")
        assert process.stdout
        assert process.stdout.readline() == "at work\n"
        process.send_signal(number)
        said, _ = process.communicate(timeout=30)
        assert said == "asked to stop\n"
        assert process.returncode == 130


def test_exit_codes_pass_through(tmp_path: Path) -> None:
    for code, seen in (("0", 0), ("3", 3), ("4", 0), ("7", 7)):
        process = step(tmp_path, "0", code)
        process.communicate(timeout=30)
        assert process.returncode == seen
