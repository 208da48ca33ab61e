"""Kill the training command, or mlp-ci with everything, at random points: does the re-run resume, and what is repeated?

A job of SECONDS, in steps of a quarter of a second, writes a checkpoint every second and notes each step that it did in
a file outside of all that is killed. It is killed with SIGKILL at a random point, KILLS times: by turns the
command alone, mlp-ci alone, mlp-ci with all its processes on the same machine, and the same with its disk (the next
attempt starts on a fresh clone). Each is run again to the end. Counted are the steps that were done twice; compared is
the digest of the model with that of an undisturbed run.

    python bench/kill_training.py [--seconds 60] [--kills 20] [--every 5] [--seed 1]
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import psutil

from bench.train_overhead import make_repo, start_mlflow
from mlp_ci.tracking import Tracking

STEP = 0.25
STEPS_PER_CHECKPOINT = 4
TRAIN = """
import hashlib, json, os, pathlib, random, time
steps, step_seconds, journal = int(os.environ["STEPS"]), float(os.environ["STEP_SECONDS"]), os.environ["JOURNAL"]
folder = pathlib.Path(os.environ["MLP_CHECKPOINTS"])
saved = folder / "state.json"
state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "weights": os.environ["MLP_SEED"]}
for step in range(state["step"], steps):
    time.sleep(step_seconds)
    # What a step makes depends on all steps before it: one that is left out or done twice in a row shows in the digest.
    state = {"step": step + 1, "weights": hashlib.sha256(f"{state['weights']} {step}".encode()).hexdigest()}
    with open(journal, "a") as stream:
        stream.write(f"{step}\\n")
    if (step + 1) % STEPS_PER_CHECKPOINT == 0:
        (folder / "weights.bin.new").write_bytes(random.Random(state["weights"]).randbytes(1_000_000))
        os.replace(folder / "weights.bin.new", folder / "weights.bin")
        (folder / "state.new").write_text(json.dumps(state))
        os.replace(folder / "state.new", saved)
out = pathlib.Path(os.environ["MLP_OUTPUT"]) / "model"
out.mkdir(parents=True)
(out / "MLmodel").write_text('''flavors:
  python_function: {loader_module: nothing}
signature: {inputs: '[{"name": "x", "type": "double"}]', outputs: '[{"type": "long"}]'}
''')
(out / "weights.txt").write_text(state["weights"])
"""
MODEL = """\
apiVersion: mlp-ci/v1
name: bench-kill
team: bench
data:
  train: train.csv
  test: test.csv
  target: y
  columns: {x: {type: float}, y: {type: int}}
