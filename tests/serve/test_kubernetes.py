"""Versions in a cluster: on an API server that is only a stand-in, and on a real one where there is one."""

from __future__ import annotations

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from mlp_ci.errors import InputError, NothingToDo, OutsideError, RolloutAborted
from mlp_ci.serve.package.naming import reference
from mlp_ci.serve.rollout.progress import Progress
from mlp_ci.serve.state import Arm
from mlp_ci.serve.targets import Release, Why
from mlp_ci.serve.targets.kubernetes import manifests
from mlp_ci.serve.targets.kubernetes.api import APPLY
from mlp_ci.tracking import artifact_digest
from tests.api_server import write_kubeconfig
from tests.serve.kube.stand import NAMESPACE, OUR_IMAGE, REGISTRY, Stand, real_cluster, stand_in_cluster
from tests.serving import LOGGED, body, save_model, wait_until

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "serve-on-kubernetes.md"
BODY = b'{"inputs": [[1.0]]}'


def live(stand: Stand, version: int = 3, **fields: Any) -> None:
    """Have a version serve, as a first deployment does."""
    target, place, release = stand.target(), stand.place(), stand.release(version)
    target.prepare(place, release, stand.settings(**fields))
    target.settle(place, release, NOW)


def test_a_version_comes_in_step_by_step_and_the_one_before_stays_warm(kube: Stand) -> None:
    target, place = kube.target(), kube.place()
    assert target.live(place) is None
    assert target.arms(place) == []
    live(kube)
    fact = target.live(place)
    assert fact is not None
    assert (fact.version, fact.running, fact.previous, fact.evidence) == (3, True, None, "evidence of 3")
    assert kube.ask_address(fact.address, 3) == [3, 3, 3]

    new, settings = kube.release(4), kube.settings(rollout={"strategy": "canary"})
    said = target.plan(place, new, settings)
    assert "+    mlp-ci/version: '4'" in said
    assert "+      name: flight-delay-production-v4\n" in said
    assert "(with 1 % on version 4)" in said
    target.prepare(place, new, settings)
    target.prepare(place, new, settings)  # again: nothing changes
    assert target.arms(place) == [Arm(version=3, weight=100)]
    assert target.healthy(place, 4)
    assert target.ask(place, 4, BODY).body == b'{"predictions": [4]}'
    both = [Arm(version=3, weight=50), Arm(version=4, weight=50, arm="canary")]
    target.shift(place, both, [Arm(version=3, weight=100)])
    with pytest.raises(RolloutAborted, match="moved the traffic"):
        target.shift(place, both, [Arm(version=3, weight=100)])
    before = target.measured(place)
    answered = kube.ask_address(fact.address, 60)
    assert set(answered) == {3, 4}
    after = target.measured(place)
    assert after.boot == before.boot
    gained = {v: after.versions[v].since(before.versions[v]).requests for v in (3, 4)}
    assert gained == {3: answered.count(3), 4: answered.count(4)}

    target.settle(place, new, NOW, both)
    fact = target.live(place)
    assert fact is not None
    assert (fact.version, fact.previous) == (4, 3)
    assert kube.ask_address(fact.address, 5) == [4] * 5
    assert target.ask(place, None, BODY).body == b'{"predictions": [4]}'
    assert target.plan(place, new, settings) == "", "nothing would change any more"
    live(kube, 5)
    assert kube.names("apps/v1", "Deployment") == ["flight-delay-production-v4", "flight-delay-production-v5"]
    assert [i.version for i in target.history(place.home, "flight-delay")] == [3, 4, 5]


def test_traffic_goes_back_at_once_whoever_holds_the_weights(kube: Stand) -> None:
    target, place = kube.target(), kube.place()
    with pytest.raises(InputError, match="nothing was ever deployed"):
        target.turn_back(place, None, Why(reason="", now=NOW))
    live(kube)
    live(kube, 4)
    grab_weights(kube)
    with pytest.raises(InputError, match="somebody else manages") as raised:
        target.shift(place, [Arm(version=3, weight=100)])
    assert "kubectl-edit" in raised.value.why
    begun = time.monotonic()
    reversal, moved = target.turn_back(place, None, Why(reason="it answers nonsense", now=NOW, by="ada"))
    took = time.monotonic() - begun
    assert moved
    assert took < 10
    assert (reversal.version, reversal.held.version, reversal.by) == (3, 4, "ada")
    fact = target.live(place)
    assert fact is not None
    assert kube.ask_address(fact.address, 5) == [3] * 5
    assert target.turn_back(place, None, Why(reason="again", now=NOW)) == (reversal, False)
    assert [h.version for h in target.held(place)] == [4]
    target.acknowledge(place, reversal.held.digest)
    assert target.held(place)[0].known
    assert target.unfinished(place) == [reversal]
    target.note(place, replace(reversal, done=("git", "alias", "record", "deployment")))
    assert target.unfinished(place) == []
    target.announce(place, 3)
    assert target.announced(place) == 3
    with pytest.raises(InputError, match="never ran"):
        target.turn_back(place, 9, Why(reason="", now=NOW))
    with pytest.raises(NothingToDo):
        live(kube, 5)
        target.turn_back(place, 5, Why(reason="", now=NOW))


