"""What can go wrong around a training, at the command line: each case ends in one message, and loses nothing.

How a command is stopped, killed and resumed is in ``test_train.py``; here is what the person at the prompt gets.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlp_ci.tracking import RunFact, Tracking
from tests.conftest import free_port
from tests.refusals import refused
from tests.training import BARE_MODEL, FAST_TRAIN, ModelRepo, make_repo

Cli = Callable[..., subprocess.CompletedProcess[str]]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path)


@pytest.fixture
def run(cli: Cli, mlflow_server: str) -> Run:
    def call(command: str, repo: ModelRepo, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli(command, "--path", repo.path, *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})

    return call


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return Tracking(mlflow_server)


def runs_of(tracking: Tracking, repo: ModelRepo) -> list[RunFact]:
    experiment = tracking.experiment(repo.name)
    found = tracking.client.search_runs([experiment], max_results=100) if experiment else []
    return [tracking.run(r.info.run_id) for r in found]


def shell(line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A line of bash in which ``mlp-ci`` is this Python's."""
    script = f'mlp-ci() {{ "{sys.executable}" -m mlp_ci "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=False, env={**os.environ, **env}
    )


# ---------------------------------------------------------------- the training command

SPOILT = {
    "fails": ("import sys; print('halfway'); sys.exit(7)", {}, 2, ("failed with exit code 7", "halfway")),
    "hangs": ("import time; print('halfway'); time.sleep(99)", {"timeout": "1s"}, 3, ("train.timeout (1s)", "halfway")),
    "is killed": ("import os; os.kill(os.getpid(), 9)", {}, 7, ("killed from outside (SIGKILL)", "mlp-ci train")),
    "crashes": ("import os; os.kill(os.getpid(), 11)", {}, 2, ("crashed with SIGSEGV",)),
    "writes no model": ("print('done')", {}, 2, ("wrote no model to $MLP_OUTPUT/model", "save_model")),
    "writes half a model": (BARE_MODEL.replace('"MLmodel"', '"notes"'), {}, 2, ("holds no MLmodel file",)),
    "writes no signature": (
        BARE_MODEL.replace("signature:", "no_signature:"),
        {},
        2,
        ("has no signature", "infer_sig"),
    ),
    "is not there": (None, {"command": "pyhton train.py"}, 2, ("the shell does not know the command",)),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_training_command_that(repo: ModelRepo, run: Run, tracking: Tracking, case: str) -> None:
    script, changes, code, said = SPOILT[case]
    good = (repo.path / "model.yaml").read_text()
    held_out = (repo.path / "data/test.csv").read_bytes()
    if script:
        repo.write("train.py", script)
    if changes:
        repo.spec(train=changes)
    done = run("train", repo, "--format", "json")
    told = done.stderr[max(done.stderr.find("✗"), 0) :]  # before it comes what the command printed
    refused(subprocess.CompletedProcess([], done.returncode, done.stdout, told), code, *said)
    assert (repo.path / "data/test.csv").read_bytes() == held_out, "held-out data is back"
    assert not [r for r in runs_of(tracking, repo) if r.trained]
    assert run("register", repo).returncode == 2, "nothing of it can be registered"
    repo.write("train.py", BARE_MODEL)
    repo.write("model.yaml", good)
    mended = run("train", repo, "--format", "json")
    assert json.loads(mended.stdout)["outputs"]["trained"] == "true"


def test_interrupted_and_told_how_to_go_on(repo: ModelRepo, mlflow_server: str, run: Run, tmp_path: Path) -> None:
    repo.write(
        "train.py",
        f"import pathlib, time\np = pathlib.Path(r'{tmp_path}/seen')\nif not p.exists():\n"
        "    p.touch()\n    time.sleep(99)\n" + BARE_MODEL,
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path), "--format", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
    )
    deadline = time.monotonic() + 30
    while not (tmp_path / "seen").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert (repo.path / "data/test.csv").exists()
    assert json.loads(run("train", repo, "--format", "json").stdout)["outputs"]["trained"] == "true"


# ---------------------------------------------------------------- MLflow and its store


def test_mlflow_out_of_reach(repo: ModelRepo, cli: Cli) -> None:
    uri = f"http://user:hunter2-hunter2@127.0.0.1:{free_port()}"
    for command in ("train", "evaluate", "register", "monitor", "cost"):
        done = cli(command, "--path", repo.path, "--format", "json", MLFLOW_TRACKING_URI=uri)
        refused(done, 7, "MLflow at http://127.0.0.1", "cannot be reached", "run the same command again")
        assert "hunter2" not in done.stdout + done.stderr
    assert (repo.path / "data/test.csv").exists()


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """A file where MLflow keeps ``folder``, so that nothing can be written into it, not even by root."""
    kept = folder.with_name(f"{folder.name}.kept")
    if folder.exists():
        folder.rename(kept)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.touch()
    yield
    folder.unlink()
    if kept.exists():
        kept.rename(folder)


@pytest.mark.slow
def test_an_artefact_store_that_takes_and_gives_nothing(
    tmp_path: Path, run: Run, tracking: Tracking, tmp_path_factory: pytest.TempPathFactory
) -> None:
    repo = make_repo(tmp_path, FAST_TRAIN)
    experiment = tracking.experiment(repo.name, create=True)
    store = tmp_path_factory.getbasetemp() / "mlflow0" / "artifacts" / str(experiment)
    with unwritable(store):
        done = run("train", repo)
        assert "nothing is lost" in done.stderr
        refused(done, 7, "store of artefacts", "without training again")
        assert not [r for r in runs_of(tracking, repo) if r.trained]
    done = run("train", repo)
    assert done.returncode == 0, done.stderr
    assert "trained here before" in done.stdout
    with unwritable(store):
        assert run("evaluate", repo).returncode == 7
    assert run("evaluate", repo).returncode == 0
    with unwritable(store):
        refused(run("register", repo, "--no-promote"), 2, "has no artefact", "restore MLflow's artefact store")
        assert tracking.versions(repo.name) == [], "no half-made version"
    done = run("register", repo, "--no-promote", "--format", "json")
    assert json.loads(done.stdout)["outputs"]["version"] == "1"


