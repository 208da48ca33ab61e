"""Parts of a training that survives: when checkpoints are saved, whole files, when a stuck command is ended, why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.spec.train import Watchdog as Rules
from mlp_ci.train import memory
from mlp_ci.train.checkpoints import Rhythm
from mlp_ci.train.command import Ended
from mlp_ci.train.ending import Evidence, failure
from mlp_ci.train.gpus import Gpu, Reading, visible
from mlp_ci.train.memory import Kills
from mlp_ci.train.preflight import cuda_of
from mlp_ci.train.snapshot import Snapshot, listing
from mlp_ci.train.usage import Sample, sampled
from mlp_ci.train.watchdog import Watchdog

# ---------------------------------------------------------------- when to save


@given(
    every=st.floats(10, 1000),
    share=st.floats(0.02, 0.5),
    cost=st.floats(0.0, 0.05),
)
def test_no_more_work_is_lost_than_every_says(every: float, share: float, cost: float) -> None:
    """A command that writes a checkpoint at regular times; a machine that goes away at the worst moment."""
    gap, took = every * share * 0.9, cost * every * share
    rhythm = Rhythm(every=every, began=0.0)
    stored = worst = now = saves = 0.0
    while now < 20 * every:
        now += gap
        rhythm.wrote(now)
        if rhythm.is_due(now):
            worst = max(worst, now + took - stored)  # the machine goes away just before the set is stored
            stored = now
            saves += 1
            rhythm.done(now, took)
    assert worst <= every * (1 + 1e-9)
    assert saves <= 20 * every / gap
    if share < 0.2:
        assert saves < 40, "it saves much more often than it must"


# ---------------------------------------------------------------- whole files

WRITER = """
import itertools, os, sys, time
place = sys.argv[1]
for number in itertools.count():
    letter = b"abcdefgh"[number % 8 : number % 8 + 1]
    with open(place, "wb") as file:      # in place: the file is torn for as long as this takes
        for _ in range(20):
            file.write(letter * 50_000)
            file.flush()
            time.sleep(0.002)
    time.sleep(0.1)
"""


def test_a_file_that_is_being_written_is_never_torn(tmp_path: Path) -> None:
    source = tmp_path / "checkpoints"
    source.mkdir()
    (source / "epoch").write_text("7")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(source / "model.bin")])
    snapshot = Snapshot(source, tmp_path / "copy")
    taken = 0
    try:
        deadline = time.monotonic() + 20
        while taken < 5 and time.monotonic() < deadline:
            if not snapshot.take([writer.pid]):
                continue
            content = (snapshot.mirror / "model.bin").read_bytes() if "model.bin" in snapshot.files else b""
            if content:
                taken += 1
                assert len(content) == 1_000_000
                assert len(set(content)) == 1, "two writings in one copy"
                assert (snapshot.mirror / "epoch").read_text() == "7"
    finally:
        writer.kill()
        writer.wait()
    assert taken == 5
    (source / "epoch").unlink()
    (source / "later").symlink_to("model.bin")
    (source / "secret").symlink_to("/etc/passwd")
    snapshot.take_for_good(link=True)
    assert sorted(p.name for p in snapshot.mirror.iterdir()) == ["later", "model.bin"] == sorted(listing(source))


def test_a_folder_that_never_rests_is_taken_file_by_file(tmp_path: Path) -> None:
    source = tmp_path / "checkpoints"
    source.mkdir()
    (source / "whole").write_text("whole")
    script = "import sys, time\nwhile True:\n    open(sys.argv[1], 'ab').write(b'x' * 1000)"
    writer = subprocess.Popen([sys.executable, "-c", script, str(source / "log")])
    snapshot = Snapshot(source, tmp_path / "copy")
    try:
        deadline = time.monotonic() + 20
        while not (source / "log").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert snapshot.take([writer.pid], at_rest=False)
        assert (snapshot.mirror / "whole").read_text() == "whole"
    finally:
        writer.kill()
        writer.wait()


# ---------------------------------------------------------------- stuck


def reading(utilisation: float | None) -> Reading:
    return Reading(utilisation=utilisation, memory=None, power=None, power_limit=None, energy=None)


def sample(at: float, cpu: float, gpu: float | None = None) -> Sample:
    gpus = (reading(gpu),) if gpu is not None else ()
    return Sample(at=at, cpu_seconds=cpu, memory=1.0, processes=1, gpus=gpus)


def ended_by(rules: Rules, cpu_share: float, gpu: float | None = None, quiet_from: float = 0.0, gpus: int = 0) -> str:
    """The watchdog's word over a minute of samples every second, with output until ``quiet_from``."""
    dog = Watchdog(rules, gpus, 0.0)
    for second in range(1, 61):
        said = dog.look(float(second), max(0.0, second - quiet_from), sample(second, cpu_share * second, gpu))
        if said:
            return f"{second} {said}"
    return ""