def grab_weights(stand: Stand) -> None:
    """What `kubectl edit` leaves behind: another manager of the weights."""
    route = stand.route()
    rules = route["spec"]["rules"]
    rules[0]["backendRefs"][0]["weight"] = 77
    change = {"apiVersion": route["apiVersion"], "kind": "HTTPRoute", "spec": {"rules": rules}}
    path = f"/apis/{manifests.GATEWAY_API}/namespaces/{NAMESPACE}/httproutes/flight-delay-production"
    body = json.dumps({**change, "metadata": {"name": "flight-delay-production"}}).encode()
    answer = stand.api.ask("PATCH", path, {"fieldManager": "kubectl-edit", "force": "true"}, body, APPLY)
    assert answer.status == 200


def test_two_controllers_at_once(kube: Stand) -> None:
    live(kube)
    one, other, place = kube.target(), kube.target(), kube.place()
    begun: dict[str, Any] = {"version": 4, "digest": "sha256:x", "stable": 3, "strategy": "canary", "steps": (1, 100)}
    first = Progress(**begun, started="2026-11-21T12:00:00+00:00")
    one.keep(place, first, None)
    with pytest.raises(RolloutAborted, match="another command drives"):
        other.keep(place, first, None)
    assert other.progress(place) == first
    with pytest.raises(OutsideError, match="changed it in between"), one.changing(place) as state:
        other.announce(place, 7)
        state.announced = 8
    assert one.announced(place) == 7
    with ThreadPoolExecutor(4) as pool:  # what does not depend on what was read is tried again
        list(pool.map(lambda version: kube.target().announce(place, version), range(8)))
    assert one.announced(place) in range(8)
    state = one.read(place)
    assert state is not None
    assert state.progress == first, "nobody's write undid another's"


def test_a_version_that_does_not_start_leaves_nothing(kube: Stand) -> None:
    live(kube)
    target, place = kube.target(), kube.place()
    with pytest.raises(InputError, match="version 4 does not start") as crashed:
        target.prepare(place, kube.release(4, "crash"), kube.settings())
    assert re.search(r"server ended \d times", crashed.value.why)
    unknown = kube.release(5)
    kube.node.programs.clear()
    kube.release(3)
    with pytest.raises(OutsideError, match="version 5 does not start") as missing:
        target.prepare(place, unknown, kube.settings())
    assert "InvalidImageName" in missing.value.why
    assert "mlp-ci package 5" in missing.value.fix
    assert kube.names("apps/v1", "Deployment") == ["flight-delay-production-v3"]
    assert kube.names("v1", "Service") in (["flight-delay-production-v3"], [])
    fact = target.live(place)
    assert fact is not None
    assert fact.version == 3
    target.stop(place)
    fact = target.live(place)
    assert fact is not None
    assert not fact.running
    assert kube.names("apps/v1", "Deployment") == []
    live(kube)
    fact = target.live(place)
    assert fact is not None
    assert fact.running


def test_a_shadow_gets_copies_and_never_answers(kube: Stand) -> None:
    live(kube)
    target, place, new = kube.target(), kube.place(), kube.release(4)
    target.prepare(place, new, kube.settings(rollout={"strategy": "shadow"}))
    target.shift(place, [Arm(version=3, weight=100), Arm(version=4, weight=100, arm="shadow")])
    fact = target.live(place)
    assert fact is not None
    assert kube.ask_address(fact.address, 20) == [3] * 20
    deadline = time.monotonic() + 10
    while target.measured(place).versions[4].requests < 20 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert target.measured(place).versions[4].requests == 20


