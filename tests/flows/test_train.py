"""``mlp-ci train`` as a person and a job run it: a real process, real git, a real MLflow server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from mlp_ci.context import load_context
from mlp_ci.tracking import RunFact, Tracking, artifact_digest, connect
from tests.conftest import free_port
from tests.training import BARE_MODEL, FAST_TRAIN, ModelRepo, make_repo

Cli = Callable[..., subprocess.CompletedProcess[str]]
Train = Callable[..., subprocess.CompletedProcess[str]]
RECORD_ENVIRONMENT = "import os, json\nprint('ENV=' + json.dumps(dict(os.environ)))\n"


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path)


@pytest.fixture
def train(cli: Cli, mlflow_server: str) -> Train:
    def call(repo: ModelRepo, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli("train", "--path", repo.path, *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})

    return call


@pytest.fixture
def tracking(mlflow_server: str, tmp_path: Path) -> Tracking:
    return connect(load_context(tmp_path, environ={"MLFLOW_TRACKING_URI": mlflow_server}))


def outputs(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout)["outputs"])


def runs_of(tracking: Tracking, repo: ModelRepo) -> list[RunFact]:
    experiment = tracking.experiment(repo.name)
    found = tracking.client.search_runs([experiment], max_results=100) if experiment else []
    return [tracking.run(r.info.run_id) for r in found]


def background(repo: ModelRepo, server: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server},
    )


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


# ---------------------------------------------------------------- the contract


def test_a_run_records_what_made_the_model(tmp_path: Path, train: Train, tracking: Tracking) -> None:
    repo = make_repo(tmp_path, FAST_TRAIN)
    done = train(repo, "--format", "json")
    out = outputs(done)
    assert out["trained"] == "true"
    assert "trained on 600 rows" in done.stderr
    run = tracking.run(out["run-id"])
    assert run.trained
    assert run.params == {"c": "1.0"}
    assert 0.7 < run.metrics["train_accuracy"] < 1
    assert run.tags["mlp.commit"] == repo.git("rev-parse", "HEAD")
    assert run.tags["mlp.dirty"] == "false"
    assert set(json.loads(run.tags["mlp.data"])) == {"data/train.csv", "data/test.csv"}
    assert (run.tags["mlp.train_key"], run.tags["mlp.team"]) == (out["train-key"], "growth")
    assert float(run.tags["mlp.train_seconds"]) > 0
    assert int(run.tags["mlp.cpus"]) >= 1
    fetched = tracking.download(run.run_id, "model", tmp_path / "fetched")
    assert artifact_digest(fetched) == run.digest
    assert b"trained on 600 rows" in tracking.read_bytes(run.run_id, "train.log")


def test_trained_twice_is_trained_once(repo: ModelRepo, train: Train, tracking: Tracking) -> None:
    first = outputs(train(repo, "--format", "json"))
    second = outputs(train(repo, "--format", "json"))
    assert second == {**first, "trained": "false"}
    assert len(runs_of(tracking, repo)) == 1


def test_another_machine_reuses_what_was_trained(
    repo: ModelRepo, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    first = outputs(train(repo, "--format", "json"))
    copy = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    second = outputs(train(ModelRepo(path=copy, name=repo.name), "--format", "json"))
    assert second == {**first, "trained": "false"}


@pytest.mark.parametrize("file", ["README.md", "docs/more.md", "promotion.yaml", ".github/workflows/ci.yml"])
def test_what_cannot_change_training_does_not_train(repo: ModelRepo, train: Train, file: str) -> None:
    first = outputs(train(repo, "--format", "json"))
    repo.write(file, "changed: true\n")
    repo.spec(evaluate={"gates": [{"metric": "f1", "min": 0.1}]})
    repo.commit()
    assert outputs(train(repo, "--format", "json"))["train-key"] == first["train-key"]


def test_everything_that_can_change_training_changes_the_key(repo: ModelRepo) -> None:
    from mlp_ci.spec import load_model
    from mlp_ci.train.key import train_key
    from tests.training import track

    def key() -> str:
        ctx = load_context(repo.path, environ={})
        return train_key(ctx, load_model(repo.path)).digest

    seen = [key()]
    changes: list[Callable[[], None]] = [
        lambda: repo.write("train.py", BARE_MODEL + "\n# changed"),
        lambda: repo.write("new_module.py", "x = 1"),
        lambda: repo.write("params.yaml", "c: 2.0\n"),
        lambda: repo.spec(train={"seed": 18}),
        lambda: repo.spec(train={"command": "python -O train.py"}),
        lambda: repo.spec(data={"target": "x"}),
        lambda: (repo.write("data/train.csv", "id,x\n1,2\n"), track(repo, "data/train.csv"))[0],
        lambda: (repo.write("reqs.txt", "numpy\n"), repo.spec(train={"environment": {"pip": "reqs.txt"}}))[0],
        lambda: repo.write("reqs.txt", "numpy>1\n"),
    ]
    for change in changes:
        change()
        seen.append(key())
    assert len(set(seen)) == len(seen)
    repo.commit()
    assert key() == seen[-1], "a commit of the same content is the same key"


def test_the_command_gets_the_contract_and_no_secrets(repo: ModelRepo, train: Train, mlflow_server: str) -> None:
    repo.write("train.py", RECORD_ENVIRONMENT + BARE_MODEL)
    secrets = {
        "GITHUB_TOKEN": "ghs_verysecret1",
        "MLP_CI_TOKEN": "t0kenvalue",
        "MY_SECRET": "hushhush",
        "GH_TOKEN": "gh123456",
    }
    done = train(repo, ACTIONS_RUNTIME_TOKEN="runtime-token", GITHUB_ENV="/nowhere/env", **secrets)
    assert done.returncode == 0, done.stdout + done.stderr
    line = next(x for x in done.stdout.splitlines() if x.startswith("ENV="))
    seen = json.loads(line.removeprefix("ENV="))
    assert not set(secrets) & set(seen)
    assert "ACTIONS_RUNTIME_TOKEN" not in seen
    assert "GITHUB_ENV" not in seen
    assert seen["MLFLOW_TRACKING_URI"] == mlflow_server
    assert seen["MLFLOW_RUN_ID"]
    assert seen["MLFLOW_EXPERIMENT_ID"]
    assert seen["MLP_SEED"] == "17"
    assert Path(seen["MLP_DATA_TRAIN"]) == repo.path / "data/train.csv"
    assert Path(seen["MLP_PARAMS"]) == repo.path / "params.yaml"
    assert Path(seen["MLP_OUTPUT"]).is_dir()
    assert Path(seen["MLP_CHECKPOINTS"]).is_dir()
    assert "test.csv" not in line


def test_held_out_data_is_not_there_while_training_and_back_afterwards(repo: ModelRepo, train: Train) -> None:
    before = (repo.path / "data/test.csv").read_bytes()
    repo.write("train.py", "import os\nprint('SEES', sorted(os.listdir('data')))\n" + BARE_MODEL)
    done = train(repo)
    assert "SEES ['.gitignore', 'test.csv.dvc', 'train.csv', 'train.csv.dvc']" in done.stdout
    assert (repo.path / "data/test.csv").read_bytes() == before
    repo.write("train.py", "raise SystemExit(3)")
    assert train(repo).returncode == 2
    assert (repo.path / "data/test.csv").read_bytes() == before


def test_secrets_that_the_command_prints_are_masked(repo: ModelRepo, train: Train, tracking: Tracking) -> None:
    repo.write("train.py", "print('password is', 'hunter2-' + 'hunter2')\n" + BARE_MODEL)
    done = train(repo, DATABASE_PASSWORD="hunter2-hunter2")
    assert "password is ***" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr
    run = runs_of(tracking, repo)[0]
    assert b"hunter2" not in tracking.read_bytes(run.run_id, "train.log")


def test_workflow_commands_in_the_log_are_not_taken_as_such(repo: ModelRepo, train: Train, tmp_path: Path) -> None:
    repo.write("train.py", "print('::error::not a command')\n" + BARE_MODEL)
    done = train(repo, GITHUB_ACTIONS="true", GITHUB_OUTPUT=str(tmp_path / "out"))
    lines = done.stdout.splitlines()
    begin = next(i for i, x in enumerate(lines) if x.startswith("::stop-commands::"))
    word = lines[begin].removeprefix("::stop-commands::")
    end = lines.index(f"::{word}::")
    assert begin < lines.index("::error::not a command") < end
    assert "trained<<" in (tmp_path / "out").read_text()


def test_the_data_is_fetched_when_it_is_missing(tmp_path: Path, train: Train) -> None:
    repo = make_repo(tmp_path, remote=True)
    for name in ("train", "test"):
        (repo.path / f"data/{name}.csv").unlink()
    assert train(repo).returncode == 0
    assert (repo.path / "data/train.csv").exists()
    assert not (repo.path / "data/test.csv").exists(), "held-out data was fetched for training"


def test_a_pip_environment_is_made_once_and_used(repo: ModelRepo, train: Train) -> None:
    repo.write("requirements.txt", "# nothing but Python\n")
    repo.spec(train={"environment": {"pip": "requirements.txt"}})
    repo.write("train.py", "import sys\nprint('PREFIX', sys.prefix)\n" + BARE_MODEL)
    first = train(repo)
    assert first.returncode == 0, first.stdout + first.stderr
    prefix = next(x for x in first.stdout.splitlines() if x.startswith("PREFIX"))
    assert "/environments/" in prefix
    repo.spec(train={"seed": 1})
    second = train(repo)
    assert prefix in second.stdout
    assert "once per lock" in first.stdout
    assert "once per lock" not in second.stdout


# ---------------------------------------------------------------- what goes wrong


def test_a_command_that_fails(repo: ModelRepo, train: Train, tracking: Tracking) -> None:
    repo.write("train.py", "print('about to divide')\n1 / 0\n")
    done = train(repo)
    assert done.returncode == 2
    assert "failed with exit code 1" in done.stderr
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr.split("the end of its log")[0]
    run = runs_of(tracking, repo)[0]
    assert (run.status, run.tags["mlp.status"]) == ("FAILED", "failed")
    assert b"about to divide" in tracking.read_bytes(run.run_id, "train.log")


def test_a_command_that_does_not_exist(repo: ModelRepo, train: Train) -> None:
    repo.spec(train={"command": "pyhton train.py"})
    done = train(repo)
    assert done.returncode == 2
    assert "the shell does not know the command" in done.stderr


def test_a_command_that_hangs_is_stopped_with_all_its_children(
    repo: ModelRepo, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    script = f"""
