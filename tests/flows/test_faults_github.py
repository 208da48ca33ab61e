"""Every request of promote, approvals and the record of a rollback meets every fault: nothing lost, nothing twice.

Each flow runs once undisturbed. Then, from the same state, it runs once per request and fault, and what is on the
forge afterwards must be the same. Where the command dies, it is run again, as a person or the schedule would.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mlp_ci.errors import MlpError, NothingToDo
from mlp_ci.github import PullRequest, platform
from mlp_ci.promote import approvals, promote, record_rollback
from mlp_ci.sandbox.forge import protection
from mlp_ci.sandbox.forge.seed import Seed
from mlp_ci.sandbox.forge.server import ForgeServer
from mlp_ci.spec import Quarantined
from mlp_ci.tracking import Tracking
from tests.faults import KILLED, Fault, Injector, chosen, is_read, pack, without_waiting
from tests.promotion import DIGESTS, MODEL, World, entry, promotion, register_versions, running_world, world_seed

DEPLOY = (
    b"name: deploy\non: {workflow_dispatch: {}}\njobs: {deploy: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}\n"
)
BRANCH = "mlp-ci/promote-staging"
REQUESTS_LIMIT = 150  # of one flow: far more than any makes


@dataclass(frozen=True)
class Flow:
    """A state, and what is done from there. ``act`` may be repeated and must then find nothing to do."""

    seed: Seed
    prepare: Callable[[World], None]
    act: Callable[[World], object]


def ask(world: World) -> None:
    wanted = promotion(staging=1, production=1)
    world.open("alice", {"promotion.yaml": wanted + b"# soon\n"}, "topic")
    together = "Take the remark away\n\nCo-authored-by: Dave Dogwood <dave@acme.test>\n"  # only GraphQL knows him
    world.push("alice", {"promotion.yaml": wanted}, together, "topic")
    world.review("bob", 1)


def ask_as_the_app(world: World) -> None:
    world.push("carol", {".github/workflows/deploy.yml": DEPLOY})
    files = {"promotion.yaml": promotion(staging=1, production=1)}
    world.hub().open_or_update_pull(PullRequest(branch="topic", title="Promote", body="", files=files))


def ask_for_the_first(world: World) -> None:
    with suppress(NothingToDo):
        promote(world.ctx(), "staging", 1)


def judge(world: World) -> object:
    event = {"pull_request": {"number": 1}, "number": 1}
    return approvals(world.ctx(in_job=True, event=event), pr=None, commit=None)


def roll_back(world: World) -> object:
    since = datetime(2013, 8, 1, tzinfo=UTC)
    held = Quarantined(version=2, digest=DIGESTS[2], reason="late", since=since)
    return record_rollback(world.ctx(), world.hub("carol"), "production", entry(1), held)


def promoted(**stages: int) -> Seed:
    return world_seed(stages=promotion(**stages).decode())


FLOWS = {
    "promote": Flow(world_seed(), lambda _: None, lambda w: promote(w.ctx(), "staging", 1)),
    "promote another": Flow(world_seed(), ask_for_the_first, lambda w: promote(w.ctx(), "staging", 2)),
    "approvals": Flow(promoted(staging=1), ask, judge),
    "approvals, low": Flow(world_seed(tier="low", stages=promotion(staging=1).decode()), ask_as_the_app, judge),
    "rollback": Flow(promoted(staging=2, production=2), lambda _: None, roll_back),
    "rollback, protected": Flow(
        promoted(staging=2, production=2),
        lambda w: protection.protect(w.forge, w.repo, "main", block_pushes=True, enforce_admins=True),
        roll_back,
    ),
}


@dataclass(frozen=True)
class Prepared:
    """A flow's state in a folder, and what an undisturbed run asked for and left behind."""

    flow: Flow
    folder: Path
    tracking_uri: str
    requests: tuple[str, ...] = ()
    left: Any = None


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@contextmanager
def from_copy(prepared: Prepared, scratch: Path) -> Iterator[tuple[World, Injector]]:
    """A forge in the prepared state, which may be spoilt."""
    shutil.copytree(prepared.folder, scratch)
    platform._HUBS.clear()  # another forge may have had this port: every case asks everything itself
    injector = Injector()
    try:
        with ForgeServer(scratch / "forge", wrap=injector) as server:
            yield World(server, injector, scratch, prepared.tracking_uri), injector  # type: ignore[arg-type]
    finally:
        shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def tracking(mlflow_server: str) -> Tracking:
    return register_versions(mlflow_server)


