"""`mlp-ci rollback`: seconds to all traffic on the version before (at most 2 s) and to git's record; failed requests.

With a GitHub (the sandbox's forge) and a real MLflow, as in a team; warm next to cold, where nothing is kept running.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.sandbox.forge.server import ForgeServer
    from mlp_ci.serve.state import Place

ROUNDS = 3
CLIENTS = 8
MODEL = """\
apiVersion: mlp-ci/v1
name: bench
team: bench
data: {train: train.csv, test: test.csv, target: y, columns: {a: {type: float}}}
train: {command: python train.py}
evaluate: {gates: [{metric: roc_auc, min: 0.5}]}
"""


@dataclass
class Round:
    """Seconds from the command's start until traffic, git and the chained record have it; requests, and failed ones."""

    traffic: float
    git: float
    record: float
    asked: int
    failed: int


@dataclass
class Stand:
    """What all rounds share: two versions of a model, a GitHub, an MLflow."""

    folder: Path
    versions: dict[int, Path]
    server: ForgeServer
    tracking_uri: str


def main() -> None:
    """Roll back several times under load, and print the times and the failed requests."""
    if sys.argv[1:2] == ["--load"]:
        asyncio.run(_load(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as name, _stand(Path(name)) as stand:
        for kind in ("warm", "cold"):
            rounds = [_round(stand, f"{kind}-{i}", cold=kind == "cold") for i in range(ROUNDS)]
            bound = "must be ≤ 2 s" if kind == "warm" else "what it costs when nothing is kept running"
            print(f"rollback, {kind}")
            print(f"  traffic on the version before: {_listed([r.traffic for r in rounds])}   ({bound})")
            print(f"  promotion.yaml in git says so: {_listed([r.git for r in rounds])}   (the same command)")
            print(f"  chained record of it in git:   {_listed([r.record for r in rounds])}   (the same command)")
            asked, failed = sum(r.asked for r in rounds), sum(r.failed for r in rounds)
            print(f"  requests that failed:          {failed} of {asked}   ({CLIENTS} clients without pause)")


def _listed(seconds: list[float]) -> str:
    return ", ".join(f"{s:.2f} s" for s in seconds)


@contextmanager
def _stand(folder: Path) -> Iterator[Stand]:
    from serve import _model

    from mlp_ci.sandbox.forge import seed
    from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedUser
    from mlp_ci.sandbox.forge.server import ForgeServer

    versions = {1: _model(folder / "one"), 2: folder / "two"}
    shutil.copytree(versions[1], versions[2])
    (versions[2] / "note.txt").write_text("other bytes\n")
    (folder / "repo").mkdir()
    (folder / "repo" / "model.yaml").write_text(MODEL)
    described = Seed(
        org="acme",
        users=(SeedUser("mlp-ci[bot]", "mlp-ci[bot]", kind="Bot", token="app-token"),),
        repos=(
            SeedRepo("bench", collaborators={"mlp-ci[bot]": "write"}, files={"model.yaml": MODEL.encode()}),
            SeedRepo(".github", private=False, files={"README.md": b"Ours\n"}),
        ),
    )
    with _mlflow(folder / "mlflow") as uri, ForgeServer(folder / "forge") as server:
        seed.apply(server.forge, described)
        _register(uri)
        yield Stand(folder, versions, server, uri)


@contextmanager
def _mlflow(folder: Path) -> Iterator[str]:
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    env = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*command, *store], stdout=log, stderr=log, env=env, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        while True:
            try:
                with urllib.request.urlopen(f"{address}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _register(uri: str) -> None:
    from mlp_ci.tracking import Tracking

    tracking = Tracking(uri)
    experiment = tracking.experiment("bench", create=True)
    assert experiment is not None
    run = tracking.start_run(experiment, "bench", {}, datetime.now(UTC))
    tracking.register_model("bench", "", {})
    for _ in (1, 2):
        tracking.create_version("bench", run, {"mlp.gate": "pass"}, "")


def _round(stand: Stand, name: str, *, cold: bool) -> Round:
    from mlp_ci.serve import artefacts
    from mlp_ci.serve import state as states
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.serve.targets.local import local
    from mlp_ci.spec.serve import Serve
    from mlp_ci.tracking import artifact_digest

    place = Place(stand.folder / name, "bench", "production")
    digests = {version: artifact_digest(model) for version, model in stand.versions.items()}
    try:
        for version, model in stand.versions.items():
            kept = artefacts.folder_of(place.home, digests[version])
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.symlink_to(model)
            release = Release(version, digests[version], kept)
            local.prepare(place, release, Settings(serve=Serve.model_validate({})))
            local.settle(place, release, datetime.now(UTC))
        if cold:
            with states.changing(place) as state:
                del state.servers[1]
        _ask_for(stand, digests[2])
        fact = local.live(place)
        assert fact is not None
        load = [sys.executable, __file__, "--load", fact.address]
        with subprocess.Popen(load, stdout=subprocess.PIPE, text=True) as loading:
            time.sleep(1)
            traffic, git, record = _rolled_back(stand, place, fact.address)
            time.sleep(0.3)
            loading.terminate()
            asked, failed = json.loads(loading.communicate()[0])
        return Round(traffic, git, record, asked, failed)
    finally:
        local.stop_all(place.home)


def _ask_for(stand: Stand, digest: str) -> None:
    """Git asks for version 2, as it does before somebody rolls it back."""
    from mlp_ci.sandbox.forge import repositories, seed
    from mlp_ci.sandbox.forge.access import Actor
    from mlp_ci.spec import PromotionSpec, StageEntry, render_promotion

    forge = stand.server.forge
    user = forge.store.user("mlp-ci[bot]")
    assert user is not None
    stages = {"production": StageEntry(version=2, digest=digest)}
    text = render_promotion(PromotionSpec(apiVersion="mlp-ci/v1", model="bench", stages=stages))
    repo = seed.repo_of(forge, "acme/bench")
    repositories.commit_files(forge, repo, Actor(user), {"promotion.yaml": text.encode()}, "Promote", "main")


def _rolled_back(stand: Stand, place: Place, address: str) -> tuple[float, float, float]:
    """Run the command; seconds until the gateway's split, git's commit and the chained record are there."""
    from mlp_ci.serve.targets.local import local

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "MLFLOW_", "MLP_"))}
    env = {
        **kept,
        "MLP_SERVE_HOME": str(place.home),
        "MLFLOW_TRACKING_URI": stand.tracking_uri,
        "GITHUB_REPOSITORY": "acme/bench",
        "GITHUB_API_URL": stand.server.forge.api,
        "GITHUB_SERVER_URL": stand.server.url,
        "GITHUB_TOKEN": "app-token",
    }
    command = [sys.executable, "-m", "mlp_ci", "rollback", "--path", str(stand.folder / "repo"), "--to", "1"]
    seen: dict[str, float] = {}
    began = time.perf_counter()
    with subprocess.Popen([*command, "--reason", "bench"], env=env, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            if "traffic" not in seen:
                with urllib.request.urlopen(f"{address}/version") as answer:
                    arms = json.load(answer)["arms"]
                if [a["version"] for a in arms] == [1]:
                    seen["traffic"] = time.perf_counter() - began
            reversal = local.reversal(place)
            for step in reversal.done if reversal else ():
                seen.setdefault(step, time.perf_counter() - began)
            time.sleep(0.005)
        ended = time.perf_counter() - began
        said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        sys.exit(f"the rollback failed ({process.returncode}):\n{said}")
    return seen["traffic"], seen.get("git", ended), seen.get("record", ended)


async def _load(address: str) -> None:
    from mlp_ci.serve.gateway.upstream import Upstream, UpstreamDown, UpstreamSlow

    upstream, counts, stop = Upstream(address), [0, 0], asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(15, stop.set)
    body = json.dumps({"inputs": {c: [0.5] for c in "abcd"}}).encode()

    async def client() -> None:
        while not stop.is_set():
            counts[0] += 1
            try:
                counts[1] += (await upstream.post(body)).status != 200
            except (UpstreamDown, UpstreamSlow):
                counts[1] += 1

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    print(json.dumps(counts))


if __name__ == "__main__":
    main()