def rules(**seconds: float) -> Rules:
    chosen = {"stalled": 0.0, "silent": 0.0, "gpu_idle": 0.0} | seconds
    return Rules(**{k: timedelta(seconds=v) for k, v in chosen.items()})


def test_what_ends_a_training_and_what_does_not() -> None:
    assert ended_by(rules(stalled=20), 0.0) == (
        "21 it printed nothing and used no processor for 20s (train.watchdog.stalled)"
    )
    assert ended_by(rules(stalled=20), 0.5) == "", "it works in silence"
    assert ended_by(rules(stalled=20), 0.0, gpu=80.0) == "", "the GPU works"
    assert ended_by(rules(stalled=20), 0.0, quiet_from=59) == "", "it prints"
    assert ended_by(rules(silent=20), 1.0).startswith("20 it printed nothing for 20s")
    assert ended_by(rules(gpu_idle=20), 1.0, gpu=0.0, gpus=1).startswith("20 the GPU stood at 0 % for 20s")
    assert ended_by(rules(gpu_idle=20), 1.0, gpu=0.0, gpus=0) == "", "it asked for none"
    assert ended_by(rules(gpu_idle=20), 1.0, gpu=None, gpus=1) == "", "the driver does not tell"
    assert ended_by(rules(), 0.0) == ""


def test_a_machine_that_slept_ends_nothing() -> None:
    dog = Watchdog(rules(stalled=100, silent=100), 0, 0.0)
    assert dog.look(10.0, 10.0, sample(10, 0)) == ""
    assert dog.look(3600.0, 3600.0, sample(3600, 0)) == ""
    assert dog.look(3620.0, 3620.0, sample(3620, 0)) == ""
    asleep = [dog.look(3600.0 + t, 3600.0 + t, sample(3600 + t, 0)) for t in range(30, 120, 10)]
    assert any(asleep)


# ---------------------------------------------------------------- what an end means


def ended(code: int, **more: object) -> Ended:
    return Ended(**{"code": code, "why": "exit", "seconds": 12.0, **more})  # type: ignore[arg-type]


GPU_LINES = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 39.4 GiB",
    "RuntimeError: CUDA error: out of memory",
    "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory trying to allocate 17179869184 bytes",
    "cupy.cuda.memory.OutOfMemoryError: Out of memory allocating 8,000,000,000 bytes",
    "MemoryError: std::bad_alloc: out_of_memory: CUDA error at: rmm cudaErrorMemoryAllocation out of memory",
)
HOST_LINES = (
    "MemoryError",
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 74.5 GiB for an array with shape (100000, 100000)",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory",
    "OSError: [Errno 12] Cannot allocate memory",
)


@pytest.mark.parametrize("line", [*GPU_LINES, *HOST_LINES])
def test_the_want_of_memory_is_recognised(tmp_path: Path, line: str) -> None:
    log = tmp_path / "log"
    log.write_text(f"epoch 1\n{line}\n" + "later\n" * 50)
    evidence = Evidence(peak=3.1e9, limit=4e9, gpu_peak=39e9, gpu_memory=40e9, gpu="NVIDIA A100")
    error = told(ended(1), log, evidence)
    assert isinstance(error, GateError)
    assert ("GPU memory after 12 s: it was seen to use 39.0 GB of 40.0 GB" in error.what) == (line in GPU_LINES)
    assert ("out of memory after 12 s: it was seen to use 3.1 GB of 4.0 GB" in error.what) == (line in HOST_LINES)
    assert line[:60] in error.why


