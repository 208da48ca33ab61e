"""From `mlp-ci rollback` to all traffic on the version before (at most 2 s, no failed request), warm next to cold."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

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


def main() -> None:
    """Roll back several times under load, and print the times and the failed requests."""
    if sys.argv[1:2] == ["--load"]:
        asyncio.run(_load(sys.argv[2]))
        return
    from serve import _model

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "repo").mkdir()
        (folder / "repo" / "model.yaml").write_text(MODEL)
        model = _model(folder / "model")
        for kind in ("warm", "cold"):
            rounds = [
                _round(folder / f"{kind}-{i}", folder / "repo", model, cold=kind == "cold") for i in range(ROUNDS)
            ]
            times = ", ".join(f"{t:.2f} s" for t, _, _ in rounds)
            asked, failed = sum(r[1] for r in rounds), sum(r[2] for r in rounds)
            bound = "   must be ≤ 2 s" if kind == "warm" else "   (what it costs when nothing is kept running)"
            print(f"rollback, {kind}: {times}; {failed} of {asked} requests failed{bound}")


def _round(home: Path, repo: Path, model: Path, *, cold: bool) -> tuple[float, int, int]:
    """Seconds from the command's start to the swap, requests, failed requests."""
    from mlp_ci.serve import artefacts
    from mlp_ci.serve import state as states
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, local
    from mlp_ci.tracking import artifact_digest

    place, digest = Place(home, "bench", "production"), artifact_digest(model)
    kept = artefacts.folder_of(home, digest)
    kept.parent.mkdir(parents=True)
    kept.symlink_to(model)
    try:
        for version in (1, 2):
            # The same bytes twice would be one version; the second release borrows the folder of the first.
            release = Release(version, digest, kept)
            local.prepare(place, release, {})
            local.settle(place, release, datetime.now(UTC))
        if cold:
            with states.changing(place) as state:
                del state.servers[1]
        fact = local.live(place)
        assert fact is not None
        loading = subprocess.Popen(
            [sys.executable, __file__, "--load", fact.address], stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        seconds = _rolled_back(home, repo, fact.address)
        time.sleep(0.3)
        loading.terminate()
        asked, failed = json.loads(loading.communicate()[0])
        return seconds, asked, failed
    finally:
        local.stop_all(home)


def _rolled_back(home: Path, repo: Path, address: str) -> float:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "MLFLOW_", "MLP_"))}
    command = [sys.executable, "-m", "mlp_ci", "rollback", "--path", str(repo), "--to", "1", "--reason", "bench"]
    began = time.perf_counter()
    # Without GitHub and MLflow the record cannot be made; that comes after the traffic, and is not what is measured.
    process = subprocess.Popen(
        command, env={**kept, "MLP_SERVE_HOME": str(home)}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while True:
        with urllib.request.urlopen(f"{address}/version") as answer:
            arms = json.load(answer)["arms"]
        if [a["version"] for a in arms] == [1]:
            seconds = time.perf_counter() - began
            break
        time.sleep(0.005)
    process.wait()
    return seconds


async def _load(address: str) -> None:
    from mlp_ci.serve.upstream import Upstream, UpstreamDown, UpstreamSlow

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
