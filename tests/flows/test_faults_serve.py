"""Every request of deploy and rollback meets every fault: one record per change, the right traffic, nothing twice.

Each flow runs once undisturbed. Then, from the same state, it runs once per request and fault, and what is on the
forge, in MLflow and on the target afterwards must be the same. Where the command dies or gives up, it is run again, as
the schedule would. The target is a stand-in; what moving real traffic does is tested with the local one.
"""

from __future__ import annotations

import asyncio
import http.client
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn

from mlp_ci.errors import MlpError, NothingToDo, OutsideError
from mlp_ci.promote import records
from mlp_ci.sandbox.forge import protection
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.serve import flow_deploy
from mlp_ci.serve import state as states
from mlp_ci.serve.asked import open_job
from mlp_ci.serve.flow_rollback import roll_back
from tests.conftest import free_port
from tests.faults import KILLED, Fault, Injector, chosen, is_read, pack, without_waiting
from tests.flows.paper import Paper
from tests.flows.served import BETTER, GOOD, Scene, messages, scene, written
from tests.promotion import World

STAGES = ("staging", "production")
REQUESTS_LIMIT = 400  # of one flow: more than any makes
SAME_READS = ("first deploy",)  # it asks what each later one asks, and differs in what it writes


class Failed(OutsideError):
    """The command ended with a failure, which it said."""


def deploy(flights: Scene) -> None:
    """``mlp-ci deploy`` on a target that moves traffic at once."""
    job = replace(open_job(flights.ctx), target=Paper())  # type: ignore[arg-type]
    done = flow_deploy.bring_all(job, STAGES)
    said = [f"{f.check}: {f.message}" for d in done.values() for f in d.findings if f.outcome == "fail"]
    if said:
        raise Failed("; ".join(said))


def go_back(flights: Scene) -> None:
    """``mlp-ci rollback --stage production``."""
    place = flights.place("production")
    report = roll_back(flights.ctx, place, Paper(), to="previous", reason="it lies")  # type: ignore[arg-type]
    if report.exit_code:
        raise Failed(messages(report))


def both(flights: Scene) -> None:
    for version in (GOOD, BETTER):
        merge(flights, version)
        deploy(flights)


def merge(flights: Scene, version: int) -> None:
    """The version is asked for in both stages, one pull request after the other."""
    before = flights.asked().stages.get("production")
    flights.promote(staging=version, **({"production": before.version} if before else {}))
    flights.promote(staging=version, production=version)


def one_and_asked(flights: Scene) -> None:
    merge(flights, GOOD)
    deploy(flights)
    merge(flights, BETTER)


def protected(flights: Scene) -> None:
    both(flights)
    world = flights.world
    protection.protect(world.forge, world.repo, "main", block_pushes=True, enforce_admins=True)


def cut_short(flights: Scene) -> None:
    """A rollback that could tell nobody: the next deploy has to."""
    both(flights)
    github = replace(flights.world.place(), api_url="http://127.0.0.1:9/api/v3")
    offline = replace(flights.ctx, github=github, tracking_uri="http://127.0.0.1:9")
    roll_back(offline, flights.place("production"), Paper(), to="previous", reason="it lies")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Flow:
    """A state, and what is done from there. ``act`` may be repeated and must then find nothing to do."""

    prepare: Callable[[Scene], None]
    act: Callable[[Scene], None]


FLOWS = {
    "first deploy": Flow(lambda flights: merge(flights, GOOD), deploy),
    "deploy": Flow(one_and_asked, deploy),
    "rollback": Flow(both, go_back),
    "rollback, protected": Flow(protected, go_back),
    "deploy after a rollback": Flow(cut_short, deploy),
}


@dataclass(frozen=True)
class Prepared:
    """A flow's state in a folder, and what an undisturbed run asked for (of GitHub, of MLflow) and left behind."""

    flow: Flow
    folder: Path
    flights: Scene
    aliases: dict[str, int | None]
    github: tuple[str, ...] = ()
    mlflow: tuple[str, ...] = ()
    left: Any = None


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


# ---------------------------------------------------------------- a registry that may be spoilt


class Mirror:
    """ASGI app that hands every request on to MLflow."""

    def __init__(self, address: str) -> None:
        self._host = urlsplit(address).netloc

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        status, headers, answer = await asyncio.to_thread(self._ask, scope, body)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _ask(self, scope: Any, body: bytes) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        connection = http.client.HTTPConnection(self._host, timeout=30)
        try:
            path = scope["raw_path"].decode() + ("?" + scope["query_string"].decode() if scope["query_string"] else "")
            sent = {k.decode(): v.decode() for k, v in scope["headers"] if k not in (b"host", b"connection")}
            connection.request(scope["method"], path, body or None, sent)
            answer = connection.getresponse()
            content = answer.read()
            size = ("content-length", str(len(content)))
            kept = [(k, v) for k, v in answer.getheaders() if k.lower() in ("content-type",)]
            return answer.status, [(k.encode(), v.encode()) for k, v in [*kept, size]], content
        finally:
            connection.close()


