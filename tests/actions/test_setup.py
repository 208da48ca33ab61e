"""The install script and the run script, executed by bash with GitHub's files faked, as a runner would."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mlp_ci import __version__

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "sed", "head", "dirname", "rm", "mkdir", "env", "cat")


@dataclass
class Job:
    """A runner's machine with only the tools it needs, and a job on it."""

    temp: Path
    bin: Path
    actions: Path

    def run(self, script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        for name in ("output", "summary"):
            (self.temp / name).touch()
        environment = {
            "PATH": str(self.bin),
            "HOME": str(self.temp / "home"),
            "RUNNER_TEMP": str(self.temp / "runner temp"),
            "GITHUB_ACTIONS": "true",
            "GITHUB_ACTION_PATH": str(self.actions / "validate"),
            "GITHUB_OUTPUT": str(self.temp / "output"),
            "GITHUB_STEP_SUMMARY": str(self.temp / "summary"),
        }
        (self.temp / "runner temp").mkdir(exist_ok=True)
        line = f'bash "$GITHUB_ACTION_PATH/../setup/{script}" "$@"'
        return subprocess.run(
            ["/bin/bash", "-e", "-o", "pipefail", "-c", line, "bash", *arguments],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.temp,
        )

    def offer(self, name: str, text: str) -> Path:
        """Put a program on PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        file.chmod(0o755)
        return file


@pytest.fixture
def job(tmp_path: Path) -> Job:
    # A path with a space in it, as on runners of people who have those.
    source = tmp_path / "the action"
    shutil.copytree(ROOT / "actions", source / "actions")
    (source / "mlp_ci").mkdir()
    shutil.copy(ROOT / "mlp_ci" / "__init__.py", source / "mlp_ci")
    shutil.copy(ROOT / "constraints.txt", source)
    bin = tmp_path / "bin"
    bin.mkdir()
    for tool in TOOLS:
        where = shutil.which(tool)
        assert where is not None
        (bin / tool).symlink_to(where)
    return Job(tmp_path, bin, source / "actions")


SAYS_ITS_VERSION = f'[ "$1" = --version ] && echo "mlp-ci {__version__}" && exit 0'


def test_a_baked_binary_of_the_same_version_is_used(job: Job) -> None:
    baked = job.offer("mlp-ci", SAYS_ITS_VERSION)
    done = job.run("install.sh")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{baked}\n", "")


def test_the_second_action_of_a_job_does_not_ask_again(job: Job) -> None:
    baked = job.offer("mlp-ci", f"echo asked >> {job.temp / 'asked'}\n{SAYS_ITS_VERSION}")
    assert job.run("install.sh").returncode == 0
    assert job.run("install.sh").stdout == f"{baked}\n"
    assert (job.temp / "asked").read_text() == "asked\n"


def test_a_remembered_binary_that_is_gone_is_not_used(job: Job) -> None:
    job.offer("mlp-ci", SAYS_ITS_VERSION)
    assert job.run("install.sh").returncode == 0
    (job.bin / "mlp-ci").unlink()
    other = job.bin / "elsewhere" / "mlp-ci"
    other.parent.mkdir()
    other.write_text(f"#!/bin/bash\n{SAYS_ITS_VERSION}\n")
    other.chmod(0o755)
    done = job.run("install.sh", PATH=f"{job.bin}:{other.parent}")
    assert done.stdout == f"{other}\n"


def test_without_python_it_says_what_to_do_and_exits_2(job: Job) -> None:
    job.offer("mlp-ci", 'echo "mlp-ci 0.0.1"')  # another version is not used
    job.offer("python3", "echo 'Python 3.9.2'; exit 1")
    done = job.run("install.sh")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "No Python 3.11 or newer on this runner (python3: Python 3.9.2)" in done.stderr
    assert "why:" in done.stderr
    assert "fix: Put actions/setup-python" in done.stderr
    assert "::error title=mlp-ci setup::" in done.stderr


def test_a_failed_download_exits_7_and_the_next_try_starts_anew(job: Job) -> None:
    job.bin.joinpath("python3").symlink_to(sys.executable)
    job.offer("uv", 'echo "$@" >> "$HOME-uv"; echo "cannot reach the index" >&2; exit 1')
    done = job.run("install.sh")
    assert done.returncode == 7
    assert "cannot reach the index" in done.stderr
    assert "Installing mlp-ci" in done.stderr
    assert "fix: Run the job again" in done.stderr
    asked = (job.temp / "home-uv").read_text()
    assert "--compile-bytecode" in asked
    assert f"--constraints {job.actions.parent / 'constraints.txt'}" in asked
    assert asked.rstrip().endswith(f"{job.actions.parent}[train,sweep]")
    assert job.run("install.sh", MLP_CI_EXTRAS="serve,train").returncode == 7
    assert (job.temp / "home-uv").read_text().rstrip().endswith("[serve,train]")


def test_what_was_installed_in_this_job_is_used_again(job: Job) -> None:
    job.bin.joinpath("python3").symlink_to(sys.executable)
    job.offer(
        "uv",
        f'while [ $# -gt 1 ]; do [ $1 = --python ] && bin=$(dirname "$2"); shift; done\n'
        f'printf \'#!/bin/bash\\necho mlp-ci {__version__}\\n\' > "$bin/mlp-ci"; /bin/chmod +x "$bin/mlp-ci"',
    )
    first = job.run("install.sh")
    binary = job.temp / "runner temp" / "mlp-ci-venv" / "bin" / "mlp-ci"
    assert first.stdout == f"{binary}\n"
    assert "installing it into" in first.stderr
    again = job.run("install.sh")
    assert (again.stdout, again.stderr) == (f"{binary}\n", "")


def test_the_run_script_gives_the_command_its_environment_and_its_exit_code(job: Job) -> None:
    job.offer("mlp-ci", f'{SAYS_ITS_VERSION}\necho "$@ at $MLP_CI_PATH with $MLFLOW_TRACKING_URI"; exit 3')
    done = job.run(
        "run.sh", "evaluate", MLP_CI_PATH="a b", MLP_CI_TRACKING_URI="http://t", MLFLOW_TRACKING_URI="http://job"
    )
    assert (done.returncode, done.stdout) == (3, "evaluate at a b with http://t\n")


def test_an_empty_tracking_uri_leaves_the_jobs_own(job: Job) -> None:
    job.offer("mlp-ci", f'{SAYS_ITS_VERSION}\necho "$MLFLOW_TRACKING_URI"')
    done = job.run("run.sh", "train", MLP_CI_TRACKING_URI="", MLFLOW_TRACKING_URI="http://job")
    assert done.stdout == "http://job\n"


def test_nothing_to_do_is_a_good_end_of_a_job(job: Job) -> None:
    job.offer("mlp-ci", f"{SAYS_ITS_VERSION}\nexit 4")
    assert job.run("run.sh", "deploy").returncode == 0


def test_a_failed_install_fails_the_step_with_its_code(job: Job) -> None:
    assert job.run("run.sh", "deploy").returncode == 2


def test_the_real_command_line_runs_through_the_scripts(job: Job, tmp_path: Path) -> None:
    """With the mlp-ci of this environment on PATH, as in the sandbox; there is no model here, so it says so."""
    real = Path(sys.executable).with_name("mlp-ci")
    (job.bin / "mlp-ci").symlink_to(real)
    done = job.run("run.sh", "validate", MLP_CI_PATH=str(tmp_path / "bin"), MLP_CI_FORMAT="json", MLP_CI_OUTPUT="")
    assert done.returncode == 2
    assert "model.yaml" in done.stdout + done.stderr
    assert "outcome" in (tmp_path / "output").read_text()


def test_the_version_that_every_step_asks_for_costs_no_import() -> None:
    asked = "import sys; from mlp_ci.__main__ import main; sys.argv[1:] = ['--version']; main()"
    code = f"{asked}\nprint('typer' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == f"mlp-ci {__version__}\nFalse\n"


@pytest.mark.slow
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_fresh_runner_gets_mlp_ci_from_the_package_index(job: Job, installer: str) -> None:
    shutil.copytree(ROOT / "mlp_ci", job.actions.parent / "mlp_ci", dirs_exist_ok=True)
    for name in ("pyproject.toml", "README.md", "copier.yml"):
        shutil.copy(ROOT / name, job.actions.parent)
    for name in ("model-repos-template", "workflow-templates"):
        shutil.copytree(ROOT / name, job.actions.parent / name)
    job.bin.joinpath("python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    if installer == "uv":
        job.bin.joinpath("uv").symlink_to(Path(sys.executable).with_name("uv"))
    network = {
        name: os.environ[name] for name in os.environ if name.startswith(("PIP_", "UV_", "SSL_")) or "proxy" in name
    }
    done = job.run("install.sh", MLP_CI_EXTRAS="", **network)
    assert done.returncode == 0, done.stderr
    binary = done.stdout.strip()
    assert binary == str(job.temp / "runner temp" / "mlp-ci-venv" / "bin" / "mlp-ci")
    shown = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"mlp-ci {__version__}\n"
