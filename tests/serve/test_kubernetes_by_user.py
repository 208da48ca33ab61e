"""Users who keep their version in a cluster: who meets which, whatever happens to what splits them."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.serve.gateway.routing import share_of
from mlp_ci.serve.rollout import steps
from mlp_ci.serve.routing import salt
from mlp_ci.serve.state import Arm, Place
from mlp_ci.serve.targets import Why
from mlp_ci.serve.targets.kubernetes import pods, splitter
from mlp_ci.serve.targets.kubernetes.cluster import KubernetesTarget
from mlp_ci.serve.targets.kubernetes.keeping import Keeping
from mlp_ci.serve.targets.kubernetes.splitting import Splitting
from tests.serve import wanting
from tests.serve.kube.stand import OUR_IMAGE, Stand, stand_in_cluster
from tests.serve.schemas import problem
from tests.serve.wanting import wanted
from tests.serving import LOGGED, body, slowness, wait_until

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ROLLOUT = {"strategy": "ab", "sticky": "header:X-User", "steps": [20, 50, 100]}
SPLITTER = "flight-delay-production-split-"
ALL_ON_3 = [Arm(version=3, weight=100)]
USERS = [f"user-{number}" for number in range(60)]


@dataclass
class World:
    """Version 3 serves, version 4 runs beside it, and its rollout has begun."""

    kube: Stand
    target: KubernetesTarget
    address: str

    def shift(self, weight: int, expected: list[Arm] | None = None) -> list[Arm]:
        self.target.shift(self.kube.place(), arms(weight), expected)
        return arms(weight)

    def met(self) -> dict[str, int]:
        """Which version each user meets."""
        return {user: asked(self.address, user) for user in USERS}

    def splitters(self) -> list[str]:
        return splitters(self.kube, "apps/v1", "Deployment")


def splitters(kube: Stand, api_version: str, kind: str) -> list[str]:
    return [name for name in kube.names(api_version, kind) if name.startswith(SPLITTER)]


def begun(kube: Stand, **rollout: Any) -> World:
    target, place = kube.target(image=OUR_IMAGE), kube.place()
    settings = kube.settings(rollout={**ROLLOUT, **rollout})
    target.prepare(place, kube.release(3), settings)
    target.settle(place, kube.release(3), NOW)
    target.prepare(place, kube.release(4), settings)
    target.keep(place, steps.first(4, kube.release(4).digest, 3, settings.serve.rollout, NOW), target.progress(place))
    fact = target.live(place)
    assert fact is not None
    return World(kube, target, fact.address)


def arms(weight: int) -> list[Arm]:
    return [Arm(version=3, weight=100 - weight), Arm(version=4, weight=weight, arm="canary")]


def asked(address: str, user: str, content: bytes = b'{"inputs": [[1.0]]}') -> int:
    headers = {"Content-Type": "application/json", "X-User": user}
    request = urllib.request.Request(f"{address}/invocations", content, headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        # However many gateways it went through.
        assert len(answer.headers.get_all("x-request-id")) == len(answer.headers.get_all("x-model-version")) == 1
        return int(json.load(answer)["predictions"][0])


def chosen(weight: int) -> dict[str, int]:
    """Which version each user meets on every other target."""
    shuffled = salt("flight-delay", "production", "sha256:" + "04" * 32)
    return {user: 4 if share_of(shuffled, user) * 100 < weight else 3 for user in USERS}


def test_its_pods_keep_to_what_holds_for_all_pods() -> None:
    on = {"image": OUR_IMAGE, "node_selector": {"pool": "models"}, "pull_secret": "registry"}
    spot = {"resources": {"spot": True}, "replicas": {"min": 2, "max": 20}, "rollout": ROLLOUT}
    version, given = wanted(on=on, **spot), (wanting.serve(**spot), wanting.cluster(**on))
    made = splitter.of_splitter(splitter.of_arms(wanting.PLACE, arms(20), *given, wanting.digest(4)))
    assert [problem(manifest) for manifest in made] == ["", "", ""]
    assert [manifest["kind"] for manifest in made] == ["Service", "PodDisruptionBudget", "Deployment"]
    for manifest in made:
        assert manifest["metadata"]["namespace"] == "models"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "mlp-ci"
        assert "mlp-ci/version" not in manifest["metadata"]["labels"], "nothing takes it for a version"
    pod, like = made[2]["spec"]["template"]["spec"], pods.template(version)["spec"]
    for key in like.keys() - {"containers", "volumes", "affinity", "topologySpreadConstraints"}:
        assert pod[key] == like[key], key
    sidecar = next(c for c in like["containers"] if c["name"] == "gateway")
    for key in sidecar.keys() - {"args", "volumeMounts"}:
        assert pod["containers"][0][key] == sidecar[key], key
    assert made[2]["spec"]["replicas"] == 5
    assert all("emptyDir" in volume or "downwardAPI" in volume for volume in pod["volumes"]), "it keeps nothing"
    others = [
        splitter.of_arms(wanting.PLACE, arms(50), *given, wanting.digest(4)),
        splitter.of_arms(wanting.PLACE, arms(20), *given, wanting.digest(5)),
        splitter.of_arms(Place(Path("/nowhere"), "m" * 60, "production"), arms(20), *given, wanting.digest(5)),
    ]
    assert len({made[2]["metadata"]["name"], *(one.name for one in others)}) == 4
    assert all(len(one.name) <= 63 for one in others)


@dataclass
class Asking:
    """People who ask while something happens."""

    met: dict[str, list[int]] = field(default_factory=dict)  # user → versions, each time it was another one
    failed: Counter[str] = field(default_factory=Counter)
    count: int = 0


@contextmanager
def people(address: str, users: list[str]) -> Iterator[Asking]:
    told, over = Asking(), threading.Event()

    def ask() -> None:
        while not over.wait(0.01):
            for user in users:
                try:
                    version = asked(address, user)
                except OSError as error:
                    told.failed[str(error)] += 1
                    continue
                told.count += 1
                met = told.met.setdefault(user, [])
                if met[-1:] != [version]:
                    met.append(version)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join(60)


def test_each_user_meets_one_version_and_only_ever_moves_to_the_new_one(kube: Stand) -> None:
    world = begun(kube)
    with people(world.address, USERS[:8]) as told:
        assert world.splitters() == [], "nothing stands between while one version has all traffic"
        assert set(world.met().values()) == {3}
        fifth = world.shift(20, ALL_ON_3)
        assert world.met() == world.met() == chosen(20)
        half = world.shift(50, fifth)
        before = world.target.measured(kube.place())
        assert world.met() == chosen(50)
        assert 15 <= list(chosen(50).values()).count(4) <= 45
        seen = world.target.measured(kube.place())
        for version in (3, 4):
            assert seen.versions[version].since(before.versions[version]).requests >= list(chosen(50).values()).count(
                version
            )
        assert world.target.healthy(kube.place(), 4)
        world.target.settle(kube.place(), kube.release(4), NOW, half)
        assert set(world.met().values()) == {4}
        assert world.splitters() == []
        assert splitters(kube, "v1", "Service") == []
        assert splitters(kube, "policy/v1", "PodDisruptionBudget") == []
    assert told.failed == {}
    assert told.count > 50
    assert all(met in ([3, 4], [4]) for met in told.met.values()), told.met


@pytest.mark.slow
def test_all_go_back_at_once_and_what_split_them_is_taken_away(kube: Stand) -> None:
    world = begun(kube)
    with people(world.address, USERS[:4]) as told:
        world.shift(50, ALL_ON_3)
        assert set(world.met().values()) == {3, 4}
        started = time.monotonic()
        _, moved = world.target.turn_back(kube.place(), 3, Why(reason="no", now=NOW), arms(50))
        assert moved
        assert time.monotonic() - started < 10 * slowness(), "nobody waits for what split the traffic"
        assert set(world.met().values()) == {3}
        world.target.tidy(kube.place())
        assert world.splitters() == []
        assert set(world.met().values()) == {3}
    assert told.failed == {}
    world.target.stop(kube.place())
    assert kube.names("apps/v1", "Deployment") == []


@pytest.mark.slow
def test_several_that_split_agree_by_a_column_too(tmp_path: Path) -> None:
    with stand_in_cluster(tmp_path) as kube:
        target, place = kube.target(image=OUR_IMAGE), kube.place()
        settings = kube.settings(rollout={**ROLLOUT, "sticky": "user_id"}, replicas={"min": 1, "max": 8})
        for version in (3, 4):
            target.prepare(place, kube.release(version), settings)
            if version == 3:
                target.settle(place, kube.release(3), NOW)
        target.shift(place, arms(50), ALL_ON_3)
        fact = target.live(place)
        assert fact is not None
        for user in range(8):
            content = json.dumps({"dataframe_records": [{"user_id": user}]}).encode()
            assert len({asked(fact.address, "", content) for _ in range(6)}) == 1
        pages = [
            kube.api.through("GET", f"pods/{pod['metadata']['name']}:8080", "/metrics").body.decode()
            for pod in kube.api.find("v1", "Pod", {"mlp-ci/part": "splitter"})
        ]
        assert len(pages) == 2
        for page in pages:  # both had requests, and are told apart from the versions' own counts
            assert 'stage="production-split"' in page
            assert 'stage="production"' not in page
            assert 'mlp_requests_total{model="flight-delay",stage="production-split",version=' in page


class Killed(BaseException):
    pass


def dies(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.slow
def test_a_killed_command_is_made_up_for_by_the_next(kube: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    world = begun(kube)
    with people(world.address, USERS[:4]) as told:
        for weight, expected, before in ((20, ALL_ON_3, chosen(0)), (50, arms(20), chosen(20))):
            with monkeypatch.context() as patch, pytest.raises(Killed):
                patch.setattr(Splitting, "same", dies)
                world.shift(weight, expected)
            assert world.met() == before, "what would split them stands, and nobody is led to it"
            with monkeypatch.context() as patch, pytest.raises(Killed):
                patch.setattr(Keeping, "follow", dies)
                world.shift(weight, expected)
            assert world.target.arms(kube.place()) == arms(weight)
            world.target.prepare(kube.place(), kube.release(4), kube.settings(rollout=ROLLOUT))
            assert world.met() == chosen(weight)
        world.target.tidy(kube.place())
        assert len(world.splitters()) == 1
    assert told.failed == {}
    kube.api.delete("apps/v1", "Deployment", world.splitters()[0])
    assert not world.target.healthy(kube.place(), 4), "nobody is led to it"
    assert world.target.healthy(kube.place(), 3)
    world.target.prepare(kube.place(), kube.release(4), kube.settings(rollout=ROLLOUT))
    assert world.target.healthy(kube.place(), 4)
    assert world.met() == chosen(50)
    world.target.prepare(kube.place(), kube.release(4), kube.settings(rollout={**ROLLOUT, "sticky": "user_id"}))
    world.target.tidy(kube.place())
    assert len(world.splitters()) == 1
    content = b'{"dataframe_records": [{"user_id": 7}]}'
    assert len({asked(world.address, user, content) for user in USERS}) == 1


@pytest.mark.slow
def test_who_comes_second_does_not_decide_the_split(kube: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    world = begun(kube)
    other = kube.target(image=OUR_IMAGE)
    world.shift(20, ALL_ON_3)
    with pytest.raises(RolloutAborted):
        other.shift(kube.place(), arms(90), ALL_ON_3)
    assert world.met() == chosen(20)
    same = Splitting.same

    def late(splitting: Splitting, *given: Any) -> None:
        """Another one moves the traffic while this one is about to."""
        monkeypatch.setattr(Splitting, "same", same)
        other.shift(kube.place(), arms(70), arms(20))
        same(splitting, *given)

    monkeypatch.setattr(Splitting, "same", late)
    with pytest.raises(RolloutAborted):
        world.shift(50, arms(20))
    assert world.target.arms(kube.place()) == arms(70)
    assert world.met() == chosen(70)


@pytest.mark.slow
def test_what_splits_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlp_ci.serve.targets.kubernetes.splitting.PATIENCE", 0.3)
    with stand_in_cluster(tmp_path) as kube:
        world = begun(kube)
        assert kube.server is not None
        program = kube.node.programs.pop(OUR_IMAGE)
        with pytest.raises(OutsideError, match="splits the traffic of flight-delay in production by user") as raised:
            world.shift(20, ALL_ON_3)
        assert "InvalidImageName" in raised.value.why
        assert OUR_IMAGE in raised.value.fix
        assert world.splitters() == []
        assert world.target.arms(kube.place()) == ALL_ON_3
        kube.node.programs[OUR_IMAGE] = ["false"]
        with pytest.raises(OutsideError) as raised:
            world.shift(20, ALL_ON_3)
        assert "gateway ended" in raised.value.why
        kube.node.programs[OUR_IMAGE] = program
        world.shift(20, ALL_ON_3)
        kube.server.most_pods = len(kube.names("v1", "Pod"))
        with people(world.address, USERS[:4]) as told, pytest.raises(OutsideError, match="does not start") as raised:
            world.shift(50, arms(20))
        assert "exceeded quota" in raised.value.why
        assert "ResourceQuota" in raised.value.fix
        assert world.met() == chosen(20), "those that stood go on"
        assert told.failed == {}
        kube.server.most_pods = 100
        world.shift(50, arms(20))
        assert world.met() == chosen(50)
        with pytest.raises(InputError, match="names no image"):
            kube.target().prepare(kube.place(), kube.release(5), kube.settings(rollout=ROLLOUT))
        kube.target().prepare(kube.place(), kube.release(5), kube.settings(rollout={**ROLLOUT, "strategy": "shadow"}))


@pytest.mark.slow
def test_the_plan_shows_it_and_each_request_is_logged_once(tmp_path: Path) -> None:
    with stand_in_cluster(tmp_path) as kube:
        target, place = kube.target(image=OUR_IMAGE), kube.place()
        settings = replace(kube.settings(rollout=ROLLOUT), log={"root": "/nowhere", "columns": LOGGED, "sample": 1.0})
        target.prepare(place, kube.release(3), settings)
        assert "split" not in target.plan(place, kube.release(3), settings)
        target.settle(place, kube.release(3), NOW)
        said = target.plan(place, kube.release(4), settings)
        shown = re.search(rf"Deployment ({SPLITTER}[0-9a-f]{{8}}) \(with 20 % on version 4\)", said)
        assert shown, said
        assert said.count(f"      name: {shown[1]}\n") == 1, "the route leads to it"
        target.prepare(place, kube.release(4), settings)
        target.shift(place, arms(50), ALL_ON_3)
        assert splitters(kube, "apps/v1", "Deployment") != []
        fact = target.live(place)
        assert fact is not None
        for user in USERS[:30]:
            asked(fact.address, user, body())
        target.stop(place)
        wait_until(lambda: not kube.names("v1", "Pod"))
    parts = list((tmp_path / "log" / "flight-delay").rglob("part-*.parquet"))
    assert sum(parquet.read_metadata(part).num_rows for part in parts) == 30
    assert {part.parts[-4] for part in parts} == {"stage=production"}