def test_kserve_runs_the_pods_and_the_route_splits(kube: Stand) -> None:
    target, place = kube.target(kserve=True), kube.place()
    for version in (3, 4):
        release = kube.release(version)
        target.prepare(place, release, kube.settings())
        target.settle(place, release, NOW)
    assert kube.names(manifests.KSERVE_API, "InferenceService") == [
        *("flight-delay-production-v3", "flight-delay-production-v4"),
    ]
    assert kube.names("apps/v1", "Deployment") == []
    fact = target.live(place)
    assert fact is not None
    assert (fact.version, fact.running) == (4, True)
    assert kube.ask_address(fact.address, 3) == [4] * 3


@pytest.mark.slow
def test_our_own_server_and_gateway_are_what_the_pod_says(tmp_path: Path) -> None:
    """The containers' real programs, started as the manifest says: answers, counts of predictions, the log."""
    folder = save_model(tmp_path / "model")
    digest = artifact_digest(folder)
    release = Release(3, digest, folder)
    with stand_in_cluster(tmp_path) as stand:
        image = reference(REGISTRY, "flight-delay", 3, digest)
        own = ("--model", str(folder), "--digest", digest, "--name", "flight-delay", "--version", "3")
        listening = ("--host", "0.0.0.0", "--port", "8080")
        stand.node.programs[image] = [sys.executable, "-m", "mlp_ci.serve.server", *own, *listening]
        stand.node.programs["registry.example/mlp-ci:1"] = []
        target, place = stand.target(image="registry.example/mlp-ci:1"), stand.place()
        log = {"root": "/nowhere", "columns": LOGGED, "sample": 1.0}
        settings = replace(stand.settings(batching={"max_delay": "2ms"}), log=log)
        target.prepare(place, release, settings)
        target.settle(place, release, NOW)
        answer = target.ask(place, 3, body())
        assert answer.status == 200, answer.body
        fact = target.live(place)
        assert fact is not None
        assert [target.ask(place, None, body()).status for _ in range(10)] == [200] * 10
        assert target.ask(place, None, b'{"inputs": "x"}').status == 400
        deadline = time.monotonic() + 10
        while sum(target.measured(place).versions[3].predictions.values()) < 11 and time.monotonic() < deadline:
            time.sleep(0.1)
        seen = target.measured(place).versions[3]
        assert (seen.requests, seen.errors, seen.rejected) == (12, 0, 1)
        assert sum(seen.latency.values()) >= 11
        assert sum(seen.predictions.values()) == 11
        target.stop(place)
        wait_until(lambda: not stand.names("v1", "Pod"))
    logged = list((tmp_path / "log" / "flight-delay" / "stage=production").rglob("part-*.parquet"))
    assert sum(parquet.read_metadata(part).num_rows for part in logged) == 11


@pytest.mark.slow
def test_the_role_on_the_page_is_enough(real_server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Role that the how-to shows, given to a user who may do nothing else: a rollout and a rollback."""
    page = HOW_TO.read_text(encoding="utf-8")
    role = next(
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S) if "kind: Role" in block
    )
    address = json.loads(real_server.read_text())["clusters"][0]["cluster"]["server"]
    with real_cluster(tmp_path, real_server) as stand:
        subject = {"kind": "User", "name": "nobody", "apiGroup": "rbac.authorization.k8s.io"}
        bound = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
        binding = {**role, "kind": "RoleBinding", "subjects": [subject], "roleRef": bound}
        del binding["rules"]
        monkeypatch.setenv("KUBECONFIG", str(write_kubeconfig(tmp_path, address, "b-token")))
        with pytest.raises(OutsideError, match="refuses"):
            live(stand)
        for plural, manifest in (("roles", role), ("rolebindings", binding)):
            path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/{plural}"
            assert stand.api.ask("POST", path, None, json.dumps(manifest).encode()).status == 201
        live(stand)
        target, place = stand.target(), stand.place()
        assert target.plan(place, stand.release(4), stand.settings())
        live(stand, 4)
        assert target.ask(place, 4, BODY).status == 200
        assert target.measured(place).versions[4].requests >= 1
        begun = time.monotonic()
        assert target.turn_back(place, None, Why(reason="no", now=NOW))[1]
        assert time.monotonic() - begun < 60
        target, by_user = stand.target(image=OUR_IMAGE), stand.settings(rollout={"strategy": "ab", "sticky": "user_id"})
        target.prepare(place, stand.release(5), by_user)
        target.shift(place, [Arm(version=3, weight=50), Arm(version=5, weight=50, arm="canary")])
        assert any("-split-" in name for name in stand.names("apps/v1", "Deployment"))
        target.stop(place)
