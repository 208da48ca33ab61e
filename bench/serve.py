"""Serving a small scikit-learn model, 1-row JSON, 16 connections: our server and gateway next to `mlflow models serve`.

The load comes from wrk where it is installed, else from an asyncio client in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

SECONDS = 5
CONNECTIONS = 16
BODY = {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": [[0.1, 0.2, 0.3, 0.4]]}}
WRK = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""


def main() -> None:
    """Measure each in turn, and print them with their ratio to MLflow's server."""
    if sys.argv[1:2] == ["--load"]:
        asyncio.run(_load(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = _model(folder / "model")
        results = {"mlflow models serve": _mlflow(model, folder), "our server": _server(model, folder)}
        results["our gateway + server"] = _gateway(model, folder, log=False)
        results["… with prediction log"] = _gateway(model, folder, log=True)
    rival = results["mlflow models serve"][0]
    tool = "wrk" if shutil.which("wrk") else "an asyncio client"
    print(f"{CONNECTIONS} connections, {SECONDS} s each, load from {tool}, {os.cpu_count()} cores")
    print(f"{'':24}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'start s':>9}{'× MLflow':>10}")
    for what, (rate, p50, p99, start) in results.items():
        print(f"{what:24}{rate:8.0f}{p50:9.2f}{p99:9.2f}{start:9.2f}{rate / rival:10.1f}")


def _model(folder: Path) -> Path:
    import mlflow.sklearn
    import numpy as np
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(500, 4)), columns=list("abcd"))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows.a > 0)
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(rows, model.predict(rows)),
        pip_requirements=["scikit-learn"],
        serialization_format="cloudpickle",
    )
    return folder


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _first_answer(port: int, began: float) -> float:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(BODY).encode(), {"Content-Type": "application/json"}
    )
    while time.perf_counter() - began < 60:
        try:
            with urllib.request.urlopen(request, timeout=10):
                return time.perf_counter() - began
        except OSError:
            time.sleep(0.02)
    msg = "no answer within a minute"
    raise SystemExit(msg)


def _measured(port: int, began: float, folder: Path) -> tuple[float, float, float, float]:
    """Requests per second, p50 and p99 in milliseconds, seconds to the first answer."""
    start = _first_answer(port, began)
    url = f"http://127.0.0.1:{port}"
    if not shutil.which("wrk"):
        done = subprocess.run([sys.executable, __file__, "--load", url], check=True, capture_output=True, text=True)
        rate, p50, p99 = json.loads(done.stdout)
        return rate, p50, p99, start
    script = folder / "post.lua"
    script.write_text(WRK.format(body=json.dumps(BODY)))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "--latency", "-s", str(script), f"{url}/invocations"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        print(text)
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    return rate, _milliseconds(text, "50%"), _milliseconds(text, "99%"), start


def _milliseconds(text: str, percentile: str) -> float:
    value, unit = re.findall(rf"{percentile}\s+([\d.]+)(us|ms|s)", text)[0]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


async def _load(url: str) -> None:
    from mlp_ci.serve.gateway.upstream import Upstream

    upstream, times, body = Upstream(url), list[float](), json.dumps(BODY).encode()
    end = time.perf_counter() + SECONDS

    async def client() -> None:
        while (began := time.perf_counter()) < end:
            assert (await upstream.post(body)).status == 200
            times.append((time.perf_counter() - began) * 1000)

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    times.sort()
    print(json.dumps([len(times) / SECONDS, times[len(times) // 2], times[len(times) * 99 // 100]]))


def _ended(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _mlflow(model: Path, folder: Path) -> tuple[float, float, float, float]:
    port, began = _port(), time.perf_counter()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"]
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
    try:
        return _measured(port, began, folder)
    finally:
        _ended(process)


def _server(model: Path, folder: Path) -> tuple[float, float, float, float]:
    from mlp_ci.tracking import artifact_digest

    port, began = _port(), time.perf_counter()
    command = [sys.executable, "-m", "mlp_ci.serve.server", "--model", str(model), "--digest", artifact_digest(model)]
    process = subprocess.Popen([*command, "--port", str(port)], start_new_session=True)
    try:
        return _measured(port, began, folder)
    finally:
        _ended(process)


def _gateway(model: Path, folder: Path, *, log: bool) -> tuple[float, float, float, float]:
    from mlp_ci.serve.state import Place
    from mlp_ci.serve.targets import Release, Settings
    from mlp_ci.serve.targets.local import local
    from mlp_ci.spec.serve import Serve
    from mlp_ci.tracking import artifact_digest

    place = Place(folder / f"serve-{log}", "bench", "production")
    plan = {"root": str(folder / "log"), "columns": dict.fromkeys("abcd", "float")} if log else {}
    began = time.perf_counter()
    release = Release(1, artifact_digest(model), model)
    try:
        local.prepare(place, release, Settings(serve=Serve.model_validate({}), log=plan))
        local.settle(place, release, datetime.now(UTC))
        fact = local.live(place)
        assert fact is not None
        return _measured(int(fact.address.rpartition(":")[2]), began, folder)
    finally:
        local.stop_all(place.home)


if __name__ == "__main__":
    main()
