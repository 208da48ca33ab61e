"""Manifests in a git repository that something like Argo CD applies: rollout, rollback, somebody who pushes as well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from mlp_ci import git
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.state import Arm
from mlp_ci.serve.targets import Why
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.serve.targets.kubernetes.cluster import PARTS
from tests.serve.kube.stand import OUR_IMAGE, stand_in_cluster

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WHO = ("-c", "user.name=ada", "-c", "user.email=ada@acme.example")


@contextmanager
def argo(api: Api, checkout: Path) -> Iterator[None]:
    """Applies what is pushed, and deletes what is no longer there."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.2):
            git.git(checkout, "pull", "--quiet", "--ff-only")
            wanted = [yaml.safe_load(file.read_text()) for file in sorted((checkout / "models").glob("*.yaml"))]
            for manifest in wanted:
                api.apply(manifest)
            names = {(m["kind"], m["metadata"]["name"]) for m in wanted}
            for api_version, kind in PARTS:
                for found in api.find(api_version, kind, {"app.kubernetes.io/managed-by": "mlp-ci"}):
                    if (kind, found["metadata"]["name"]) not in names:
                        api.delete(api_version, kind, found["metadata"]["name"])

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def clone(origin: Path, to: Path) -> Path:
    git.git(origin.parent, "clone", "--quiet", str(origin), str(to))
    return to


def begun(folder: Path) -> tuple[Path, Path]:
    """The repository of the fleet, and our checkout of it."""
    origin = folder / "fleet.git"
    git.git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(origin))
    mine = clone(origin, folder / "mine")
    git.git(mine, *WHO, "commit", "--quiet", "--allow-empty", "-m", "begin")
    git.git(mine, "push", "--quiet", "origin", "HEAD:main")
    return origin, mine


@pytest.mark.slow
def test_a_rollout_and_a_rollback_by_git_alone(tmp_path: Path) -> None:
    origin, mine = begun(tmp_path)
    theirs, fleet = clone(origin, tmp_path / "theirs"), clone(origin, tmp_path / "argo")
    with stand_in_cluster(tmp_path) as stand, argo(stand.api, fleet):
        target, place = stand.target(gitops=str(mine / "models")), stand.place()
        target.prepare(place, stand.release(3), stand.settings())
        target.settle(place, stand.release(3), NOW)
        assert (mine / "models" / "deployment-flight-delay-production-v3.yaml").exists()
        git.git(theirs, *WHO, "commit", "--quiet", "--allow-empty", "-m", "something else")
        git.git(theirs, "pull", "--quiet", "--rebase")
        git.git(theirs, "push", "--quiet")
        said = target.plan(place, stand.release(4), stand.settings())
        assert "flight-delay-production-v4" in said
        assert not git.git(mine, "status", "--porcelain"), "a plan writes nothing"
        target.prepare(place, stand.release(4), stand.settings())
        target.shift(place, [Arm(version=3, weight=50), Arm(version=4, weight=50, arm="canary")])
        fact = target.live(place)
        assert fact is not None
        assert set(stand.ask_address(fact.address, 40)) == {3, 4}
        reversal, moved = target.turn_back(place, None, Why(reason="no", now=NOW))
        assert moved
        assert reversal.version == 3
        assert stand.ask_address(fact.address, 5) == [3] * 5
        target.tidy(place)
        assert [f.name for f in (mine / "models").glob("deployment-*")] == [
            "deployment-flight-delay-production-v3.yaml"
        ]
        log = git.git(origin, "log", "--format=%s", "main").splitlines()
        assert "mlp-ci: flight-delay in production: 50 % on version 3, 50 % on version 4" in log
        assert "something else" in log, "what somebody else pushed in between is kept"
        assert log[-1] == "begin"


@pytest.mark.slow
def test_users_keep_their_version_by_git_alone(tmp_path: Path) -> None:
    origin, mine = begun(tmp_path)
    fleet = clone(origin, tmp_path / "argo")
    with stand_in_cluster(tmp_path) as stand, argo(stand.api, fleet):
        target, place = stand.target(gitops=str(mine / "models"), image=OUR_IMAGE), stand.place()
        settings = stand.settings(rollout={"strategy": "ab", "sticky": "header:X-User"})
        for version in (3, 4):
            target.prepare(place, stand.release(version), settings)
            if version == 3:
                target.settle(place, stand.release(3), NOW)
        assert "flight-delay-production-split-" in target.plan(place, stand.release(4), settings)
        assert not list((mine / "models").glob("*-split-*")), "a plan writes nothing"
        for weight in (20, 50):
            target.shift(place, [Arm(version=3, weight=100 - weight), Arm(version=4, weight=weight, arm="canary")])
            kinds = sorted(file.name.partition("-")[0] for file in (mine / "models").glob("*-split-*"))
            assert kinds == ["deployment", "poddisruptionbudget", "service"]
        fact = target.live(place)
        assert fact is not None
        met = stand.ask_address(fact.address, 30, {"X-User": "ada"})
        assert len(set(met)) == 1
        target.turn_back(place, None, Why(reason="no", now=NOW))
        assert stand.ask_address(fact.address, 5, {"X-User": "ada"}) == [3] * 5
        target.tidy(place)
        assert not list((mine / "models").glob("*-split-*"))


def test_a_folder_that_cannot_be_pushed(tmp_path: Path) -> None:
    with stand_in_cluster(tmp_path) as stand:
        (tmp_path / "plain").mkdir()
        with pytest.raises(InputError, match="in no git checkout"):
            stand.target(gitops=str(tmp_path / "plain")).live(stand.place())
        origin, mine = begun(tmp_path)
        (mine / "stray").write_text("x")
        with pytest.raises(InputError, match="not committed"):
            stand.target(gitops=str(mine / "models")).live(stand.place())
        (mine / "stray").unlink()
        hook = origin / "hooks" / "pre-receive"
        hook.write_text("#!/bin/sh\necho main is protected >&2\nexit 1\n")
        hook.chmod(0o755)
        with pytest.raises(OutsideError, match="cannot be pushed") as raised:
            stand.target(gitops=str(mine / "models")).prepare(stand.place(), stand.release(3), stand.settings())
        assert "main is protected" in raised.value.why
        assert not git.git(mine, "status", "--porcelain")