def told(end: Ended, log: Path, evidence: Evidence) -> MlpError:
    from mlp_ci.spec import ModelSpec

    text = {
        "apiVersion": "mlp-ci/v1",
        "name": "m",
        "team": "t",
        "data": {"train": "a.csv", "test": "b.csv", "target": "y", "columns": {"x": {"type": "float"}}},
        "train": {"command": "python train.py"},
        "evaluate": {"gates": [{"metric": "accuracy", "min": 0.5}]},
    }
    return failure(ModelSpec.model_validate(text), end, log, evidence)


def test_a_kill_is_for_memory_only_where_something_shows_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for evidence, said in (
        (Evidence(kills=Kills(ours=1, machine=1)), "cgroup's count of oom_kill"),
        (Evidence(kills=Kills(ours=0, machine=1)), "/proc/vmstat"),
        (Evidence(peak=3.9e9, limit=4e9), "nearly all memory"),
    ):
        error = told(ended(-9), log, evidence)
        assert isinstance(error, GateError)
        assert said in error.why
    assert isinstance(told(ended(137, oom=True), log, Evidence()), GateError)
    assert isinstance(told(ended(-9), log, Evidence(peak=1e9, limit=4e9)), OutsideError)
    assert isinstance(told(ended(1), log, Evidence(peak=3.9e9, limit=4e9)), InputError)
    assert isinstance(told(ended(-15, why="interrupted"), log, Evidence(kills=Kills(ours=1, machine=1))), OutsideError)


# ---------------------------------------------------------------- the machine


def test_what_a_tree_of_processes_uses_is_all_of_it() -> None:
    """A shell whose child takes 200 MB and works for half a second in a child of its own, which ends before."""
    script = (
        "import subprocess, sys, time; x = bytearray(200_000_000);"
        "subprocess.run([sys.executable, '-c', 'import time\\nwhile time.process_time() < 0.5: pass']);"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = ["sh", "-c", f'{sys.executable} -c "{script}"; true']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stdout
        process.stdout.readline()
        found = sampled([process.pid])
    finally:
        os.killpg(process.pid, 9)
        process.communicate()
    assert found.processes == 2
    assert 200e6 < found.memory < 300e6
    assert 0.5 <= found.cpu_seconds < 10


def test_memory_of_this_machine() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < memory.free() <= memory.limit() <= total
    assert memory.kills().machine >= 0


def test_which_cuda_a_package_stands_for() -> None:
    packages = {
        ("nvidia-cuda-runtime-cu12", "12.4.127"): (12, 4),
        ("nvidia_cuda_runtime", "13.0.48"): (13, 0),
        ("torch", "2.5.1+cu121"): (12, 1),
        ("torch", "2.9.0+cu130"): (13, 0),
        ("torch", "2.5.1+cpu"): None,
        ("cupy-cuda12x", "13.3.0"): (12, 0),
        ("jax-cuda12-plugin", "0.4.35"): (12, 0),
        ("cudatoolkit", "11.8"): (11, 8),
        ("numpy", "2.1.0"): None,
    }
    assert {k: cuda_of(*k) for k in packages} == packages


def test_which_gpus_a_command_may_use() -> None:
    found = [Gpu(index=i, uuid=f"GPU-{'abc'[i]}", name="A100", memory=1) for i in range(3)]

    def chosen(text: str | None) -> list[int]:
        return [gpu.index for gpu in visible(found, text)]

    assert [chosen(t) for t in (None, "", "-1", "2,0", "GPU-b", "1,7,2")] == [[0, 1, 2], [], [], [2, 0], [1], [1]]


def test_a_note_that_is_no_note(tmp_path: Path) -> None:
    from types import SimpleNamespace

    from mlp_ci.train.checkpoints import note, noted

    job = SimpleNamespace(folders=SimpleNamespace(root=tmp_path))
    assert noted(job) == []  # type: ignore[arg-type]
    note(job, ["a", "b"])  # type: ignore[arg-type]
    assert noted(job) == ["a", "b"]  # type: ignore[arg-type]
    (tmp_path / "checkpoints.json").write_text(json.dumps([1]))
    assert noted(job) == []  # type: ignore[arg-type]
