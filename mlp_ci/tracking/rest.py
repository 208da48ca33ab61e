"""MLflow's REST API, as far as mlp-ci needs it, with the names of MLflow's own client.

Importing MLflow's client takes 1.0 to 1.7 s of processor time, more than all requests of a command together, and every
command of the loop would pay it. Addresses, credentials and artefact stores that need more than plain HTTP are left
to MLflow's client; see :func:`speaks_plainly`.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

API = "/api/2.0/mlflow/"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
PROXIED = "mlflow-artifacts:/"
TRIES = 4
SECONDS = 60.0
_BROKE_OFF = "the answer broke off"
# Where one of these is set, the connection needs what only MLflow's own client does.
SPECIAL = (
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_ENABLE_WORKSPACES",
    "MLFLOW_WORKSPACE",
)
SPECIAL_TLS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class RestError(Exception):
    """An answer of MLflow that is an error; ``error_code`` as in MLflow's own exceptions."""

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class Page(list[Any]):
    """A page of results; ``token`` asks for the next one."""

    token: str | None = None


def speaks_plainly(uri: str, environ: Mapping[str, str]) -> bool:
    """Whether plain HTTP with at most a user, a password or a token reaches this MLflow."""
    if not uri.startswith(("http://", "https://")) or any(environ.get(name) for name in SPECIAL):
        return False
    if uri.startswith("https://") and any(environ.get(name) for name in SPECIAL_TLS):
        return False
    return not (Path(environ.get("HOME") or "/") / ".mlflow" / "credentials").exists()