import pathlib, subprocess, time
child = subprocess.Popen(["sleep", "300"])
pathlib.Path(r"{tmp_path}/pid").write_text(str(child.pid))
time.sleep(300)
"""
    repo.write("train.py", script)
    repo.spec(train={"timeout": "2s"})
    done = train(repo)
    assert done.returncode == 3
    assert "ran longer than train.timeout (2s)" in done.stderr
    assert runs_of(tracking, repo)[0].status == "FAILED"
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: not alive(child), 5)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_command_that_is_killed_from_outside_may_be_retried(
    repo: ModelRepo, train: Train, tracking: Tracking
) -> None:
    repo.write("train.py", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    done = train(repo)
    assert done.returncode == 7
    assert "killed from outside (SIGKILL)" in done.stderr
    run = runs_of(tracking, repo)[0]
    assert (run.status, run.tags["mlp.status"]) == ("RUNNING", "interrupted")


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('no model')", "wrote no model to $MLP_OUTPUT/model"),
        (BARE_MODEL.replace("signature:", "no_signature:"), "the model has no signature"),
        (BARE_MODEL.replace("python_function", "other"), "has no python_function flavour, only other"),
        (BARE_MODEL.replace('"MLmodel"', '"notes"'), "holds no MLmodel file"),
        (BARE_MODEL + "(out / 'link').symlink_to('/etc/passwd')", "is a link"),
        (BARE_MODEL + "(out.parent / 'metrics.json').write_text('{\"loss\": NaN}')", "loss is not a finite number"),
    ],
)
def test_output_that_breaks_the_contract(
    repo: ModelRepo, train: Train, tracking: Tracking, script: str, said: str
) -> None:
    repo.write("train.py", script)
    done = train(repo)
    assert done.returncode == 2
    assert said in done.stderr
    assert "fix:" in done.stderr
    assert not runs_of(tracking, repo)[0].trained


def test_a_model_without_signature_is_told_the_lines_that_mend_it(repo: ModelRepo, train: Train) -> None:
    repo.write("train.py", BARE_MODEL.replace("signature:", "no_signature:"))
    assert "signature=infer_signature(X, model.predict(X))" in train(repo).stderr


def test_mlflow_that_nobody_answers_for(repo: ModelRepo, cli: Cli) -> None:
    before = time.monotonic()
    done = cli("train", "--path", repo.path, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}")
    assert time.monotonic() - before < 8
    assert done.returncode == 7
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_mlflow_at_all(repo: ModelRepo, cli: Cli) -> None:
    done = cli("train", "--path", repo.path)
    assert done.returncode == 2
    assert "MLFLOW_TRACKING_URI" in done.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"image": "ghcr.io/acme/train@sha256:1"}, "runs commands, not containers"),
        ({"pip": "nowhere.txt"}, "nowhere.txt does not exist"),
    ],
)
def test_environments_that_cannot_be_made(
    repo: ModelRepo, train: Train, environment: dict[str, str], said: str
) -> None:
    repo.spec(train={"environment": environment})
    done = train(repo)
    assert done.returncode == 2
    assert said in done.stderr


def test_params_that_are_not_yaml(repo: ModelRepo, train: Train) -> None:
    repo.write("params.yaml", "c: [1\n")
    done = train(repo)
    assert done.returncode == 2
    assert "params.yaml" in done.stderr


def test_a_run_deleted_while_training_loses_nothing(
    repo: ModelRepo, mlflow_server: str, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", waiting_script(gate, count))
    process = background(repo, mlflow_server)
    wait_until(count.exists)
    tracking.delete_run(runs_of(tracking, repo)[0].run_id)
    gate.touch()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 7
    assert "nothing is lost" in said
    done = train(repo, "--format", "json")
    assert outputs(done)["trained"] == "true"
    assert "handed over now" in done.stderr
    assert count.read_text() == "1", "it was trained twice"


def waiting_script(gate: Path, count: Path) -> str:
    """Counts its starts, keeps a checkpoint, and goes on once ``gate`` exists."""
    return f"""
