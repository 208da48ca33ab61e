"""Push → registered version: seconds on top of the training command (at most 10), with the share of every step.

A real sandbox, a real push, the real workflow. The rival is what a hand-made workflow does at the least: the same
training command and `mlflow.sklearn.log_model` with a registered model, in one process, without any check or gate.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mlp_ci.sandbox import lifecycle, organisation
from mlp_ci.sandbox.demo.chapters import APRIL
from mlp_ci.sandbox.demo.story import MODEL, REPO, Story


def main() -> None:
    """Push the flights example to the default branch of a fresh sandbox and read the run's own record."""
    root = Path(tempfile.mkdtemp(prefix="mlp-ci-bench-"))
    try:
        home = lifecycle.up(root, instant=APRIL)
        story = Story(home=home, work=root / "work", every=40, say=lambda _: None)
        prepare(story)
        start = time.perf_counter()
        story.alice.git(story.tree, "push", "-q", "origin", "main")
        run = story.run_of("model-ci", sha=story.alice.git(story.tree, "rev-parse", "HEAD"), event="push")
        whole = time.perf_counter() - start
        show(story, run, whole)
        print(f"\nhand-made: train and log_model in one process   {by_hand(story):6.1f} s")
    finally:
        lifecycle.down(root)
        shutil.rmtree(root)


def prepare(story: Story) -> None:
    """All that comes before the push."""
    organisation.found_repository(story.home, REPO)
    organisation.clone(story.alice, REPO, story.tree)
    owner = REPO.split("/", maxsplit=1)[0]
    answers = ("--name", MODEL, "--team", organisation.TEAM, "--owner", owner)
    story.mlp(story.alice, "init", str(story.tree), *answers, "--remote", str(story.home.data_remote), cwd=story.work)
    story.run("python", "data/refresh.py", MLP_NOW=APRIL.isoformat())
    story.run("dvc", "add", "--quiet", "data/train.parquet", "data/test.parquet")
    story.run("dvc", "push", "--quiet")
    story.alice.git(story.tree, "add", "--all")
    story.alice.git(story.tree, "commit", "-q", "-m", "Add the model")


def show(story: Story, run: dict[str, Any], whole: float) -> None:
    """The steps of all jobs, and what is left for the forge, git and act; no two jobs of a push run side by side."""
    jobs = story.alice.api("GET", f"/repos/{REPO}/actions/runs/{run['id']}/jobs")["jobs"]
    training = float(story.tracking.run(story.version(1).run_id).tags["mlp.train_seconds"])
    told = 0.0
    for job in sorted((j for j in jobs if j["conclusion"] == "success"), key=lambda j: str(j["started_at"])):
        for step in job["steps"]:
            began, ended = (datetime.fromisoformat(step[name]) for name in ("started_at", "completed_at"))
            seconds = (ended - began).total_seconds()
            told += seconds
            name = step["name"].split("@", maxsplit=1)[0].rsplit("/", maxsplit=1)[-1]
            print(f"  {job['name']:10} {name:10} {seconds:6.2f} s  {seconds / whole:5.0%}")
    print(f"  {'push, runner':21} {whole - told:6.2f} s  {(whole - told) / whole:5.0%}")
    print(f"push → registered version                       {whole:6.1f} s")
    print(f"the training command alone                      {training:6.1f} s")
    print(f"on top of the training command                  {whole - training:6.1f} s   must be ≤ 10 s")


def by_hand(story: Story) -> float:
    """The training command as it stands, then its model logged and registered."""
    code = (
        "import mlflow, mlflow.sklearn, subprocess, os; "
        "subprocess.run(['python', 'train.py'], check=True); "
        "model = mlflow.sklearn.load_model(os.environ['MLP_OUTPUT'] + '/model'); "
        "mlflow.start_run(); "
        "mlflow.sklearn.log_model(model, name='model', registered_model_name='by-hand', "
        "serialization_format='cloudpickle', pip_requirements=['scikit-learn'])"
    )
    output = story.work / "by-hand"
    output.mkdir()
    environment = {
        "MLP_DATA_TRAIN": str(story.tree / "data/train.parquet"),
        "MLP_PARAMS": str(story.tree / "params.yaml"),
        "MLP_SEED": "17",
        "MLP_OUTPUT": str(output),
        "MLP_CHECKPOINTS": str(output),
    }
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=story.tree,
        env=story.alice.environment(**environment),
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