class RestClient:
    """The methods of ``MlflowClient`` that mlp-ci uses, with the same names, arguments and shapes of results."""

    def __init__(self, uri: str) -> None:
        self._uri, self._headers = _address(uri, os.environ)

    # ------------------------------------------------------------ experiments and runs

    def get_experiment_by_name(self, name: str) -> Any:
        try:
            return SimpleNamespace(**self._get("experiments/get-by-name", experiment_name=name)["experiment"])
        except RestError as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def create_experiment(self, name: str) -> str:
        return str(self._post("experiments/create", name=name)["experiment_id"])

    def delete_experiment(self, experiment_id: str) -> None:
        self._post("experiments/delete", experiment_id=experiment_id)

    def get_run(self, run_id: str) -> Any:
        return _run(self._get("runs/get", run_id=run_id)["run"])

    def search_runs(
        self, experiment_ids: list[str], filter_string: str = "", *, max_results: int, page_token: str | None = None
    ) -> Page:
        found = self._post(
            "runs/search",
            experiment_ids=experiment_ids,
            filter=filter_string,
            max_results=max_results,
            page_token=page_token,
        )
        return _page(map(_run, found.get("runs", [])), found)

    def create_run(self, experiment_id: str, *, start_time: int, tags: Mapping[str, str], run_name: str) -> Any:
        pairs = _pairs(tags)
        made = self._post(
            "runs/create", experiment_id=experiment_id, start_time=start_time, tags=pairs, run_name=run_name
        )
        return _run(made["run"])

    def update_run(self, run_id: str, *, status: str) -> None:
        self._post("runs/update", run_id=run_id, status=status)

    def set_terminated(self, run_id: str, status: str, end_time: int | None) -> None:
        self._post("runs/update", run_id=run_id, status=status, end_time=end_time or int(time.time() * 1000))

    def delete_run(self, run_id: str) -> None:
        self._post("runs/delete", run_id=run_id)

    def log_values(
        self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """MLflow's ``log_batch`` for plain values."""
        now = int(time.time() * 1000)
        measured = [{"key": k, "value": v, "timestamp": now, "step": 0} for k, v in metrics.items()]
        self._post("runs/log-batch", run_id=run_id, metrics=measured, params=_pairs(params), tags=_pairs(tags))

    def log_steps(self, run_id: str, name: str, points: Mapping[int, float]) -> None:
        """MLflow's ``log_batch`` for one metric at several steps."""
        now = int(time.time() * 1000)
        measured = [{"key": name, "value": v, "timestamp": now, "step": step} for step, v in points.items()]
        self._post("runs/log-batch", run_id=run_id, metrics=measured, params=[], tags=[])

    def log_points(self, run_id: str, points: Iterable[tuple[str, float, int, int]]) -> None:
        """MLflow's ``log_batch`` for (name, value, milliseconds, step)."""
        names = ("key", "value", "timestamp", "step")
        measured = [dict(zip(names, point, strict=True)) for point in points]
        self._post("runs/log-batch", run_id=run_id, metrics=measured, params=[], tags=[])

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        found: list[Any] = []
        token = None
        while True:
            page = self._get("metrics/get-history", run_id=run_id, metric_key=key, page_token=token, max_results=5000)
            found += page.get("metrics", [])
            token = page.get("next_page_token")
            if not token:
                return [
                    SimpleNamespace(
                        step=int(m.get("step") or 0), timestamp=int(m["timestamp"]), value=float(m["value"])
                    )
                    for m in found
                ]

    # ------------------------------------------------------------ versions

    def create_registered_model(self, name: str, tags: Mapping[str, str], description: str) -> None:
        self._post("registered-models/create", name=name, tags=_pairs(tags), description=description)

    def get_model_version(self, name: str, version: str) -> Any:
        return _version(self._get("model-versions/get", name=name, version=version)["model_version"])

    def search_model_versions(self, filter_string: str, *, max_results: int, page_token: str | None = None) -> Page:
        found = self._get("model-versions/search", filter=filter_string, max_results=max_results, page_token=page_token)
        return _page(map(_version, found.get("model_versions", [])), found)

    def create_model_version(
        self, name: str, source: str, run_id: str, *, tags: Mapping[str, str], description: str
    ) -> Any:
        made = self._post(
            "model-versions/create",
            name=name,
            source=source,
            run_id=run_id,
            tags=_pairs(tags),
            description=description,
        )
        return _version(made["model_version"])

    def delete_model_version(self, name: str, version: str) -> None:
        self._send("DELETE", API + "model-versions/delete", {"name": name, "version": version})

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self._put("model-versions/set-tag", name=name, version=version, key=key, value=value)

    def get_model_version_by_alias(self, name: str, alias: str) -> Any:
        return _version(self._get("registered-models/alias", name=name, alias=alias)["model_version"])

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._put("registered-models/alias", name=name, alias=alias, version=version)

    # ------------------------------------------------------------ artefacts that the server keeps

    def list_artifacts(self, run_id: str, path: str | None) -> list[Any]:
        found = self._get("artifacts/list", run_id=run_id, path=path).get("files", [])
        files = [SimpleNamespace(path=str(f["path"]), is_dir=bool(f.get("is_dir"))) for f in found]
        return [f for f in files if f.path != path]

    def put(self, place: str, file: Path) -> None:
        """Store ``file`` at ``place``, a path below the server's root of artefacts."""
        for attempt in range(TRIES):
            with file.open("rb") as stream:
                size = file.stat().st_size
                try:
                    with self._open(
                        "PUT", ARTIFACTS + urllib.parse.quote(place), stream, {"Content-Length": str(size)}
                    ):
                        return
                except OSError as error:
                    _give_up_or_wait(error, attempt)

    def get(self, place: str, destination: Path) -> None:
        """Fetch one file; it appears whole or not at all."""
        destination.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(TRIES):
            try:
                with self._open("GET", ARTIFACTS + urllib.parse.quote(place)) as answer, destination.open("wb") as file:
                    shutil.copyfileobj(answer, file, 1024 * 1024)
                    if answer.length:  # what is still to come; reading in pieces does not tell
                        raise ConnectionResetError(_BROKE_OFF)
                    return
            except (OSError, http.client.HTTPException) as error:
                destination.unlink(missing_ok=True)
                _give_up_or_wait(_plain(error), attempt)

    def remove(self, place: str) -> None:
        """Delete a file or a folder."""
        self._send("DELETE", ARTIFACTS + urllib.parse.quote(place), None)

    # ------------------------------------------------------------ HTTP

    def _get(self, endpoint: str, /, **values: Any) -> dict[str, Any]:
        query = urllib.parse.urlencode({k: v for k, v in values.items() if v is not None})
        return self._send("GET", f"{API}{endpoint}?{query}", None)

    def _post(self, endpoint: str, /, **values: Any) -> dict[str, Any]:
        return self._send("POST", API + endpoint, {k: v for k, v in values.items() if v is not None})

    def _put(self, endpoint: str, /, **values: Any) -> None:
        """A POST that sets something: done twice it is as done once, so a lost answer is asked for again."""
        self._send("POST", API + endpoint, values, sets=True)

    def _send(self, method: str, path: str, value: Any, *, sets: bool = False) -> dict[str, Any]:
        body = None if value is None else json.dumps(value).encode()
        for attempt in range(TRIES):
            try:
                with self._open(method, path, body, {"Content-Type": "application/json"}) as answer:
                    text = answer.read()
                    found = json.loads(text) if text.strip() else {}
                    return found if isinstance(found, dict) else {}
            except (OSError, http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError) as problem:
                error = _plain(problem)
                # A request that may have been carried out is only repeated when repeating it changes nothing.
                repeatable = sets or method != "POST" or _never_arrived(error)
                _give_up_or_wait(error, attempt if repeatable else TRIES - 1)
        return {}

    def _open(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        request = urllib.request.Request(
            self._uri + path, data=body, method=method, headers={**self._headers, **(headers or {})}
        )
        try:
            return urllib.request.urlopen(request, timeout=SECONDS)
        except urllib.error.HTTPError as error:
            if error.code in (429, 502, 503, 504):
                raise
            raise _answered(error) from None


def _address(uri: str, environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The address without credentials, and the header that carries them."""
    parts = urllib.parse.urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    plain = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    user = urllib.parse.unquote(parts.username or "") or environ.get("MLFLOW_TRACKING_USERNAME", "")
    password = urllib.parse.unquote(parts.password or "") or environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if user:
        return plain, {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
    token = environ.get("MLFLOW_TRACKING_TOKEN", "")
    return plain, {"Authorization": f"Bearer {token}"} if token else {}


def _answered(error: urllib.error.HTTPError) -> RestError:
    text = error.read().decode("utf-8", errors="replace")
    try:
        value = json.loads(text)
        return RestError(str(value["error_code"]), str(value.get("message", "")))
    except (ValueError, KeyError, TypeError):
        codes = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "RESOURCE_DOES_NOT_EXIST"}
        return RestError(codes.get(error.code, "INTERNAL_ERROR"), f"HTTP {error.code}: {text[:300]}")


def _plain(error: Exception) -> OSError:
    """An answer that is not whole is a failure of the network, whatever noticed it."""
    return error if isinstance(error, OSError) else ConnectionResetError(_BROKE_OFF)


def _never_arrived(error: OSError) -> bool:
    return isinstance(getattr(error, "reason", error), ConnectionRefusedError)


def _give_up_or_wait(error: OSError, attempt: int) -> None:
    if attempt + 1 >= TRIES:
        raise error
    time.sleep(0.5 * 2**attempt)


def _pairs(values: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": k, "value": v} for k, v in values.items()]


def _values(pairs: Iterable[Mapping[str, Any]] | None) -> dict[str, Any]:
    return {str(p["key"]): p.get("value", "") for p in pairs or []}


def _page(items: Iterable[Any], answer: Mapping[str, Any]) -> Page:
    page = Page(items)
    page.token = answer.get("next_page_token") or None
    return page


def _run(value: Mapping[str, Any]) -> Any:
    info, data = value["info"], value.get("data", {})
    return SimpleNamespace(
        info=SimpleNamespace(
            run_id=info["run_id"],
            experiment_id=info["experiment_id"],
            status=info["status"],
            artifact_uri=info.get("artifact_uri", ""),
            start_time=int(info.get("start_time") or 0),
            end_time=int(info["end_time"]) if info.get("end_time") else None,
        ),
        data=SimpleNamespace(
            tags=_values(data.get("tags")),
            params=_values(data.get("params")),
            metrics={k: float(v) for k, v in _values(data.get("metrics")).items()},
        ),
    )


def _version(value: Mapping[str, Any]) -> Any:
    return SimpleNamespace(
        name=value["name"],
        version=value["version"],
        run_id=value.get("run_id", ""),
        tags=_values(value.get("tags")),
        creation_timestamp=int(value.get("creation_timestamp") or 0),
    )


def place_of(artifact_uri: str, path: str) -> str | None:
    """Where the server keeps an artefact, or None when it is kept somewhere that the server does not proxy."""
    if not artifact_uri.startswith(PROXIED) or artifact_uri.startswith(PROXIED + "/"):
        return None
    return str(PurePosixPath(artifact_uri.removeprefix(PROXIED)) / path)