@pytest.fixture(scope="module")
def prepare(tracking: Tracking, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Prepared]:
    made: dict[str, Prepared] = {}

    def once(name: str) -> Prepared:
        if name not in made:
            folder = tmp_path_factory.mktemp("prepared")
            with running_world(folder, FLOWS[name].seed, tracking.uri) as world:
                FLOWS[name].prepare(world)
            pack(folder)
            prepared = Prepared(FLOWS[name], folder, tracking.uri)
            with from_copy(prepared, folder.with_name(f"{folder.name}-undisturbed")) as (world, injector):
                injector.arm(None)
                prepared.flow.act(world)
                requests = tuple(injector.requests)
                made[name] = replace(prepared, requests=requests, left=left_behind(world))
        return made[name]

    return once


def left_behind(world: World) -> dict[str, Any]:
    """All that a person would see on the forge, without what differs between any two runs."""
    wire = world.hub("carol").wire
    root = f"/repos/acme/{MODEL}"

    def read(path: str, **query: Any) -> list[Any]:
        return wire.pages(f"{root}/{path}", "look", **query)

    def status(sha: str) -> list[tuple[str, str, str]]:
        return [(s["context"], s["state"], s["description"]) for s in read(f"commits/{sha}/statuses")]

    pulls = {}
    for pull in sorted(read("pulls", state="all"), key=lambda p: int(p["number"])):
        number = pull["number"]
        pulls[number] = {
            "is": (pull["state"], bool(pull["merged_at"]), pull["head"]["ref"], pull["title"], pull["user"]["login"]),
            "body": plain(pull["body"]),
            "labels": sorted(label["name"] for label in pull["labels"]),
            "commits": [plain(c["commit"]["message"]) for c in read(f"pulls/{number}/commits")],
            "files": [(f["filename"], plain(f["patch"])) for f in read(f"pulls/{number}/files")],
            "comments": [(c["user"]["login"], plain(c["body"])) for c in read(f"issues/{number}/comments")],
            "reviews": [(r["user"]["login"], r["state"]) for r in read(f"pulls/{number}/reviews")],
            "statuses": status(pull["head"]["sha"]),
        }
    return {
        "pulls": pulls,
        "main": [plain(c["commit"]["message"]) for c in read("commits", sha="main")],
        "main says": plain((world.hub().read_file("promotion.yaml", "main") or b"").decode()),
        "statuses": status("main"),
        "branches": sorted(b["name"] for b in read("branches")),
        "issues": len(read("issues", state="all")),
        "runs": [run["event"] for run in wire.pages(f"{root}/actions/runs", "look", item="workflow_runs")],
    }


def plain(text: str | None) -> str:
    return re.sub(r"127\.0\.0\.1:\d+", "forge", re.sub(r"\b[0-9a-f]{7,40}\b", "#", text or ""))


def disturbed(prepared: Prepared, scratch: Path, index: int, fault: Fault) -> tuple[bool, Any, str]:
    """Whether the fault had its turn, what was left behind, and what was raised in a run that should have coped."""
    raised = ""
    with from_copy(prepared, scratch) as (world, injector):
        injector.arm(index, fault)
        try:
            prepared.flow.act(world)
        except MlpError as error:
            raised = "" if fault in KILLED else repr(error)
        reached = injector.reached
        injector.arm(None)
        if fault in KILLED:
            platform._HUBS.clear()  # a new process
            with suppress(NothingToDo):
                prepared.flow.act(world)
        return reached, left_behind(world), raised


def check(prepared: Prepared, scratch: Path, index: int, fault: Fault) -> str:
    """What went wrong, in words; "" when all is as it should be."""
    name = f"{fault} at {index}: {prepared.requests[index]}"
    try:
        reached, left, raised = disturbed(prepared, scratch, index, fault)
    except MlpError as error:
        return f"{name}: the second run fails with {error!r}"
    if not reached:
        return f"{name}: no such request"
    if raised:
        return f"{name}: {raised}"
    wrong = [f"{k}: {left[k]} instead of {v}" for k, v in prepared.left.items() if left[k] != v]
    return f"{name}: {'; '.join(wrong)}" if wrong else ""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", list(Fault))
@pytest.mark.parametrize("name", FLOWS)
def test_each_request_meets_each_fault(
    prepare: Callable[[str], Prepared], tmp_path: Path, name: str, fault: Fault
) -> None:
    prepared = prepare(name)
    assert 0 < len(prepared.requests) < REQUESTS_LIMIT
    wrong = [check(prepared, tmp_path / str(i), i, fault) for i in chosen(prepared.requests, fault)]
    assert not [w for w in wrong if w]


@pytest.mark.slow
@pytest.mark.parametrize("name", FLOWS)
def test_the_writes_of_a_flow_survive_the_worst(prepare: Callable[[str], Prepared], tmp_path: Path, name: str) -> None:
    """A few of the cases, for every run of the tests: the last write lost, and the command killed at the first."""
    prepared = prepare(name)
    writes = [i for i, request in enumerate(prepared.requests) if not is_read(request)]
    cases = [(writes[-1], Fault.CUT), (writes[0], Fault.DIED)]
    assert not [w for i, f in cases if (w := check(prepared, tmp_path / f"{i}-{f.name}", i, f))]
