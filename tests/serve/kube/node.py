"""What a cluster has beside its API server: controllers, a node whose pods are processes here, and a Gateway.

Everything it knows it reads from the API server, and tells it to it; so it does for a stand-in and for a real one.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlp_ci.errors import OutsideError
from mlp_ci.serve.targets.kubernetes import manifests
from mlp_ci.serve.targets.kubernetes.api import Api
from mlp_ci.serve.targets.kubernetes.pods import LOG_FOLDER
from tests.conftest import free_port
from tests.serve.kube import mounts

Object = dict[str, Any]
MINE = "mlp-ci/model"
VERSION = "mlp-ci/version"
MERGE = "application/merge-patch+json"
TOKEN = "a" * 64


@dataclass
class Running:
    """The processes of one pod, by container."""

    address: str
    template: str
    processes: dict[str, subprocess.Popen[bytes]]
    restarts: dict[str, int] = field(default_factory=dict)
    lingers: bool = False  # it answers until proxies know that it goes


class Node(threading.Thread):
    """Follows one namespace. ``programs`` maps an image to the command that its entry point is; None: it is nowhere."""

    def __init__(self, api: Api, folder: Path, addresses: Callable[[], str]) -> None:
        super().__init__(daemon=True, name="node")
        self.api = api
        self.folder = folder
        self.programs: dict[str, list[str]] = {}
        self.wrong: list[str] = []
        self.follows = True
        self._addresses = addresses
        self._pods: dict[str, Running] = {}
        self._over = threading.Event()
        self._routed = ""
        self._generation = 0
        self._told: dict[str, str] = {}
        self._behind: dict[str, tuple[int, list[str]]] = {}  # Service → (version, addresses of ready pods)
        self.port = free_port()
        self._gateway: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------ life

    def run(self) -> None:
        while not self._over.wait(0.1):
            try:
                self._round()
            except Exception:  # the server may be gone for a moment; a test looks at what stays wrong
                self.wrong.append(traceback.format_exc())

    def end(self) -> None:
        self._over.set()
        self.join(10)
        for running in self._pods.values():
            _end(running)
        if self._gateway:
            self._gateway.kill()
            self._gateway.wait()

    def _round(self) -> None:
        workloads = [*self._find("apps/v1", "Deployment"), *self._find(manifests.KSERVE_API, "InferenceService")]
        pods = self._find("v1", "Pod")
        for workload in workloads:
            mine = [pod for pod in pods if pod["metadata"]["labels"].get("owner") == workload["metadata"]["uid"]]
            self._workload(workload, mine)
        uids = {workload["metadata"]["uid"] for workload in workloads}
        for pod in pods:
            if pod["metadata"]["labels"].get("owner") not in uids:
                self._ask("DELETE", f"pods/{pod['metadata']['name']}")
        pods = self._find("v1", "Pod")
        for pod in pods:
            self._pod(pod)
        names = {pod["metadata"]["name"] for pod in pods}
        gone = [self._pods.pop(name) for name in [*self._pods] if name not in names]
        for running in gone:
            if not running.lingers:
                _end(running)
        pods = self._find("v1", "Pod")
        self._behind = self._services(workloads, pods)
        for pod in pods:
            mounts.write(pod, self.folder, self._behind)
        if self.follows:
            self._route(self._behind)
        for running in gone:
            _end(running)

    # ------------------------------------------------------------ workloads

    def _workload(self, workload: Object, pods: list[Object]) -> None:
        template, replicas = _template(workload)
        mark = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        fresh = [pod for pod in pods if pod["metadata"]["labels"]["template"] == mark]
        ready = [pod for pod in fresh if _ready(pod)]
        failed = ""
        for _ in range(replicas - len(fresh)):
            failed = self._new_pod(workload, template, mark)
        if len(ready) >= replicas:
            for pod in [p for p in pods if p not in fresh] + fresh[replicas:]:
                self._ask("DELETE", f"pods/{pod['metadata']['name']}")
        everyone = [pod for pod in pods if _ready(pod)]
        status: Object = {"observedGeneration": workload["metadata"].get("generation", 0)}
        if workload["kind"] == "InferenceService":
            status["observedGeneration"] = 1  # KServe gives that of the Deployment that it makes
            status["conditions"] = [{"type": "Ready", "status": "True" if len(ready) >= replicas else "False"}]
        else:
            status |= {"replicas": len(pods), "updatedReplicas": len(fresh), "availableReplicas": len(everyone)}
            status |= {"readyReplicas": len(everyone)}
            failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": failed}
            status["conditions"] = [failure] if failed else []
        plural = "deployments" if workload["kind"] == "Deployment" else "inferenceservices"
        self._tell(workload["apiVersion"], plural, workload["metadata"]["name"], status)

    def _new_pod(self, workload: Object, template: Object, mark: str) -> str:
        """Make a pod; what the server says against it."""
        name = f"{workload['metadata']['name']}-{os.urandom(3).hex()}"
        labels = {**template["metadata"]["labels"], "owner": workload["metadata"]["uid"], "template": mark}
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "annotations": template["metadata"].get("annotations", {})},
            "spec": template["spec"],
        }
        return self._ask("POST", "pods", pod)

    # ------------------------------------------------------------ pods

    def _pod(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        running = self._pods.get(name)
        missing = [c["image"] for c in pod["spec"]["containers"] if c["image"] not in self.programs]
        if running is None:
            address = self._addresses()
            lingers = all("preStop" in c.get("lifecycle", {}) for c in pod["spec"]["containers"])
            running = self._pods[name] = Running(address, pod["metadata"]["labels"]["template"], {}, lingers=lingers)
            mounts.write(pod, self.folder, self._behind)
        statuses = []
        for container in pod["spec"]["containers"]:
            state, ready = self._container(running, (pod, container), bool(missing))
            statuses.append(
                {
                    "name": container["name"],
                    "ready": ready,
                    "restartCount": running.restarts.get(container["name"], 0),
                    "image": container["image"],
                    "imageID": "",
                    **state,
                }
            )
        ready = all(one["ready"] for one in statuses)
        status = {
            "phase": "Pending" if missing else "Running",
            "containerStatuses": statuses,
            "podIP": running.address,
            "podIPs": [{"ip": running.address}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        }
        self._tell("v1", "pods", name, status)

    def _container(self, running: Running, which: tuple[Object, Object], unpulled: bool) -> tuple[Object, bool]:
        pod, container = which
        if unpulled:
            return {"state": {"waiting": {"reason": "InvalidImageName", "message": "no such image"}}}, False
        name = container["name"]
        process = running.processes.get(name)
        ended: Object = {}
        if process is None or process.poll() is not None:
            if process is not None:
                running.restarts[name] = running.restarts.get(name, 0) + 1
                ended = {"lastState": {"terminated": {"exitCode": process.returncode, "reason": "Error"}}}
            running.processes[name] = self._process(running, pod, container)
            return {"state": {"waiting": {"reason": "CrashLoopBackOff"}} if ended else {"running": {}}, **ended}, False
        probe = container["readinessProbe"]["httpGet"]
        port = next(p["containerPort"] for p in container["ports"] if p["name"] == probe["port"])
        return {"state": {"running": {}}}, _answers(running.address, port, probe["path"])

    def _process(self, running: Running, pod: Object, container: Object) -> subprocess.Popen[bytes]:
        words = [*self.programs[container["image"]], *container.get("command", ()), *container.get("args", ())]
        words = [word.replace("$(POD_IP)", running.address) for word in words]
        for inside, here in {LOG_FOLDER: str(self.folder / "log"), **mounts.place(pod, self.folder)}.items():
            words = [word.replace(inside, here) for word in words]
        with (self.folder / f"{container['name']}-{running.address}.log").open("ab") as log:
            return subprocess.Popen(
                words,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={
                    **os.environ,
                    "POD_IP": running.address,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                },
            )

    # ------------------------------------------------------------ traffic

    def _services(self, workloads: list[Object], pods: list[Object]) -> dict[str, tuple[int, list[str]]]:
        """What is behind the Services; written as Endpoints as well."""
        found: dict[str, tuple[int, list[str]]] = {}
        wanted = [
            (s["metadata"]["name"], s["spec"]["selector"])
            for s in self._find("v1", "Service")
            if s["spec"].get("selector")
        ]
        for workload in workloads:
            if workload["kind"] == "InferenceService":
                wanted.append(
                    (f"{workload['metadata']['name']}-predictor", {VERSION: workload["metadata"]["labels"][VERSION]})
                )
        for name, selector in wanted:
            mine = [p for p in pods if _ready(p) and selector.items() <= p["metadata"]["labels"].items()]
            found[name] = (int(selector.get(VERSION, 0)), [p["status"]["podIP"] for p in mine])
            addresses = [
                {
                    "ip": p["status"]["podIP"],
                    "targetRef": {"kind": "Pod", "name": p["metadata"]["name"], "namespace": self.api.namespace},
                }
                for p in mine
            ]
            subsets = (
                [{"addresses": addresses, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}] if mine else []
            )
            told = json.dumps(subsets)
            if self._told.get(f"endpoints/{name}") != told:
                endpoints = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}, "subsets": subsets}
                if self._ask("POST", "endpoints", endpoints):
                    self._ask("PUT", f"endpoints/{name}", endpoints)
                self._told[f"endpoints/{name}"] = told
        return found

    def _route(self, services: dict[str, tuple[int, list[str]]]) -> None:
        routes = self._find(manifests.GATEWAY_API, "HTTPRoute")
        plan = {"generation": 0, "routes": [route for r in routes if (route := _planned(r, services))]}
        text = json.dumps(plan)
        if text != self._routed:
            self._follow(plan)
            self._routed = text
        for route in routes:
            if route["spec"].get("parentRefs"):
                condition = {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "taken"}
                condition |= {
                    "observedGeneration": route["metadata"]["generation"],
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
                parent = {"parentRef": route["spec"]["parentRefs"][0], "controllerName": "example/gateway"}
                status = {"parents": [{**parent, "conditions": [condition]}]}
                self._tell(manifests.GATEWAY_API, "httproutes", route["metadata"]["name"], status)

    def _follow(self, plan: Object) -> None:
        """Have the gateway of this node follow the routes."""
        self._generation += 1
        plan["generation"] = self._generation
        folder = self.folder / "gateway"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(TOKEN)
        (folder / ".gateway.json").write_text(json.dumps(plan))
        (folder / ".gateway.json").replace(folder / "gateway.json")
        if self._gateway is None:
            command = [sys.executable, "-m", "mlp_ci.serve.gateway", "--state", str(folder), "--port", str(self.port)]
            with (folder / "log").open("wb") as log:
                self._gateway = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        for _ in range(200):
            try:
                asked = urllib.request.Request(f"http://127.0.0.1:{self.port}/admin/reload", b"", headers)
                with urllib.request.urlopen(asked, timeout=5) as answer:
                    if json.load(answer)["generation"] >= self._generation:
                        return
            except OSError:
                time.sleep(0.05)
        raise TimeoutError((folder / "log").read_text())

    # ------------------------------------------------------------ the API server

    def _find(self, api_version: str, kind: str) -> list[Object]:
        found = self.api.find(api_version, kind, {})
        return [one for one in found if MINE in (one["metadata"].get("labels") or {}) or kind == "HTTPRoute"]

    def _ask(self, method: str, what: str, body: Object | None = None, media: str = "application/json") -> str:
        root = "/api/v1" if media != MERGE else ""
        path = f"{root}/namespaces/{self.api.namespace}/{what}" if root else what
        try:
            raw = None if body is None else json.dumps(body).encode()
            answer = self.api.ask(method, path, {"fieldManager": "node"} if method != "DELETE" else None, raw, media)
        except OutsideError as refused:
            return refused.why
        return "" if answer.status < 300 else answer.body.decode()

    def _tell(self, api_version: str, plural: str, name: str, status: Object) -> None:
        """Write a status, if it is another than the last one."""
        text, key = json.dumps(status, sort_keys=True), f"{plural}/{name}"
        if self._told.get(key) == text:
            return
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        path = f"{root}/namespaces/{self.api.namespace}/{plural}/{name}/status"
        if not self._ask("PATCH", path, {"status": status}, MERGE):
            self._told[key] = text


def _template(workload: Object) -> tuple[Object, int]:
    spec = workload["spec"]
    if workload["kind"] == "Deployment":
        return spec["template"], int(spec.get("replicas", 1))
    predictor = spec["predictor"]
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "labels", "annotations"}
    pod = {key: value for key, value in predictor.items() if key not in own}
    return {"metadata": {"labels": predictor["labels"]}, "spec": pod}, int(predictor["minReplicas"])


def _planned(route: Object, services: dict[str, tuple[int, list[str]]]) -> Object | None:
    """An HTTPRoute as a route of our gateway: arms whose pods are ready."""
    rule = (route["spec"].get("rules") or [{}])[0]
    if not route["spec"].get("parentRefs"):
        return None
    wanted = [(ref["name"], ref.get("weight", 1), "") for ref in rule.get("backendRefs") or ()]
    for one in rule.get("filters") or ():
        if one["type"] == "RequestMirror":
            wanted.append(
                (one["requestMirror"]["backendRef"]["name"], one["requestMirror"].get("percent", 100), "shadow")
            )
    arms = []
    for number, (name, weight, arm) in enumerate(wanted):
        version, addresses = services.get(name, (0, []))
        named = arm or ("canary" if number else "stable")
        for address in addresses:
            share = {"weight": weight / len(addresses), "url": f"http://{address}:8080", "digest": name}
            arms.append({"version": version, "arm": named, **share})
    labels = route["metadata"]["labels"]
    path = rule["matches"][0]["path"]["value"]
    whose = {"model": labels["mlp-ci/model"], "stage": labels["mlp-ci/stage"], "match": {"path": path}}
    return {**whose, "arms": arms, "log": {}} if arms else None


def _ready(pod: Object) -> bool:
    return any(
        c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or ()
    )


def _answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(running: Running) -> None:
    for process in running.processes.values():
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
