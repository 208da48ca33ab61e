"""The serving half of what mlp-ci asks a cluster's API server: objects as plain values, applied by the server itself.

Requests go by path, not by the generated classes: those know no custom resources, and drop fields that are newer.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from urllib.parse import urlencode

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.targets.kubernetes.wanted import MANAGER, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlp_ci.spec.serve import KubernetesServing

P = ParamSpec("P")
T = TypeVar("T")
REQUEST_SECONDS = 20
TRIES = 8
APPLY = "application/apply-patch+yaml"
PLURALS = {
    "Deployment": "deployments",
    "Service": "services",
    "HorizontalPodAutoscaler": "horizontalpodautoscalers",
    "PodDisruptionBudget": "poddisruptionbudgets",
    "HTTPRoute": "httproutes",
    "Gateway": "gateways",
    "InferenceService": "inferenceservices",
    "Pod": "pods",
    "ReplicaSet": "replicasets",
}
# Where an API server has not the newer one yet: kind → the group's version before it.
OLDER = {"PodDisruptionBudget": "policy/v1beta1"}
MISSING = {
    "HTTPRoute": ("Gateway API", "install the Gateway API and a controller for it (gateway-api.sigs.k8s.io)"),
    "Gateway": ("Gateway API", "install the Gateway API and a controller for it (gateway-api.sigs.k8s.io)"),
    "InferenceService": ("KServe", "install KServe, or set `serving: {kubernetes: {kserve: false}}` in platform.yaml"),
}
_LONGEST = 600
_OURS = f'conflict with "{MANAGER}"'


class Changed(OutsideError):
    """Somebody changed an object between our reading and our writing: read it again."""


def again(function: Callable[P, T]) -> Callable[P, T]:
    """Do it again, from its reading on, when somebody else wrote in between."""

    @wraps(function)
    def tried(*args: P.args, **kwargs: P.kwargs) -> T:
        for left in range(TRIES - 1, -1, -1):
            try:
                return function(*args, **kwargs)
            except Changed:
                if not left:
                    raise
                time.sleep(0.05)
        raise AssertionError

    return tried


@dataclass(frozen=True)
class Answered:
    """What the server, or a pod behind it, answered."""

    status: int
    body: bytes


@dataclass(frozen=True)
class Api:
    """One namespace of a cluster; ``client`` is an ApiClient of the Kubernetes client."""

    client: Any
    namespace: str
    known: dict[str, str] = field(default_factory=dict)

    @classmethod
    def connect(cls, where: KubernetesServing) -> Api:
        """By the kubeconfig, or in a pod by its service account; InputError when there is neither."""
        from mlp_ci.train.backends.cluster import client_of

        setting = "serving: {kubernetes: {context: …}}"
        return cls(client_of(where.context, "serve.target", setting), where.namespace)

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """The object, or None."""
        answer = self.ask("GET", self._path(api_version, kind, name, namespace))
        if answer.status == 404:
            self._exists(api_version, kind, answer)
            return None
        return dict(self._read(answer, f"reading {kind} {name}"))

    def find(self, api_version: str, kind: str, labels: Mapping[str, str]) -> list[Manifest]:
        """The objects with these labels; none where the cluster does not know the kind."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        answer = self.ask("GET", self._path(api_version, kind), {"labelSelector": selector})
        if answer.status == 404:
            return []
        found = self._read(answer, f"listing {PLURALS[kind]}")
        return [{"apiVersion": api_version, "kind": kind, **item} for item in found.get("items") or ()]

    def apply(self, manifest: Manifest, *, force: bool = True, dry: bool = False) -> Manifest:
        """Server-side apply as ``mlp-ci``: what others manage stays theirs.

        With a ``resourceVersion`` it raises Changed when the object is not that one any more. Without ``force`` fields
        that somebody else manages are an InputError that names them.
        """
        kind, name = str(manifest["kind"]), str(manifest["metadata"]["name"])
        manifest = {**manifest, "apiVersion": self._offered(manifest["apiVersion"], kind)}
        query = {"fieldManager": MANAGER, "force": "true" if force else "false", **({"dryRun": "All"} if dry else {})}
        path = self._path(manifest["apiVersion"], kind, name)
        answer = self.ask("PATCH", path, query, json.dumps(manifest).encode(), APPLY)
        if answer.status == 404:
            self._exists(manifest["apiVersion"], kind, answer)
        clashes = _clashes(answer)
        if clashes and all(_OURS in c.get("message", "") for c in clashes):  # with what `create` made: it is ours
            return self.apply(manifest, force=True, dry=dry)
        return dict(self._read(answer, f"applying {kind} {name}"))

    def create(self, manifest: Manifest) -> Manifest:
        """Make an object that is not there yet; Changed when it is."""
        kind = str(manifest["kind"])
        body = json.dumps(manifest).encode()
        answer = self.ask("POST", self._path(manifest["apiVersion"], kind), {"fieldManager": MANAGER}, body)
        if answer.status == 404:
            self._exists(manifest["apiVersion"], kind, answer)
        return dict(self._read(answer, f"making {kind} {manifest['metadata']['name']}"))

    def delete(self, api_version: str, kind: str, name: str) -> None:
        """Delete an object with what belongs to it; nothing happens when there is none."""
        body = json.dumps({"propagationPolicy": "Background"}).encode()
        answer = self.ask("DELETE", self._path(api_version, kind, name), body=body)
        if answer.status != 404:
            self._read(answer, f"deleting {kind} {name}")

    def publish(self, what: str) -> None:
        """Make known what was written; nothing to do where the cluster itself was."""

    def through(self, method: str, what: str, path: str, body: bytes | None = None) -> Answered:
        """Ask a pod or Service (``what`` is ``pods/NAME:PORT`` or ``services/NAME:PORT``) by way of the API server."""
        place = f"/api/v1/namespaces/{self.namespace}/{what}/proxy{path}"
        return self.ask(method, place, body=body, media="application/json")

    def last_words(self, pod: str, container: str) -> str:
        """What a container that ended said at last; empty where nobody kept it."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log"
        answer = self.ask("GET", path, {"container": container, "tailLines": "10", "previous": "true"})
        return answer.body.decode(errors="replace").strip() if answer.status == 200 else ""

    def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        media: str = "application/json",
    ) -> Answered:
        """One request; OutsideError when the server cannot be reached, or does not take who asks."""
        settings = self.client.configuration
        headers = {"Accept": "*/*", "User-Agent": MANAGER, **({"Content-Type": media} if body is not None else {})}
        for known in settings.auth_settings().values():  # asked each time: a token may have to be fetched anew
            headers[known["key"]] = known["value"]
        address = f"{settings.host}{path}{f'?{urlencode(query)}' if query else ''}"
        try:
            pool = self.client.rest_client.pool_manager
            answer = pool.request(method, address, body=body, headers=headers, timeout=REQUEST_SECONDS, retries=False)
        except Exception as error:  # urllib3 has many errors for one thing
            if not (type(error).__module__.startswith(("urllib3", "http")) or isinstance(error, OSError)):
                raise
            msg = "the cluster cannot be reached"
            fix = "see that its API server answers this machine (`kubectl version`), and run the same command again"
            raise OutsideError(msg, why=" ".join(str(error).split())[:_LONGEST], fix=fix) from error
        answered = Answered(int(answer.status), bytes(answer.data))
        if answered.status in (401, 403):
            self._refuse(answered, f"{method} {path}")
        return answered

    def _path(self, api_version: str, kind: str, name: str = "", namespace: str = "") -> str:
        api_version = self._offered(api_version, kind)
        root = f"/api/{api_version}" if "/" not in api_version else f"/apis/{api_version}"
        path = f"{root}/namespaces/{namespace or self.namespace}/{PLURALS[kind]}"
        return f"{path}/{name}" if name else path

    def _offered(self, api_version: str, kind: str) -> str:
        """The version of a kind's API, or the one before it where the server has not this one yet."""
        if kind not in OLDER:
            return api_version
        if kind not in self.known:
            offered = self.ask("GET", f"/apis/{api_version}").status != 404
            self.known[kind] = api_version if offered else OLDER[kind]
        return self.known[kind]

    def _exists(self, api_version: str, kind: str, answer: Answered) -> None:
        """A 404 that is not about the object: the cluster does not know its kind, or has no such namespace."""
        details = said(answer)
        if "namespaces" in details and "not found" in details and kind != "Gateway":
            msg = f"the cluster has no namespace {self.namespace}"
            fix = f"`kubectl create namespace {self.namespace}`, or name another in `serving.kubernetes.namespace`"
            raise InputError(msg, fix=f"{fix} of platform.yaml")
        unknown = "could not find the requested resource" in details or "page not found" in details
        if unknown and kind in MISSING:
            what, fix = MISSING[kind]
            msg = f"the cluster knows no {kind} ({api_version}): {what} is not installed"
            raise InputError(msg, why="versions are served with it", fix=fix)

    def _read(self, answer: Answered, doing: str) -> Any:
        if answer.status >= 300:
            self._refuse(answer, doing)
        return json.loads(answer.body)

    def _refuse(self, answer: Answered, doing: str) -> NoReturn:
        why, code = said(answer)[:_LONGEST], answer.status
        if code == 401:
            msg = "the cluster does not know who asks (401)"
            fix = "the token or certificate of the kubeconfig has ended or is wrong: log in again, and run this again"
            raise OutsideError(msg, why=why, fix=fix)
        if code == 409:
            self._conflict(answer, doing)
        msg = f"the cluster refuses {doing} ({code})"
        if code == 403 and "exceeded quota" in why:
            fix = "raise the ResourceQuota of the namespace, or lower `serve.resources` and `serve.replicas`"
            raise OutsideError(msg, why=why, fix=fix)
        if code == 403:
            fix = f"give this user the role of docs/how-to/serve-on-kubernetes.md in namespace {self.namespace}"
            raise OutsideError(msg, why=why, fix=fix)
        if code in (400, 422):
            raise InputError(msg, why=why, fix="mend what it names in model.yaml or platform.yaml")
        raise OutsideError(msg, why=why, fix="run the same command again; it goes on from where it was")

    def _conflict(self, answer: Answered, doing: str) -> NoReturn:
        """409: others' fields, or an object that is no longer the one that was read."""
        foreign = _clashes(answer)
        if not foreign:
            msg = f"somebody else changed it in between: {doing}"
            raise Changed(msg, why=said(answer)[:_LONGEST])
        fields = "; ".join(f"{c.get('field', '')}: {c.get('message', '')}" for c in foreign)
        msg = f"somebody else manages what mlp-ci would change: {doing}"
        fix = "let mlp-ci alone manage these objects: take them out of what the other one applies, and run this again"
        raise InputError(msg, why=fields[:_LONGEST], fix=f"{fix}; a rollback takes them over without asking")


def said(answer: Answered) -> str:
    """What the server says, in its own words."""
    return str(_json(answer).get("message") or answer.body.decode(errors="replace")).strip()


def _clashes(answer: Answered) -> list[dict[str, Any]]:
    """The fields that somebody else manages, where the server refuses because of them."""
    causes = ((_json(answer).get("details") or {}).get("causes") if answer.status == 409 else None) or ()
    return [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]


def _json(answer: Answered) -> dict[str, Any]:
    try:
        raw = json.loads(answer.body)
    except ValueError:
        return {}
    return raw if isinstance(raw, dict) else {}
