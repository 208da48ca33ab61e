"""Requests that fail while traffic moves: swaps of versions, steps of a canary, rollbacks, 100,000 requests at least.

Beside them nginx, reloaded with the other server as its upstream as often as versions were swapped, under the same
load.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wrk import Told

    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release

ENOUGH = 34_000  # requests in each of three parts
LONGEST = 100.0  # seconds of one part
PAUSE = 0.2  # seconds between two moves
NGINX = """\
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_requests 1000000;
    location / {{ proxy_pass http://model; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""


@dataclass
class Part:
    """What one kind of move cost: requests, those that failed, how many moves, seconds of the slowest one."""

    name: str
    told: Told
    moves: int
    slowest: float


@dataclass
class Stand:
    """A stage with two warm versions."""

    place: Place
    releases: tuple[Release, Release]
    address: str


def main() -> None:
    """Move traffic in all ways under load, and print what failed."""
    from serve import BODY

    with tempfile.TemporaryDirectory() as name, _stand(Path(name)) as stand:
        moves = {"swaps of versions": _swaps, "steps of a canary": _steps, "rollbacks": _rollbacks}
        parts = [_part(what, stand.address, BODY, moving(stand)) for what, moving in moves.items()]
        rival = _nginx(stand, Path(name), BODY, parts[0].moves)
    for part in [*parts, *([rival] if rival else [])]:
        told = part.told
        print(
            f"{part.name:20} {told.failed:6,} failed of {told.requests:8,} requests"
            f"   {part.moves:4} moves, the slowest {part.slowest * 1000:4.0f} ms   {told.per_second:6,.0f} req/s"
        )
        if told.failed:
            print(told.text)
    asked, failed = sum(p.told.requests for p in parts), sum(p.told.failed for p in parts)
    print(f"mlp-ci in all: {failed} failed of {asked:,}   (must be 0 of ≥ 100,000)")


@contextmanager
def _stand(folder: Path) -> Iterator[Stand]:
    from serve import _model

    from mlp_ci.serve import artefacts
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.serve.targets.local import local
    from mlp_ci.spec.serve import Serve
    from mlp_ci.tracking import artifact_digest

    place, releases = Place(folder / "home", "bench", "production"), []
    try:
        for version in (1, 2):
            model = _model(folder / str(version))
            (model / "note.txt").write_text(f"{version}\n")
            digest = artifact_digest(model)
            kept = artefacts.folder_of(place.home, digest)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.symlink_to(model)
            releases.append(Release(version, digest, kept))
            local.prepare(place, releases[-1], Settings(serve=Serve.model_validate({})))
            local.settle(place, releases[-1], datetime.now(UTC))
        fact = local.live(place)
        assert fact is not None
        yield Stand(place, (releases[0], releases[1]), fact.address)
    finally:
        local.stop_all(place.home)


def _part(name: str, address: str, body: object, move: Callable[[int], None]) -> Part:
    """Load until there were enough requests, and moves one after the other meanwhile."""
    from wrk import Load

    began, slowest, count = time.monotonic(), 0.0, 0
    with Load(address, body) as load:
        time.sleep(0.5)
        asked = 0.0
        while asked < ENOUGH and time.monotonic() - began < LONGEST:
            started = time.perf_counter()
            move(count)
            slowest, count = max(slowest, time.perf_counter() - started), count + 1
            time.sleep(PAUSE)
            asked = _answered(address)
        time.sleep(0.5)
    return Part(name, load.told, count, slowest)


_SEEN: dict[str, float] = {}


def _answered(address: str) -> float:
    """Requests that the gateway answered since this was first asked in a part; the count of all of them grows on."""
    import re
    import urllib.request

    with urllib.request.urlopen(f"{address}/metrics", timeout=5) as answer:
        total = sum(float(n) for n in re.findall(r"^mlp_requests_total\{.*\} (\d+)", answer.read().decode(), re.M))
    return total - _SEEN.setdefault(address, total)


def _swaps(stand: Stand) -> Callable[[int], None]:
    from mlp_ci.serve.targets.local import local

    _SEEN.clear()
    return lambda i: local.settle(stand.place, stand.releases[i % 2], datetime.now(UTC))


def _steps(stand: Stand) -> Callable[[int], None]:
    from mlp_ci.serve.state import CANARY, Arm
    from mlp_ci.serve.targets.local import local

    def move(i: int) -> None:
        weight = (1, 10, 50, 90)[i % 4]
        local.shift(stand.place, [Arm(version=live, weight=100 - weight), Arm(version=new, weight=weight, arm=CANARY)])

    _SEEN.clear()
    fact = local.live(stand.place)
    live = fact.version if fact else 1
    new = 3 - live
    return move


def _rollbacks(stand: Stand) -> Callable[[int], None]:
    from mlp_ci.serve.targets import Why
    from mlp_ci.serve.targets.local import local

    def move(i: int) -> None:
        local.turn_back(stand.place, 1 + i % 2, Why(reason="bench", now=datetime.now(UTC)))

    _SEEN.clear()
    local.settle(stand.place, stand.releases[1], datetime.now(UTC))
    return move


# ---------------------------------------------------------------- the rival


def _nginx(stand: Stand, folder: Path, body: object, moves: int) -> Part | None:
    """nginx in front of the same two servers, reloaded with the other one as often."""
    from wrk import Load

    from mlp_ci.serve import reach
    from mlp_ci.serve import state as states

    state = states.read(stand.place)
    if not shutil.which("nginx") or state is None:
        print("nginx is not on this machine, so there is nothing beside the swaps")
        return None
    ports = [s.port for s in state.servers.values()]
    home, port, slowest = folder / "nginx", reach.free_port(), 0.0
    home.mkdir()
    conf = home / "nginx.conf"
    conf.write_text(NGINX.format(folder=home, upstream=ports[0], port=port))
    command = ["nginx", "-c", str(conf), "-p", str(home)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        with Load(f"http://127.0.0.1:{port}", body) as load:
            time.sleep(0.5)
            for i in range(moves):
                started = time.perf_counter()
                conf.write_text(NGINX.format(folder=home, upstream=ports[(i + 1) % len(ports)], port=port))
                subprocess.run([*command, "-s", "reload"], check=True, stderr=subprocess.DEVNULL)
                slowest = max(slowest, time.perf_counter() - started)
                time.sleep(PAUSE)
            time.sleep(0.5)
        return Part("nginx, reloaded", load.told, moves, slowest)
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
