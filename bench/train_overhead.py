"""What `mlp-ci train` costs on top of the bare training command (at most 3 s), and what a second `train` costs."""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROUNDS = 5
TRAIN = """
import os, pathlib, time
time.sleep(0.5)
out = pathlib.Path(os.environ["MLP_OUTPUT"]) / "model"
out.mkdir(parents=True)
(out / "MLmodel").write_text('''flavors:
  python_function: {loader_module: nothing}
signature: {inputs: '[{"name": "x", "type": "double"}]', outputs: '[{"type": "long"}]'}
''')
for name in range(4):
    (out / f"weights-{name}.bin").write_bytes(os.urandom(1_000_000))
"""
MODEL = """\
apiVersion: mlp-ci/v1
name: bench-train
team: bench
data:
  train: train.csv
  test: test.csv
  target: y
  columns: {x: {type: float}, y: {type: int}}
train: {command: python train.py, seed: SEED}
evaluate: {gates: [{metric: accuracy, min: 0.5}]}
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        environ = {**{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "MLP_", "GITHUB_"))}}
        environ |= {"PATH": f"{Path(sys.executable).parent}:{environ['PATH']}", "HOME": scratch}
        repo = make_repo(place / "repo", environ)
        server, address = start_mlflow(place / "mlflow", environ)
        try:
            measure(repo, {**environ, "MLFLOW_TRACKING_URI": address}, place)
        finally:
            server.terminate()
            server.wait()


def make_repo(repo: Path, environ: dict[str, str]) -> Path:
    repo.mkdir()
    (repo / "train.py").write_text(TRAIN)
    (repo / ".gitignore").write_text("*.csv\n.mlp/\n")
    for name in ("train", "test"):
        (repo / f"{name}.csv").write_text("x,y\n1,0\n2,1\n")
        md5 = hashlib.md5((repo / f"{name}.csv").read_bytes(), usedforsecurity=False).hexdigest()
        (repo / f"{name}.csv.dvc").write_text(f"outs:\n- md5: {md5}\n  path: {name}.csv\n")
    (repo / "model.yaml").write_text(MODEL.replace("SEED", "0"))
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "Start"]):
        subprocess.run(["git", *command], cwd=repo, check=True, env=environ)
    return repo


def start_mlflow(folder: Path, environ: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")),
    ]
    with (folder / "log").open("wb") as log:
        settings = {**environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        server = subprocess.Popen(command, env=settings, stdout=log, stderr=log, cwd=folder)
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return server, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.2)
    server.kill()
    sys.exit("MLflow did not start")


def measure(repo: Path, environ: dict[str, str], place: Path) -> None:
    bare, whole, again = [], [], []
    for seed in range(ROUNDS + 1):
        (repo / "model.yaml").write_text(MODEL.replace("SEED", str(seed)))
        output = place / f"output-{seed}"
        bare.append(timed(["sh", "-c", "python train.py"], repo, {**environ, "MLP_OUTPUT": str(output)}))
        command = [sys.executable, "-m", "mlp_ci", "train"]
        whole.append(timed(command, repo, environ))
        again.append(timed(command, repo, environ))
    middle = [statistics.median(times[1:]) for times in (bare, whole, again)]  # the first round warms caches
    print(f"bare command            {middle[0]:6.2f} s")
    print(f"mlp-ci train            {middle[1]:6.2f} s   overhead {middle[1] - middle[0]:.2f} s (at most 3 s)")
    print(f"mlp-ci train, same key  {middle[2]:6.2f} s")


def timed(command: list[str], folder: Path, environ: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environ, check=True, capture_output=True)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
