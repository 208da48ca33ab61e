"""Serving a small model, 1-row JSON, 16 connections: our server next to `mlflow models serve`, scikit-learn and ONNX.

Needs wrk. Besides requests per second: the processor time that a request costs the server, which says the same on a
busy machine.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5
CONNECTIONS = 16
BODY = {"dataframe_split": {"columns": ["a", "b", "c", "d"], "data": [[0.1, 0.2, 0.3, 0.4]]}}
TENSOR = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [0.1, 0.2, 0.3, 0.4]}]}
WRK = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{body}'
"""


@dataclass(frozen=True)
class Measured:
    """One server under load. ``cost``: microseconds of processor time of a request; ``start``: to the first answer."""

    rate: float
    p50: float
    p99: float
    cost: float
    start: float | None


def main() -> None:
    """Measure each in turn, and print them with their ratio to MLflow's server of the same model."""
    if not shutil.which("wrk"):
        sys.exit("wrk is not on this machine: apt install wrk")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sklearn, onnx = _model(folder / "sklearn"), _onnx(folder / "onnx")
        print(f"{CONNECTIONS} connections, {SECONDS} s each, {os.cpu_count()} cores shared with wrk")
        print(f"{'':34}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>8}{'start s':>9}{'× MLflow':>10}")
        for kind, model in (("scikit-learn", sklearn), ("ONNX", onnx)):
            with _mlflow(model, folder) as (process, port, began):
                rival = measured(process, port, began, folder)
            show(f"{kind}: mlflow models serve", rival, rival)
            for workers in (1, 2):
                with _server(model, workers) as (process, port, began):
                    show(f"{kind}: ours, workers: {workers}", measured(process, port, began, folder), rival)
                    if workers == 1:
                        v2 = measured(process, port, began, folder, "/v2/models/model/infer", TENSOR)
                        show("  the same, Open Inference Protocol", v2, rival)


def show(name: str, one: Measured, rival: Measured) -> None:
    start = "" if one.start is None else f"{one.start:.2f}"
    figures = f"{one.rate:8.0f}{one.p50:9.2f}{one.p99:9.2f}{one.cost:8.0f}{start:>9}{one.rate / rival.rate:10.1f}"
    print(f"{name:34}{figures}", flush=True)


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


def _onnx(folder: Path) -> Path:
    """The same kind of model as a graph: probability of the second class out of four columns."""
    import mlflow.onnx
    import numpy as np
    import onnx
    import pandas as pd
    from mlflow.models import infer_signature
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.random.default_rng(0).normal(size=(500, 4))
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, rows[:, 0] > 0)
    converted = to_onnx(model, initial_types=[("x", FloatTensorType([None, 4]))], options={"zipmap": False})
    graph = converted.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "second"))
    graph.node.append(onnx.helper.make_node("Gather", ["probabilities", "second"], ["probability"], axis=1))
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info("probability", onnx.TensorProto.FLOAT, [None, 1]))
    table = pd.DataFrame(rows[:5], columns=list("abcd"))
    signature = infer_signature(table, np.zeros(5))
    mlflow.onnx.save_model(converted, str(folder), signature=signature, pip_requirements=["onnxruntime"])
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


def measured(
    process: subprocess.Popen[bytes],
    port: int,
    began: float,
    folder: Path,
    path: str = "/invocations",
    body: object = None,
) -> Measured:
    """One server under load, after a second that does not count."""
    start = _first_answer(port, began) if body is None else None
    script = folder / "post.lua"
    script.write_text(WRK.format(body=json.dumps(body or BODY)))
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", "--latency", "-s", str(script), f"http://127.0.0.1:{port}{path}"]
    subprocess.run([*command, "-d1s"], check=True, capture_output=True)
    before = _processor_seconds(process)
    text = subprocess.run([*command, f"-d{SECONDS}s"], check=True, capture_output=True, text=True).stdout
    spent = _processor_seconds(process) - before
    if "Non-2xx" in text or "Socket errors" in text:
        print(text)
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", text)[0])
    count = int(re.findall(r"(\d+) requests in", text)[0])
    return Measured(rate, _milliseconds(text, "50%"), _milliseconds(text, "99%"), spent / count * 1e6, start)


def _processor_seconds(process: subprocess.Popen[bytes]) -> float:
    import psutil

    own = psutil.Process(process.pid)
    return sum(sum(p.cpu_times()[:2]) for p in (own, *own.children(recursive=True)))


def _milliseconds(text: str, percentile: str) -> float:
    value, unit = re.findall(rf"^\s+{percentile}\s+([\d.]+)(us|ms|s)", text, re.MULTILINE)[0]
    return float(value) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def _ended(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def _mlflow(model: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
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
        yield process, port, began
    finally:
        _ended(process)


@contextlib.contextmanager
def _server(model: Path, workers: int = 1) -> Iterator[tuple[subprocess.Popen[bytes], int, float]]:
    from mlp_ci.serve.processes import environment
    from mlp_ci.tracking import artifact_digest

    port, digest = _port(), artifact_digest(model)
    began = time.perf_counter()
    command = [sys.executable, "-m", "mlp_ci.serve.server", "--model", str(model), "--digest", digest]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--workers", str(workers)], start_new_session=True, env=environment({})
    )
    try:
        yield process, port, began
    finally:
        _ended(process)


if __name__ == "__main__":
    main()