train: {command: python train.py, seed: SEED, timeout: 1h, checkpoints: {every: EVERY}}
evaluate: {gates: [{metric: accuracy, min: 0.5}]}
"""
VICTIMS = ("the command", "mlp-ci", "mlp-ci and all its processes", "the machine with its disk")


@dataclass(frozen=True)
class Told:
    """One kill: what was killed when, steps done twice, whether the run and the digest are the same."""

    victim: str
    at: float
    repeated: float
    same_run: bool
    same_digest: bool
    resumed: bool
    seconds: float


@dataclass(frozen=True)
class Bench:
    place: Path
    environ: dict[str, str]
    tracking: Tracking
    seconds: float
    every: float

    def prepare(self, name: str, seed: int) -> Path:
        """A repository of its own with a train key of its own; ``seed`` apart, all are the same."""
        repo = self.place / name / "repo"
        repo.parent.mkdir()
        make_repo(repo, self.environ)
        (repo / "train.py").write_text(TRAIN.replace("STEPS_PER_CHECKPOINT", str(STEPS_PER_CHECKPOINT)))
        # The seed is in the key and in the weights; so the name of the journal must not be.
        (repo / "model.yaml").write_text(MODEL.replace("SEED", str(seed)).replace("EVERY", f"{self.every:g}s"))
        identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
        subprocess.run(["git", "add", "-A"], cwd=repo, check=True)
        subprocess.run(["git", *identity, "commit", "-q", "-m", "Train"], cwd=repo, check=True)
        return repo

    def start(self, repo: Path, journal: Path) -> subprocess.Popen[bytes]:
        steps = max(1, round(self.seconds / STEP))
        environ = {**self.environ, "STEPS": str(steps), "STEP_SECONDS": str(STEP), "JOURNAL": str(journal)}
        with (repo.parent / "log").open("ab") as log:
            command = [sys.executable, "-m", "mlp_ci", "train"]
            return subprocess.Popen(command, cwd=repo, env=environ, stdout=log, stderr=log, start_new_session=True)

    def digest(self, seed: int) -> tuple[str, int]:
        """The digest of the trained run of this seed, and how many runs of its key there are."""
        runs = [r for r in self.tracking.tagged("bench-kill", "mlp.seed", str(seed)) if r.trained]
        every = self.tracking.tagged("bench-kill", "mlp.seed", str(seed))
        return (runs[0].digest if runs else ""), len(every)


def killed(bench: Bench, number: int, victim: str, chance: random.Random, expected: str) -> Told:
    """Train, kill ``victim`` at a random point of the job, train again to the end."""
    name, seed = f"kill-{number}", number
    repo = bench.prepare(name, seed)
    journal = bench.place / name / "journal"
    at = chance.uniform(0.05, 0.95) * bench.seconds
    process = bench.start(repo, journal)
    while not journal.exists() and process.poll() is None:
        time.sleep(0.02)  # the time of the kill counts from the beginning of the work
    time.sleep(at)
    kill(process, victim)
    before = steps_in(journal)
    if victim == VICTIMS[3]:
        repo = elsewhere(repo)
    started = time.monotonic()
    again = bench.start(repo, journal)
    if again.wait():
        sys.exit(f"{name}: the re-run ended with {again.returncode}; see {repo.parent / 'log'}")
    after = steps_in(journal)[len(before) :]
    digest, runs = bench.digest(seed)
    return Told(
        victim=victim,
        at=at,
        repeated=STEP * (len(before) - (after[0] if after else len(before))),
        same_run=runs == 1,
        same_digest=digest == expected,
        resumed=bool(after and after[0] > 0) or len(before) * STEP <= bench.every,
        seconds=time.monotonic() - started,
    )


def kill(process: subprocess.Popen[bytes], victim: str) -> None:
    """SIGKILL, and wait for the end of mlp-ci."""
    top = psutil.Process(process.pid)
    below = top.children(recursive=True)
    targets = {
        VICTIMS[0]: below,
        VICTIMS[1]: [top],
        VICTIMS[2]: [top, *below],
        VICTIMS[3]: [top, *below],
    }[victim]
    for target in targets:
        try:
            target.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.wait()


def steps_in(journal: Path) -> list[int]:
    return [int(line) for line in journal.read_text().split()] if journal.exists() else []


def elsewhere(repo: Path) -> Path:
    """The same commit and data on a machine that knows nothing of the first one."""
    copy = repo.parent / "elsewhere"
    subprocess.run(["git", "clone", "-q", str(repo), str(copy)], check=True)
    shutil.copy(repo / "train.csv", copy / "train.csv")
    shutil.rmtree(repo)
    return copy


def undisturbed(bench: Bench, seed: int) -> str:
    """What the training of this seed makes when nothing happens; computed by running it, without the waiting."""
    repo = bench.prepare(f"calm-{seed}", seed)
    folders = [repo.parent / "checkpoints", repo.parent / "output"]
    for folder in folders:
        folder.mkdir()
    steps = max(1, round(bench.seconds / STEP))
    contract = {"MLP_CHECKPOINTS": str(folders[0]), "MLP_OUTPUT": str(folders[1]), "MLP_SEED": str(seed)}
    extra = {"STEPS": str(steps), "STEP_SECONDS": "0", "JOURNAL": str(repo.parent / "journal")}
    subprocess.run([sys.executable, "train.py"], cwd=repo, check=True, env={**bench.environ, **contract, **extra})
    from mlp_ci.tracking import artifact_digest

    return artifact_digest(folders[1] / "model")


def main(arguments: list[str]) -> int:
    options = argparse.ArgumentParser(description=__doc__)
    for name, value in (("seconds", 60.0), ("kills", 20), ("every", 5.0), ("seed", 1)):
        options.add_argument(f"--{name}", type=type(value), default=value)
    asked = options.parse_args(arguments)
    chance = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLP_", "GITHUB_"))}
        environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "HOME": scratch}
        server, address = start_mlflow(place / "mlflow", environ)
        bench = Bench(place, environ | {"MLFLOW_TRACKING_URI": address}, Tracking(address), asked.seconds, asked.every)
        try:
            calm = bench.start(bench.prepare("calm", 0), place / "calm" / "journal")
            if calm.wait() or bench.digest(0)[0] != undisturbed(bench, 0):
                sys.exit("an undisturbed `mlp-ci train` does not make what the bare command makes")
            told = []
            for number in range(1, asked.kills + 1):
                victim = VICTIMS[(number - 1) % len(VICTIMS)]
                told.append(killed(bench, number, victim, chance, undisturbed(bench, number)))
                show(number, told[-1])
        finally:
            server.terminate()
            server.wait()
    return summary(told, asked.every)


def show(number: int, t: Told) -> None:
    same = [("run", t.same_run), ("digest", t.same_digest)]
    facts = ", ".join(f"{what} {'the same' if yes else 'ANOTHER'}" for what, yes in same)
    print(
        f"{number:3d}  {t.victim:29} killed at {t.at:5.1f} s: {t.repeated:5.2f} s of work repeated, {facts};"
        f" the re-run took {t.seconds:5.1f} s",
        flush=True,
    )


def summary(told: list[Told], every: float) -> int:
    good = sum(t.same_run and t.same_digest and t.resumed and t.repeated <= every for t in told)
    print(f"{good} of {len(told)}: resumed in the same run, at most {every:g} s of work repeated, same digest")
    for victim in VICTIMS:
        lost = [t.repeated for t in told if t.victim == victim] or [0.0]
        print(f"  {victim:29} work repeated: at most {max(lost):.2f} s, {sum(lost) / len(lost):.2f} s on average")
    return 0 if good == len(told) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