import os, pathlib, time
count = pathlib.Path(r"{count}")
checkpoint = pathlib.Path(os.environ["MLP_CHECKPOINTS"]) / "epoch"
print("CHECKPOINT", checkpoint.read_text() if checkpoint.exists() else "none")
checkpoint.write_text("7")
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
while not pathlib.Path(r"{gate}").exists():
    time.sleep(0.05)
{BARE_MODEL}"""


# ---------------------------------------------------------------- cut off and resumed


def test_sigterm_stops_gently_and_the_next_start_resumes_the_same_run(
    repo: ModelRepo, mlflow_server: str, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", waiting_script(gate, count))
    process = background(repo, mlflow_server)
    wait_until(count.exists)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    run = runs_of(tracking, repo)[0]
    assert (run.status, run.tags["mlp.status"]) == ("RUNNING", "interrupted")
    assert (repo.path / "data/test.csv").exists()
    gate.touch()
    done = train(repo, "--format", "json")
    assert outputs(done)["run-id"] == run.run_id
    assert "CHECKPOINT 7" in done.stderr
    again = tracking.run(run.run_id)
    assert again.trained
    assert float(again.tags["mlp.train_seconds"]) > float(run.tags["mlp.train_seconds"])


@pytest.mark.slow
def test_another_machine_resumes_from_the_checkpoints(
    repo: ModelRepo, mlflow_server: str, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", waiting_script(gate, count))
    repo.commit()
    process = background(repo, mlflow_server)
    wait_until(count.exists)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    copy = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    (copy / "data/train.csv").write_bytes((repo.path / "data/train.csv").read_bytes())
    gate.touch()
    done = train(ModelRepo(path=copy, name=repo.name), "--format", "json")
    assert outputs(done)["run-id"] == runs_of(tracking, repo)[0].run_id
    assert "CHECKPOINT 7" in done.stderr


def test_kill_9_and_the_next_start_finishes_the_first(
    repo: ModelRepo, mlflow_server: str, train: Train, tracking: Tracking, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", waiting_script(gate, count))
    process = background(repo, mlflow_server)
    wait_until(count.exists)
    process.kill()
    process.communicate(timeout=60)
    assert not (repo.path / "data/test.csv").exists(), "the kill came too late to prove anything"
    group = json.loads(next(repo.path.glob(".mlp/*/running.json")).read_text())["group"]
    assert alive(group), "the command outlives a mlp-ci that was killed"
    gate.touch()
    (run,) = runs_of(tracking, repo)
    done = train(repo, "--format", "json")
    assert outputs(done)["run-id"] == run.run_id
    assert not alive(group)
    assert (repo.path / "data/test.csv").exists()
    assert len(runs_of(tracking, repo)) == 1


def test_two_at_once_train_once(repo: ModelRepo, mlflow_server: str, tracking: Tracking, tmp_path: Path) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", waiting_script(gate, count))
    repo.commit()
    copy = tmp_path / f"other-{uuid.uuid4().hex[:4]}"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    (copy / "data/train.csv").write_bytes((repo.path / "data/train.csv").read_bytes())
    both = [background(repo, mlflow_server), background(ModelRepo(path=copy, name=repo.name), mlflow_server)]
    wait_until(count.exists)
    time.sleep(1.5)
    gate.touch()
    said = [p.communicate(timeout=90)[0] for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert count.read_text() == "1", said
    assert len([r for r in runs_of(tracking, repo) if r.trained]) == 1
