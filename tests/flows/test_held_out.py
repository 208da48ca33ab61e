"""Held-out data is not on a job's machine while a training command runs: not in the tree, in DVC's cache, in MLflow."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from mlp_ci import dvc
from mlp_ci.context import load_context
from mlp_ci.tracking import Tracking, connect
from tests.training import FAST_TRAIN, ModelRepo, make_repo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Cli = Callable[..., subprocess.CompletedProcess[str]]

# What a training command could do that wants to see its exam: read every file that it can find. Keys of the held-out
# rows begin with "2-", those of the training rows with "1-".
SEARCH = """
import os, re
seen = []
for place in os.environ["SEARCH"].split(":"):
    for folder, _, names in os.walk(place):
        for name in names:
            try:
                with open(os.path.join(folder, name), "rb") as stream:
                    raw = stream.read()
            except OSError:
                continue
            if re.search(rb"^2-[0-9]+,", raw, re.M):
                seen.append(os.path.join(folder, name))
print("SEEN", seen)
"""


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path, SEARCH + FAST_TRAIN, remote=True)


def environment(tmp_path: Path, repo: ModelRepo, server: str) -> dict[str, str]:
    """A job on a machine whose caches are looked through: the tree, DVC's cache, ours, the temporary folder."""
    places = [repo.path, tmp_path / "cache", tmp_path / "tmp", tmp_path / "dvc-cache"]
    for place in places:
        place.mkdir(exist_ok=True)
    return {
        "MLFLOW_TRACKING_URI": server,
        "GITHUB_ACTIONS": "true",
        "SEARCH": os.pathsep.join(str(place) for place in places),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "tmp"),
    }


def seen(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return next(line for line in done.stdout.splitlines() if line.startswith("SEEN"))


@pytest.mark.slow
def test_a_training_in_a_job_finds_no_held_out_row_on_its_machine(
    repo: ModelRepo, cli: Cli, mlflow_server: str, tmp_path: Path
) -> None:
    env = environment(tmp_path, repo, mlflow_server)
    # A cache that jobs share, as on a machine of one's own, with what `dvc add` and `dvc pull` left in it.
    repo.dvc("cache", "dir", "--local", str(tmp_path / "dvc-cache"))
    repo.dvc("fetch")
    [md5] = dvc.objects_of(repo.path, "data/test.csv")
    assert len(dvc.in_cache(repo.path, md5)) == 2, "in the shared one, and in the one from before"
    assert cli("validate", "--path", repo.path, **env).returncode == 0
    assert seen(cli("train", "--path", repo.path, **env)) == "SEEN []"

    # Judging brings the file back, past the cache: the next training of the machine finds none either.
    assert cli("evaluate", "--path", repo.path, **env).returncode == 0
    assert (repo.path / "data" / "test.csv").is_file()
    assert not dvc.in_cache(repo.path, md5)
    assert cli("register", "--no-promote", "--path", repo.path, **env).returncode == 0
    (repo.path / "params.yaml").write_text("c: 2.0\n")
    assert seen(cli("train", "--path", repo.path, **env)) == "SEEN []"
    assert (repo.path / "data" / "train.csv").is_file()
    for md5 in dvc.objects_of(repo.path, "data/train.csv"):
        assert dvc.in_cache(repo.path, md5), "training data stays cached"

    # And no row lies in MLflow, whose artefacts a later training may read.
    tracking = connect(load_context(repo.path, environ=env))
    for name, raw in artefacts(tracking, repo.name, tmp_path):
        assert b"2-17" not in raw, name


def artefacts(tracking: Tracking, model: str, tmp_path: Path) -> list[tuple[str, bytes]]:
    found = []
    [run_id] = {version.run_id for version in tracking.versions(model)}
    for item in tracking.store.names(run_id, ""):
        place = tracking.download(run_id, item.path, tmp_path / "fetched")
        files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
        found += [(str(file), file.read_bytes()) for file in files]
    assert any(name.endswith("evidence.json") for name, _ in found)
    return found


@pytest.mark.slow
def test_held_out_data_that_was_never_pushed_is_moved_aside_and_not_lost(
    repo: ModelRepo, cli: Cli, mlflow_server: str, tmp_path: Path
) -> None:
    env = environment(tmp_path, repo, mlflow_server)
    env["SEARCH"] = f"{repo.path / 'data'}{os.pathsep}{repo.path / '.dvc'}"
    [md5] = dvc.objects_of(repo.path, "data/test.csv")
    [kept] = dvc.in_cache(repo.path, md5)
    stored = tmp_path / "storage" / "files" / "md5" / md5[:2] / md5[2:]
    stored.unlink()
    before = (repo.path / "data" / "test.csv").read_bytes()
    assert seen(cli("train", "--path", repo.path, **env)) == "SEEN []"
    assert (repo.path / "data" / "test.csv").read_bytes() == before
    assert kept.read_bytes() == before


@pytest.mark.slow
def test_a_newer_held_out_file_takes_the_place_of_one_that_was_fetched(repo: ModelRepo) -> None:
    place = repo.path / "data" / "test.csv"
    first = place.read_bytes()
    place.unlink()
    dvc.pull(repo.path, ["data/test.csv"], apart=["data/test.csv"])
    assert place.read_bytes() == first
    place.write_bytes(first + b"2-999,1,1,a,1\n")
    repo.dvc("add", "-q", "data/test.csv")
    repo.dvc("push", "-q")
    repo.commit("More held-out rows")
    subprocess.run(["rm", "-rf", str(repo.path / ".dvc" / "cache")], check=True)
    place.write_bytes(first)
    assert dvc.pull(repo.path, ["data/test.csv"], apart=["data/test.csv"])["data/test.csv"].stat().st_size > len(first)
    assert not list((repo.path / ".dvc" / "cache").rglob("*")), "nothing of it went into the cache"
