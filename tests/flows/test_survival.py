"""Trainings that are cut off, get stuck or want too much: real processes, real MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from mlp_ci.tracking import RunFact, Tracking
from mlp_ci.train import lease
from tests.refusals import refused
from tests.training import BARE_MODEL, ModelRepo, make_repo

Cli = Callable[..., subprocess.CompletedProcess[str]]
Train = Callable[..., subprocess.CompletedProcess[str]]

STEPS = """
import json, os, pathlib, sys, time
folder = pathlib.Path(os.environ["MLP_CHECKPOINTS"])
state = folder / "state.json"
first = json.loads(state.read_text())["step"] if state.exists() else 0
print("FIRST STEP", first, flush=True)
for step in range(first, 1000):
    if pathlib.Path(r"GATE").exists():
        break
    time.sleep(0.1)
    (folder / f"weights-{step % 2}.bin").write_bytes(bytes([step % 256]) * 100_000)
    (folder / "new").write_text(json.dumps({"step": step + 1}))
    os.replace(folder / "new", state)
    pathlib.Path(r"COUNT.new").write_text(str(step + 1))
    os.replace(r"COUNT.new", r"COUNT")
"""


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path)


@pytest.fixture
def train(cli: Cli, mlflow_server: str) -> Train:
    def call(repo: ModelRepo, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return cli("train", "--path", repo.path, *options, **{"MLFLOW_TRACKING_URI": mlflow_server, **env})

    return call


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return Tracking(mlflow_server)


def run_of(tracking: Tracking, repo: ModelRepo) -> RunFact:
    (only,) = tracking.tagged(repo.name, "mlp.team", "growth")
    return only


def started(repo: ModelRepo, server: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "MLFLOW_TRACKING_URI": server, **env},
    )


def wait_until(condition: Callable[[], object], seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def kill_everything(process: subprocess.Popen[str]) -> None:
    """What a machine that loses its power does."""
    for target in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
        target.kill()
    process.communicate()


def stepping(repo: ModelRepo, tmp_path: Path, **train: object) -> tuple[Path, Path]:
    gate, count = tmp_path / "gate", tmp_path / "count"
    repo.write("train.py", STEPS.replace("GATE", str(gate)).replace("COUNT", str(count)) + BARE_MODEL)
    repo.spec(train=train)
    repo.commit()
    return gate, count


def another_machine(repo: ModelRepo, tmp_path: Path) -> ModelRepo:
    copy = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(repo.path), str(copy)], check=True)
    shutil.copy(repo.path / "data/train.csv", copy / "data/train.csv")
    return ModelRepo(path=copy, name=repo.name)


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("store", ["mlflow", pytest.param("dvc", marks=pytest.mark.slow)])
def test_a_machine_that_is_gone_loses_no_more_than_the_last_checkpoints(
    tmp_path: Path, mlflow_server: str, train: Train, tracking: Tracking, store: str
) -> None:
    repo = make_repo(tmp_path, remote=store == "dvc")
    every = "2s" if store == "mlflow" else "6s"
    gate, count = stepping(repo, tmp_path, checkpoints={"every": every, "store": store})
    process = started(repo, mlflow_server)
    wait_until(count.exists)
    seen = set()

    def saved_thrice() -> bool:
        seen.add(run_of(tracking, repo).tags.get("mlp.checkpoints", ""))
        return len(seen - {""}) >= 3

    wait_until(saved_thrice, 90)
    kill_everything(process)
    done_before = int(count.read_text())
    run = run_of(tracking, repo)
    if store == "mlflow":
        assert len(tracking.artifact_names(run.run_id, "checkpoints/sets")) <= 3, "old sets pile up"
        assert len(tracking.artifact_names(run.run_id, "checkpoints/files")) <= 9
    tracking.log(run.run_id, tags={lease.TAG: ""})  # or the other machine would wait until the lease is over
    gate.touch()
    done = train(another_machine(repo, tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    resumed = int(done.stderr.split("FIRST STEP")[1].split()[0])
    assert 0 < resumed <= done_before
    assert done_before - resumed <= (40 if store == "mlflow" else 120), "more than the interval is repeated"
    again = tracking.run(run.run_id)
    assert again.trained
    assert (again.tags["mlp.attempts"], again.tags["mlp.checkpoints"]) == ("2", "")
    assert not tracking.has_artifact(run.run_id, "checkpoints"), "the checkpoints of a trained model are dropped"
    if store == "dvc":
        kept = [p for p in (tmp_path / "storage/mlp-ci").rglob("*") if p.is_file()]
        assert kept == []
        assert len([p for p in (tmp_path / "storage/files").rglob("*") if p.is_file()]) == 2, "the data stays"


@pytest.mark.slow
def test_what_lies_here_may_be_older_than_what_another_machine_saved(
    repo: ModelRepo, tmp_path: Path, mlflow_server: str, train: Train, tracking: Tracking
) -> None:
    gate, count = stepping(repo, tmp_path, checkpoints={"every": "1h"})
    other = another_machine(repo, tmp_path)
    for machine in (repo, other):
        before = int(count.read_text()) if count.exists() else 0
        process = started(machine, mlflow_server)
        wait_until(lambda before=before: count.exists() and int(count.read_text()) > before + 3)  # type: ignore[misc]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 130
        process.communicate()
    newest = int(count.read_text())
    gate.touch()
    done = train(repo, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "fetching the checkpoints" in done.stderr
    assert f"FIRST STEP {newest}" in done.stderr


@pytest.mark.slow
def test_checkpoints_that_cannot_be_had_or_kept_stop_nothing(
    repo: ModelRepo, tmp_path: Path, mlflow_server: str, train: Train, tracking: Tracking
) -> None:
    gate, count = stepping(repo, tmp_path, checkpoints={"every": "1s"})
    process = started(repo, mlflow_server)
    wait_until(lambda: count.exists() and run_of(tracking, repo).tags.get("mlp.checkpoints"))
    kill_everything(process)
    run = run_of(tracking, repo)
    tracking.remove_artifact(run.run_id, "checkpoints/files")
    tracking.log(run.run_id, tags={lease.TAG: ""})
    gate.touch()
    done = train(another_machine(repo, tmp_path), "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "not whole any more, training starts from the beginning" in done.stderr
    assert "FIRST STEP 0" in done.stderr


def test_a_job_that_is_asked_twice_stops_at_once(
    repo: ModelRepo, tmp_path: Path, mlflow_server: str, tracking: Tracking
) -> None:
    """GitHub's SIGTERM comes when there are two and a half seconds left; the command takes no notice of anything."""
    _, count = stepping(repo, tmp_path)
    script = (repo.path / "train.py").read_text()
    repo.write("train.py", "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + script)
    process = started(repo, mlflow_server)
    wait_until(count.exists)
    process.send_signal(signal.SIGINT)
    time.sleep(1.0)
    assert process.poll() is None
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == 130
    assert run_of(tracking, repo).tags["mlp.checkpoints"].startswith("sha256:"), "what was written is saved"


# ---------------------------------------------------------------- stuck, or too big


def test_a_training_that_is_stuck_is_ended_and_says_why(repo: ModelRepo, train: Train, tracking: Tracking) -> None:
    repo.write("train.py", "import signal\nprint('waiting for ever', flush=True)\nsignal.pause()\n")
    repo.spec(train={"watchdog": {"stalled": "2s"}})
    done = train(repo)
    assert done.returncode == 7, done.stderr
    assert "it printed nothing and used no processor for 2s (train.watchdog.stalled)" in done.stderr
    assert "waiting for ever" in done.stderr
    run = run_of(tracking, repo)
    assert (run.status, run.tags["mlp.status"]) == ("RUNNING", "interrupted")


def test_a_training_that_wants_more_memory_than_it_may_have(repo: ModelRepo, train: Train, tracking: Tracking) -> None:
    repo.write("train.py", "kept = []\nwhile True:\n    kept.append(bytearray(20_000_000))\n")
    repo.spec(train={"command": "ulimit -v 1000000; exec python train.py"})
    done = train(repo)
    assert done.returncode == 3, done.stderr
    assert "ran out of memory" in done.stderr
    assert "it said: MemoryError" in done.stderr
    run = run_of(tracking, repo)
    assert run.tags["mlp.status"] == "failed"
    assert 500 < float(run.tags["mlp.peak_memory_mb"]) < 1030


@pytest.fixture
def small_cgroup() -> Iterator[Path]:
    """A cgroup with 300 MB, as systemd, Docker and Kubernetes make them; none where this user may not."""
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        line = next((x for x in Path("/proc/self/cgroup").read_text().splitlines() if ":memory:" in x or "::" in x), "")
        folder = top / line.rpartition(":")[2].lstrip("/") / f"mlp-ci-test-{os.getpid()}"
        most = folder / ("memory.limit_in_bytes" if top.name == "memory" else "memory.max")
        try:
            folder.mkdir()
            most.write_text(str(300_000_000))
        except OSError:
            continue
        yield folder
        with contextlib.suppress(OSError):
            folder.rmdir()
        return
    pytest.skip("no cgroup can be made here")


def test_a_training_that_the_kernel_kills_for_lack_of_memory(
    repo: ModelRepo, mlflow_server: str, tracking: Tracking, small_cgroup: Path
) -> None:
    repo.write("train.py", "kept = []\nwhile True:\n    kept.append(bytearray(b'x') * 20_000_000)\n")
    line = f'echo $$ > {small_cgroup}/cgroup.procs && exec "{sys.executable}" -m mlp_ci train --path "{repo.path}"'
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MLFLOW_TRACKING_URI": mlflow_server},
    )
    assert done.returncode == 3, done.stderr
    assert "the training command ran out of memory" in done.stderr
    assert "of 0.3 GB" in done.stderr
    assert "oom_kill" in done.stderr
    assert float(run_of(tracking, repo).tags["mlp.peak_memory_mb"]) > 100