@pytest.fixture(scope="module")
def registry(mlflow_server: str) -> Iterator[tuple[str, Injector]]:
    """The address of MLflow behind an injector, disarmed."""
    injector, port = Injector(), free_port()
    config = uvicorn.Config(
        injector(Mirror(mlflow_server)),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        lifespan="off",
        interface="asgi3",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}", injector
    server.should_exit = True
    thread.join(10)


# ---------------------------------------------------------------- from one state, again and again


@contextmanager
def from_copy(prepared: Prepared, scratch: Path) -> Iterator[tuple[Scene, Injector]]:
    """The prepared state, with a forge that may be spoilt."""
    shutil.copytree(prepared.folder, scratch)
    flights, injector = prepared.flights, Injector()
    for stage, version in prepared.aliases.items():
        if version is not None:
            flights.tracking.set_alias(flights.name, stage, version)
        elif flights.tracking.alias(flights.name, stage) is not None:
            gone = {"name": flights.name, "alias": stage}
            flights.tracking.client._send("DELETE", "/api/2.0/mlflow/registered-models/alias", gone)
    try:
        with ForgeServer(scratch / "forge", wrap=injector) as server:
            world = World(server, injector, scratch, flights.world.tracking_uri)  # type: ignore[arg-type]
            yield replace(flights, world=world), injector
    finally:
        shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def prepare(
    mlflow_server: str, registry: tuple[str, Injector], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Prepared]:
    made: dict[str, Prepared] = {}

    def once(name: str) -> Prepared:
        if name not in made:
            folder = tmp_path_factory.mktemp("prepared")
            with scene(folder, mlflow_server, models=written) as flights:
                FLOWS[name].prepare(flights)
                aliases = {s: flights.tracking.alias(flights.name, s) for s in STAGES}
            pack(folder)
            prepared = Prepared(FLOWS[name], folder, flights, aliases)
            prepared.flights.world.tracking_uri = registry[0]
            with from_copy(prepared, folder.with_name(f"{folder.name}-undisturbed")) as (copy, injector):
                injector.arm(None)
                registry[1].arm(None)
                prepared.flow.act(copy)
                asked = {"github": tuple(injector.requests), "mlflow": tuple(registry[1].requests)}
                made[name] = replace(prepared, **asked, left=left_behind(copy))
        return made[name]

    return once


def left_behind(flights: Scene) -> dict[str, Any]:
    """All that anybody could see afterwards, without what differs between any two runs."""
    hub = flights.world.hub("carol")
    wire, root = hub.wire, f"/repos/{hub.place.full_name}"
    chain = records.read(hub)
    ours = {r.digest_of_record: (r.stage, r.version) for r in chain}
    found: dict[str, Any] = {
        "chain": [r.previous == before for r, before in zip(chain, ["", *ours], strict=False)],
        "git": plain((hub.read_file("promotion.yaml", "main") or b"").decode()),
        "main": [plain(c.message) for c in hub.commits("main")],
        "pulls": sorted((p["title"], p["state"]) for p in wire.pages(f"{root}/pulls", "look", state="all")),
        "branches": sorted(b["name"] for b in wire.pages(f"{root}/branches", "look")),
    }
    for stage in STAGES:
        state = states.read(flights.place(stage))
        found[stage] = {  # which of two stages was brought first does not matter
            "records": [
                (r.version, r.kind, r.asked_by, r.approved_by, r.merged_by, r.address)
                for r in chain
                if r.stage == stage
            ],
            "deployments": [
                (d.payload["version"], d.state, ours.get(str(d.payload["record"]))) for d in hub.deployments(stage)
            ],
            "alias": flights.tracking.alias(flights.name, stage),
            "traffic": [(a.version, a.weight) for a in state.arms] if state else [],
            "ran": [h["version"] for h in state.history] if state else [],
            "announced": state.announced if state else None,
            "untold": [r.left for r in Paper().unfinished(flights.place(stage))],
        }
    return found


def plain(text: str) -> str:
    return re.sub(r"since: .*", "since: #", re.sub(r"\b[0-9a-f]{7,40}\b", "#", text))


def disturbed(prepared: Prepared, scratch: Path, spoil: tuple[Injector | None, int, Fault]) -> tuple[bool, Any, str]:
    """Whether the fault had its turn, what was left behind, and what was raised in a run that should have coped."""
    where, index, fault = spoil
    raised, copes = "", where is None and fault not in KILLED
    with from_copy(prepared, scratch) as (flights, forge):
        injector = where or forge
        injector.arm(index, fault)
        try:
            prepared.flow.act(flights)
        except MlpError as error:
            raised = repr(error)
        reached = injector.reached
        injector.arm(None)
        if raised and not copes:
            with suppress(NothingToDo):
                prepared.flow.act(flights)
            raised = ""
        return reached, left_behind(flights), raised


