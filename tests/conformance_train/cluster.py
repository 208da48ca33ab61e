"""A cluster that is not there: the part of Kubernetes' API that the back end uses, with pods as processes.

What is asked for is checked against the API's own schemas; then the container's command really runs, with the variables
that its manifest gives it, in a folder that stands for its workspace.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

JOBS = "/apis/batch/v1/namespaces/"


@dataclass
class Pod:
    """One pod: a process and where its log is."""

    name: str
    index: int
    process: subprocess.Popen[bytes]
    log: Path

    def state(self, reason: str) -> dict[str, Any]:
        code = self.process.poll()
        if code is None:
            return {"running": {}}
        code = 128 - code if code < 0 else code
        return {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else reason or "Error"}}


@dataclass
class ClusterStandIn:
    """The state of the cluster; ``environ`` is what a node gives every process."""

    folder: Path
    environ: dict[str, str]
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    applied: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""  # what it says of containers that fail
    condition: str = ""  # and of jobs

    def start(self, name: str, manifest: dict[str, Any]) -> None:
        manifest["metadata"]["uid"] = str(uuid.uuid4())
        self.jobs[name] = manifest
        self.applied.append(manifest)
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        count = manifest["spec"].get("completions", 1)
        self.pods[name] = [self._pod(name, index, container) for index in range(count)]

    def _pod(self, name: str, index: int, container: dict[str, Any]) -> Pod:
        place = self.folder / uuid.uuid4().hex[:8]
        place.mkdir()
        variables = {v["name"]: v.get("value", str(index)) for v in container["env"]}  # fieldRef: the index
        variables |= {"MLP_CI_WORKSPACE": str(place), "HOME": str(place)}
        if "PET_MASTER_ADDR" in variables:
            variables["PET_MASTER_ADDR"] = "127.0.0.1"  # what the cluster's DNS would say
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(
                container["command"],
                env={**self.environ, **variables},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return Pod(f"{name}-{index}-{uuid.uuid4().hex[:5]}", index, process, place / "log")

    def status(self, name: str) -> dict[str, Any]:
        codes = [pod.process.poll() for pod in self.pods[name]]
        kind = "Failed" if any(codes) else "Complete" if all(c == 0 for c in codes) else ""
        condition = {"type": kind, "status": "True", "reason": self.condition}
        return {"conditions": [condition]} if kind else {"active": len(codes)}

    def delete(self, name: str) -> None:
        for pod in self.pods.pop(name, []):
            if pod.process.poll() is None:
                os.killpg(pod.process.pid, signal.SIGTERM)
                try:
                    pod.process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(pod.process.pid, signal.SIGKILL)
        self.jobs.pop(name, None)

    def described(self, name: str) -> list[dict[str, Any]]:
        label = "batch.kubernetes.io/job-completion-index"
        return [
            {
                "metadata": {"name": pod.name, "annotations": {label: str(pod.index)}},
                "status": {"containerStatuses": [{"name": "train", "state": pod.state(self.reason)}]},
            }
            for pod in self.pods.get(name, [])
        ]


class Handler(BaseHTTPRequestHandler):
    """The API's requests."""

    cluster: ClusterStandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        name = parts.path.rsplit("/", 1)[-1]
        if parts.path.endswith("/pods"):
            label, _, value = query["labelSelector"].partition("=")
            found = self.cluster.described(value) if label == "mlp-ci/job" else []
            self._answer(200, {"items": found})
        elif parts.path.endswith("/log"):
            self._log(parts.path.split("/")[-2], follow=query.get("follow") in ("true", "True"))
        elif parts.path.startswith(JOBS) and name in self.cluster.jobs:
            self._answer(200, {**self.cluster.jobs[name], "status": self.cluster.status(name)})
        else:
            self._answer(404, {"message": f"{parts.path} not found"})

    def do_PATCH(self) -> None:
        parts = urlsplit(self.path)
        name = parts.path.rsplit("/", 1)[-1]
        manifest = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Content-Type"] != "application/apply-patch+yaml" or "fieldManager=mlp-ci" not in parts.query:
            self._answer(415, {"message": "only server-side apply, as mlp-ci"})
            return
        try:
            kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)
        except kubernetes_validate.ValidationError as error:
            self._answer(422, {"message": str(error)})
            return
        if manifest["kind"] == "Job":
            self.cluster.start(name, manifest)
        else:
            self.cluster.services[name] = manifest
        self._answer(201, manifest)

    def do_DELETE(self) -> None:
        name = urlsplit(self.path).path.rsplit("/", 1)[-1]
        self.cluster.delete(name)
        self._answer(200, {"kind": "Status", "status": "Success"})

    def _log(self, pod_name: str, *, follow: bool) -> None:
        pod = next((p for pods in self.cluster.pods.values() for p in pods if p.name == pod_name), None)
        if pod is None:
            self._answer(404, {"message": "no such pod"})
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with pod.log.open("rb") as stream:
            over = False
            while not over:
                over = pod.process.poll() is not None or not follow
                if chunk := stream.read():
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(cluster: ClusterStandIn) -> ThreadingHTTPServer:
    """Serve it on a port of its own; writes a kubeconfig into its folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "users": [{"name": "me", "user": {}}],
    }
    (cluster.folder / "kubeconfig").write_text(json.dumps(config))
    return server


def node_environment(home: Path) -> dict[str, str]:
    """What a node of the cluster gives a process: programs beside this Python, git as in the tests."""
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "DVC_NO_ANALYTICS", "DVC_SITE_CACHE_DIR")
    return {"PATH": programs, "HOME": str(home), **{k: os.environ[k] for k in kept if k in os.environ}}
