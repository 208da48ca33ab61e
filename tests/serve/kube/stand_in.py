"""An API server that is not there: objects, server-side apply, and the proxy to pods and Services.

What is applied is checked against the schemas that clusters publish. It has one manager per field, as a real one has;
lists are one field each. The tests that use it also run on a real API server, where there is one.
"""

from __future__ import annotations

import copy
import http.client
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.serve.schemas import problem

Object = dict[str, Any]
Key = tuple[str, str, str, str]  # API, namespace, plural, name
TOKENS = {"a-token": "admin", "b-token": "nobody"}


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, message: str, causes: list[Object] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.body = {"kind": "Status", "status": "Failure", "message": message, "details": {"causes": causes or []}}


@dataclass
class Cluster:
    """What a cluster knows. ``missing`` are groups of APIs that it does not offer; ``most_pods`` is a quota."""

    namespaces: set[str] = field(default_factory=lambda: {"models", "infra"})
    missing: set[str] = field(default_factory=set)
    most_pods: int = 1000
    objects: dict[Key, Object] = field(default_factory=dict)
    managed: dict[Key, dict[tuple[str, str], Object]] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)
    version: int = 0

    def get(self, key: Key) -> Object:
        if key not in self.objects:
            raise Refused(404, f'{key[2]} "{key[3]}" not found')
        return self.objects[key]

    def find(self, api: str, namespace: str, plural: str, selector: str) -> list[Object]:
        wanted = dict(pair.split("=", 1) for pair in selector.split(",") if pair)
        return [
            found
            for (other, place, kind, _), found in sorted(self.objects.items())
            if (other, place, kind) == (api, namespace, plural)
            and wanted.items() <= (found["metadata"].get("labels") or {}).items()
        ]

    def create(self, key: Key, manifest: Object, manager: str) -> Object:
        if key in self.objects:
            raise Refused(409, f'{key[2]} "{key[3]}" already exists')
        if key[2] == "pods" and len(self.find(*key[:3], "")) >= self.most_pods:
            raise Refused(403, f'pods "{key[3]}" is forbidden: exceeded quota: small, limited: pods={self.most_pods}')
        return self._store(key, None, manifest, (manager, "Update"), dry=False)

    def apply(self, key: Key, manifest: Object, manager: str, *, force: bool, dry: bool) -> Object:
        """Server-side apply: fields of others are conflicts, and what this manager no longer names goes away."""
        if why := problem(manifest):
            raise Refused(422, why)
        before = self.objects.get(key)
        self._same(before, manifest)
        mine = (manager, "Apply")
        others = {who: owned for who, owned in self.managed.get(key, {}).items() if who != mine}
        clashes = [
            {"reason": "FieldManagerConflict", "message": f'conflict with "{who[0]}"', "field": "." + ".".join(path)}
            for who, owned in others.items()
            for path, value in _leaves(owned)
            if (now := _at(manifest, path)) is not None and now != value
        ]
        if clashes and not force:
            raise Refused(409, f"Apply failed with {len(clashes)} conflicts", clashes)
        merged = copy.deepcopy(before) if before else {}
        for path, _ in _leaves(self.managed.get(key, {}).get(mine, {})):
            if _at(manifest, path) is None:
                _remove(merged, path)
        _merge(merged, manifest)
        if force and not dry:
            for owned in others.values():
                for path, _ in list(_leaves(owned)):
                    if _at(manifest, path) is not None:
                        _remove(owned, path)
        return self._store(key, before, merged, mine, dry=dry, applied=manifest)

    def patch(self, key: Key, change: Object, manager: str) -> Object:
        before = self.get(key)
        self._same(before, change)
        merged = copy.deepcopy(before)
        _merge(merged, change)
        return self._store(key, before, merged, (manager, "Update"), dry=False, applied=change)

    def delete(self, key: Key) -> Object:
        self.get(key)
        self.managed.pop(key, None)
        return self.objects.pop(key)

    def _same(self, before: Object | None, manifest: Object) -> None:
        wanted = (manifest.get("metadata") or {}).get("resourceVersion")
        if wanted is not None and (before is None or before["metadata"]["resourceVersion"] != wanted):
            raise Refused(409, "the object has been modified; please apply your changes to the latest version")

    def _store(
        self,
        key: Key,
        before: Object | None,
        after: Object,
        manager: tuple[str, str],
        *,
        dry: bool,
        applied: Object | None = None,
    ) -> Object:
        if key[1] not in self.namespaces:
            raise Refused(404, f'namespaces "{key[1]}" not found')
        after = copy.deepcopy(after)
        metadata = after.setdefault("metadata", {})
        fixed = {"namespace": key[1], "name": key[3]}
        old = (before or {}).get("metadata") or {}
        changed = before is None or before.get("spec") != after.get("spec")
        fixed["uid"] = old.get("uid") or str(uuid.uuid4())
        metadata |= {**fixed, "generation": old.get("generation", 0) + (1 if changed else 0)}
        if dry:
            return after
        self.version += 1
        metadata["resourceVersion"] = str(self.version)
        self.objects[key] = after
        owned = copy.deepcopy(applied if applied is not None else after)
        kept = self.managed.setdefault(key, {})
        if manager[1] == "Update":
            _merge(kept.setdefault(manager, {}), owned)
        else:
            kept[manager] = owned
        return after


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Fields that somebody can manage: all but what an object is called."""
    for key, value in node.items():
        here = (*path, key)
        if here[0] in ("apiVersion", "kind", "status") or here[:2] in (
            *(("metadata", name) for name in ("name", "namespace", "resourceVersion", "uid", "generation")),
        ):
            continue
        if isinstance(value, dict):
            yield from _leaves(value, here)
        else:
            yield here, value


def _at(node: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        node = node.get(key) if isinstance(node, dict) else None
    return node


def _remove(node: Any, path: tuple[str, ...]) -> None:
    for key in path[:-1]:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict):
        node.pop(path[-1], None)


def _merge(onto: Object, change: Object) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        elif value is None:
            onto.pop(key, None)
        else:
            onto[key] = copy.deepcopy(value)


class Handler(BaseHTTPRequestHandler):
    """The API's requests."""

    cluster: Cluster
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for head and body: two wait for each other for 40 ms

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        try:
            if token not in TOKENS:
                raise Refused(401, "Unauthorized")
            if TOKENS[token] != "admin":
                raise Refused(403, f'User "{TOKENS[token]}" cannot do this')
            self._answer(*self._told(body))
        except Refused as refused:
            self._answer(refused.code, json.dumps(refused.body).encode())

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _told(self, body: bytes) -> tuple[int, bytes]:
        parts = urlsplit(self.path)
        words = parts.path.strip("/").split("/")
        api, rest = (words[1], words[2:]) if words[0] == "api" else ("/".join(words[1:3]), words[3:])
        if api.partition("/")[0] in self.cluster.missing:
            raise Refused(404, "the server could not find the requested resource")
        if not rest:
            return 200, b"{}"
        namespace, plural, name, sub = rest[1], rest[2], *([*rest[3:5], "", ""][:2])
        if sub == "proxy":
            return self._proxied(namespace, plural, name, "/" + "/".join(rest[5:]), body)
        if sub == "log":
            raise Refused(500, "no kubelet keeps logs here")
        query = {key: value[0] for key, value in parse_qs(parts.query).items()}
        with self.cluster.lock:
            return 200, json.dumps(self._done((api, namespace, plural, name), query, body)).encode()

    def _done(self, key: Key, query: dict[str, str], body: bytes) -> Object:
        api, namespace, plural, name = key
        sent = json.loads(body) if body else {}
        manager = query.get("fieldManager", "unknown")
        if self.command == "GET" and not name:
            return {"items": self.cluster.find(api, namespace, plural, query.get("labelSelector", ""))}
        if self.command == "GET":
            return self.cluster.get(key)
        if self.command == "DELETE":
            return self.cluster.delete(key)
        if self.command == "POST":
            return self.cluster.create((api, namespace, plural, sent["metadata"]["name"]), sent, manager)
        if self.command == "PUT" or "apply-patch" not in self.headers["Content-Type"]:
            return self.cluster.patch(key, sent, manager)
        dry, force = query.get("dryRun") == "All", query.get("force") == "true"
        return self.cluster.apply(key, sent, manager, force=force, dry=dry)

    def _proxied(self, namespace: str, plural: str, name: str, path: str, body: bytes) -> tuple[int, bytes]:
        """To a pod, or to the first pod of a Service."""
        with self.cluster.lock:
            if plural == "pods":
                pod, _, port = name.partition(":")
                host = self.cluster.get(("v1", namespace, "pods", pod)).get("status", {}).get("podIP", "")
            else:
                service = name.split(":")[1]
                self.cluster.get(("v1", namespace, "services", service))
                found = self.cluster.objects.get(("v1", namespace, "endpoints", service)) or {}
                subsets = found.get("subsets") or []
                if not subsets:
                    raise Refused(503, f'no endpoints available for service "{name}"')
                host, port = subsets[0]["addresses"][0]["ip"], str(subsets[0]["ports"][0]["port"])
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        try:
            connection.request(self.command, path, body or None, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError as error:
            raise Refused(503, f"error trying to reach service: {error}") from error
        finally:
            connection.close()

    def _answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(cluster: Cluster) -> ThreadingHTTPServer:
    """Serve it on a port of its own, from threads."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