def test_a_disk_without_room(repo: ModelRepo, mlflow_server: str, run: Run) -> None:
    done = shell(f'ulimit -f 0; mlp-ci train --path "{repo.path}"', MLFLOW_TRACKING_URI=mlflow_server)
    refused(done, 7, "File too large", "run the same command again")
    assert (repo.path / "data/test.csv").exists()
    assert run("train", repo).returncode == 0


# ---------------------------------------------------------------- what the command prints


def test_a_log_of_huge_lines_keeps_its_secrets(repo: ModelRepo, run: Run) -> None:
    key = "-----BEGIN KEY-----\nMIIEowIBAAKCAQEA\n-----END KEY-----"
    script = f"""
import sys
for size in (65536 - 7, 3_000_000, 131072 - 3):
    sys.stdout.write("x" * size + "hunter2" + "-hunter2" + "é" * 70000)
    sys.stdout.flush()
print()
print({key!r})
print("\\x1b[31mred\\x1b[0m", "::set-output name=gate::pass")
{BARE_MODEL}"""
    repo.write("train.py", script)
    done = run("train", repo, DATABASE_PASSWORD="hunter2-hunter2", SIGNING_PRIVATE_KEY=key)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hunter2" not in done.stdout
    assert "MIIEow" not in done.stdout
    assert done.stdout.count("***") == 6
    assert done.stdout.count("é") == 210_000, "no letter is cut in two"


def test_a_failing_commands_last_words_are_not_taken_as_commands_of_the_job(repo: ModelRepo, run: Run) -> None:
    repo.write("train.py", "print('::set-output name=gate::pass'); print('##[error]x'); raise SystemExit(1)")
    done = run("train", repo, GITHUB_ACTIONS="true")
    lines = done.stderr.splitlines()
    told = next(i for i, line in enumerate(lines) if "::set-output" in line)
    assert lines[0].startswith("::stop-commands::")
    assert lines.index(f"::{lines[0].removeprefix('::stop-commands::')}::") > told
    done = run("train", repo, "--format", "json", GITHUB_ACTIONS="true")
    assert "##[" not in done.stdout
    assert "##[error]x" in json.loads(done.stdout)["error"]["why"]


def test_a_reader_of_the_log_that_goes_away_ends_no_training(
    repo: ModelRepo, mlflow_server: str, tracking: Tracking
) -> None:
    repo.write("train.py", "print('line\\n' * 200_000)\n" + BARE_MODEL)
    done = shell(
        f'mlp-ci train --path "{repo.path}" | head -1; exit ${{PIPESTATUS[0]}}', MLFLOW_TRACKING_URI=mlflow_server
    )
    assert done.returncode == 141
    assert done.stderr == ""
    assert [r.trained for r in runs_of(tracking, repo)] == [True]


# ---------------------------------------------------------------- names and places

NAMES = ("with space.py", 'quo"te.py', "new\nline.py", "ünï çödé.py", "\x1b[31mred.py", "-rf", "byte\udcff.py")


def test_names_of_files_that_hold_anything(repo: ModelRepo, run: Run) -> None:
    before = json.loads(run("train", repo, "--format", "json").stdout)["outputs"]["train-key"]
    for name in NAMES:
        (repo.path / name).write_text("x = 1\n")
    dirty = run("train", repo)
    assert dirty.returncode == 0, dirty.stderr
    assert "\x1b" not in dirty.stdout
    assert "not committed: \\x1b[31mred.py, -rf, byte\\udcff.py" in dirty.stdout
    refused(run("register", repo), 2, "not what the commit says", "\\x1b[31mred.py")
    keys = [before, json.loads(run("train", repo, "--format", "json").stdout)["outputs"]["train-key"]]
    repo.commit()
    keys.append(json.loads(run("train", repo, "--format", "json").stdout)["outputs"]["train-key"])
    assert keys[1] == keys[2] != keys[0]


def test_a_model_in_a_subfolder(repo: ModelRepo, run: Run) -> None:
    folder = repo.path / "models" / "first one"
    folder.mkdir(parents=True)
    for name in ("data", "train.py", "params.yaml", "model.yaml", ".gitignore"):
        shutil.move(repo.path / name, folder / name)
    repo.commit()
    model = ModelRepo(path=folder, name=repo.name)

    def key() -> str:
        done = run("train", model, "--format", "json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["outputs"]["train-key"])

    first = key()
    repo.write("models/other/train.py", "x = 1")
    assert key() == first, "another model's code is none of this one's"
    assert "not committed" not in run("train", model).stdout
    model.write("train.py", BARE_MODEL + "\n# changed")
    assert "not committed: train.py;" in run("train", model).stdout
    changed = key()
    assert changed != first
    repo.commit()
    assert key() == changed


def test_a_detached_head(repo: ModelRepo, run: Run) -> None:
    repo.git("checkout", "-q", "--detach")
    done = run("train", repo, "--format", "json")
    assert json.loads(done.stdout)["outputs"]["trained"] == "true"