def check(prepared: Prepared, scratch: Path, spoil: tuple[Injector | None, int, Fault]) -> str:
    """What went wrong, in words; "" when all is as it should be."""
    where, index, fault = spoil
    name = f"{fault} at {index}: {(prepared.mlflow if where else prepared.github)[index]}"
    try:
        reached, left, raised = disturbed(prepared, scratch, spoil)
    except MlpError as error:
        return f"{name}: the second run fails with {error!r}"
    if not reached:
        return f"{name}: no such request"
    if raised:
        return f"{name}: {raised}"
    wrong = [f"{k}: {left[k]} instead of {v}" for k, v in prepared.left.items() if left[k] != v]
    return f"{name}: {'; '.join(wrong)}" if wrong else ""


def writes_of(prepared: Prepared) -> list[int]:
    return [i for i, request in enumerate(prepared.github) if not is_read(request)]


@pytest.mark.slow
def test_the_undisturbed_runs_leave_what_they_should(prepare: Callable[[str], Prepared]) -> None:
    deployed, back = prepare("deploy").left, prepare("rollback").left
    assert deployed["chain"] == [True] * 4
    for stage in STAGES:
        assert [r[:2] for r in deployed[stage]["records"]] == [(1, "promotion"), (2, "promotion")]
        assert deployed[stage]["deployments"] == [(2, "success", (stage, 2)), (1, "inactive", (stage, 1))]
        assert deployed[stage]["traffic"] == [(2, 100)]
        assert (deployed[stage]["alias"], deployed[stage]["announced"]) == (2, 2)
    assert [r[:2] for r in back["production"]["records"]] == [(1, "promotion"), (2, "promotion"), (1, "rollback")]
    assert back["production"]["ran"] == [1, 2, 1]
    assert (back["production"]["alias"], back["staging"]["alias"]) == (1, 2)
    late = prepare("deploy after a rollback").left
    assert [late[k] for k in (*STAGES, "chain", "git")] == [back[k] for k in (*STAGES, "chain", "git")]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", FLOWS)
def test_each_request_to_github_meets_each_fault(
    prepare: Callable[[str], Prepared], tmp_path: Path, name: str, fault: Fault
) -> None:
    prepared = prepare(name)
    assert 0 < len(prepared.github) < REQUESTS_LIMIT
    spoiled = chosen(prepared.github, fault, reads=name not in SAME_READS)
    wrong = [check(prepared, tmp_path / str(i), (None, i, fault)) for i in spoiled]
    assert not [w for w in wrong if w]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", FLOWS)
def test_each_request_to_mlflow_meets_each_fault(
    prepare: Callable[[str], Prepared], registry: tuple[str, Injector], tmp_path: Path, name: str, fault: Fault
) -> None:
    prepared = prepare(name)
    spoiled = chosen(prepared.mlflow, fault, reads=name not in SAME_READS)
    wrong = [check(prepared, tmp_path / str(i), (registry[1], i, fault)) for i in spoiled]
    assert not [w for w in wrong if w]


@pytest.mark.slow
def test_the_writes_of_deploy_and_rollback_survive_the_worst(
    prepare: Callable[[str], Prepared], registry: tuple[str, Injector], tmp_path: Path
) -> None:
    """A few of the cases, for every run of the tests."""
    cases: list[tuple[Prepared, tuple[Injector | None, int, Fault]]] = []
    for name in ("deploy", "rollback"):
        prepared = prepare(name)
        writes = writes_of(prepared)
        cases += [(prepared, (None, writes[-1], Fault.CUT)), (prepared, (None, writes[0], Fault.DIED))]
        alias = next(i for i, r in enumerate(prepared.mlflow) if r.startswith("POST ") and r.endswith("/alias"))
        cases += [(prepared, (registry[1], alias, Fault.LOST))]
    assert not [w for i, (prepared, spoil) in enumerate(cases) if (w := check(prepared, tmp_path / str(i), spoil))]


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["model-versions/get", "evidence.json"])
def test_a_registry_whose_answer_breaks_off_is_asked_again(
    prepare: Callable[[str], Prepared], registry: tuple[str, Injector], tmp_path: Path, asked: str
) -> None:
    """Not taken for changed evidence, for other bytes, or for a bug: the bytes that came were not all."""
    prepared = prepare("deploy")
    index = next(i for i, r in enumerate(prepared.mlflow) if r.endswith(asked))
    with from_copy(prepared, tmp_path / "copy") as (flights, _):
        registry[1].arm(index, Fault.CUT)
        prepared.flow.act(flights)
        assert registry[1].reached
        registry[1].arm(None)
        assert left_behind(flights) == prepared.left