# ---------------------------------------------------------------- what it used

BUSY = "import time\nx = bytearray(300_000_000)\nwhile time.process_time() < 1.5:\n    pass\n" + BARE_MODEL
PLATFORM = """
apiVersion: mlp-ci/v1
runners:
  default: {labels: [ubuntu-latest], usd_per_hour: 3.6}
"""


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    """NVIDIA's driver stood in for by a library of its name: there is no GPU here. Everything above it is real."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path / "driver"
    folder.mkdir()
    source = Path(__file__).with_name("nvml.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    return {"LD_LIBRARY_PATH": str(folder)}


def test_a_run_tells_what_it_used_and_cost(
    repo: ModelRepo, train: Train, tracking: Tracking, tmp_path: Path, driver: dict[str, str]
) -> None:
    (tmp_path / "platform.yaml").write_text(PLATFORM)
    repo.write("train.py", BUSY)
    repo.spec(train={"resources": {"gpus": 1}})
    done = train(repo, "--platform", str(tmp_path / "platform.yaml"), **driver, NVML_UTILISATION="73")
    assert done.returncode == 0, done.stderr
    run = run_of(tracking, repo)
    tags = run.tags
    assert 1.5 <= float(tags["mlp.cpu_seconds"]) < 20
    assert 300 < float(tags["mlp.peak_memory_mb"]) < 500
    assert tags["mlp.gpu"] == "NVIDIA A100, 40960 MiB, 550.54.15"
    assert (tags["mlp.gpu_utilization"], tags["mlp.gpu_peak_memory_mb"]) == ("73.0", "1000")
    assert float(tags["mlp.energy_wh"]) >= 0.5
    assert float(tags["mlp.cost_usd"]) == pytest.approx(float(tags["mlp.train_seconds"]) / 1000, abs=1e-4)
    assert run.metrics["system/gpu_0_utilization_percentage"] == 73
    assert run.metrics["system/gpu_0_power_usage_watts"] == 250
    assert 0 <= run.metrics["system/cpu_utilization_percentage"] <= 100
    assert {"system/system_memory_usage_megabytes", "system/disk_available_megabytes"} <= set(run.metrics)
    for words in ("peak memory", "GPU utilisation", "cost", "at $3.6 an hour"):
        assert words in done.stdout


def test_a_gpu_that_nothing_uses_ends_the_training(repo: ModelRepo, train: Train, driver: dict[str, str]) -> None:
    repo.write("train.py", "import time\nwhile True:\n    print('loading', flush=True)\n    time.sleep(0.1)\n")
    repo.spec(train={"resources": {"gpus": 1}, "watchdog": {"gpu_idle": "2s"}})
    done = train(repo, **driver)
    assert done.returncode == 7, done.stderr
    assert "the GPU stood at 0 % for 2s (train.watchdog.gpu_idle)" in done.stderr


# ---------------------------------------------------------------- before anything is downloaded


def test_a_machine_that_does_not_fit_is_refused_before_anything_is_fetched(
    repo: ModelRepo, train: Train, tracking: Tracking, driver: dict[str, str]
) -> None:
    (repo.path / "data/train.csv").unlink()  # and no remote to fetch it from: nobody gets that far
    cases: list[tuple[dict[str, object], dict[str, str], tuple[str, ...]]] = [
        ({"gpus": 1}, {}, ("train asks for 1 GPU, here: no GPU that NVIDIA's driver shows", "nvidia-smi")),
        ({"gpus": 2}, driver, ("train asks for 2 GPUs, here: 1 GPU (NVIDIA A100, 40960 MiB, 550.54.15)",)),
        ({"memory_gb": 90000}, {}, ("train asks for 90000 GB of memory, here:",)),
        ({"disk_gb": 900000}, {}, ("train asks for 900000 GB of free disk, here:", "MLP_WORK")),
        ({"gpus": 1, "disk_gb": 900000}, {}, ("2 things are missing", "1 GPU, here", "of free disk, here")),
    ]
    for resources, env, said in cases:
        repo.spec(train={"resources": resources})
        refused(train(repo, "--format", "json", **env), 7, *said)
    repo.spec(train={"resources": {"gpus": 1}, "environment": {"pip": "requirements.txt"}})
    repo.write("requirements.txt", "--extra-index-url x\ntorch==2.9.0+cu130\n")
    refused(train(repo, **driver), 7, "torch 2.9.0+cu130 needs CUDA 13.0, here: driver 550.54.15 supports CUDA 12.4")
    assert tracking.experiment(repo.name) is None, "nothing was begun"


# ---------------------------------------------------------------- two runners whose clocks disagree


@pytest.mark.slow
def test_runners_whose_clocks_are_hours_apart_train_a_key_once(
    repo: ModelRepo, mlflow_server: str, tracking: Tracking, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", tmp_path / "count"
    counting = f"open(r'{count}', 'a').write('x')\nimport pathlib, time\nwhile not pathlib.Path(r'{gate}').exists():\n"
    repo.write("train.py", counting + "    time.sleep(0.05)\n" + BARE_MODEL)
    repo.commit()
    other = another_machine(repo, tmp_path)
    # Python reads this at its start: a machine whose clock is wrong, as far as a program can tell.
    for name, hours in (("behind", -3), ("ahead", 3)):
        (tmp_path / name).mkdir()
        script = f"import time\n_real = time.time\ntime.time = lambda: _real() + {hours * 3600}\n"
        (tmp_path / name / "sitecustomize.py").write_text(script)
    first = started(repo, mlflow_server, PYTHONPATH=str(tmp_path / "behind"))
    wait_until(count.exists)
    second = started(other, mlflow_server, PYTHONPATH=str(tmp_path / "ahead"))
    time.sleep(5)
    gate.touch()
    said = [p.communicate(timeout=90)[0] for p in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert count.read_text() == "x", said
    assert "another runner is training this key" in said[1]


def test_a_lease_that_nobody_renews_is_over_whatever_time_it_names(
    repo: ModelRepo, tracking: Tracking, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFact(run_id="1", status="RUNNING", tags={lease.TAG: "99999999999 far:/work"}, started=None)  # type: ignore[arg-type]
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    leases = lease.Leases(tracking, "here:/work")
    assert leases.held_by_another(run)
    time.sleep(0.4)
    assert not leases.held_by_another(run)
    assert json.dumps(leases.text().partition(" ")[2]) == '"here:/work"'


@pytest.mark.slow
def test_killed_anywhere_a_training_resumes_and_makes_the_same_model() -> None:
    bench = Path(__file__).parents[2] / "bench" / "kill_training.py"
    command = [sys.executable, str(bench), "--seconds", "6", "--kills", "3", "--every", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3: resumed in the same run" in done.stdout
