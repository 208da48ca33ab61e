"""``mlp-ci serve``: one version's model server in the foreground, to try it or to run it under another supervisor."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.serve.listening import bind
from mlp_ci.serve.processes import environment
from mlp_ci.spec import load_model
from mlp_ci.spec.load import MODEL_FILE
from mlp_ci.tracking import artifact_digest

if TYPE_CHECKING:
    import socket
    from typing import NoReturn

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to serve, and where. ``workers`` None: as model.yaml says."""

    version: str
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int | None = None
    drain: float = 0.0


@dataclass(frozen=True)
class _Model:
    name: str
    version: int
    digest: str
    folder: Path
    spec: ModelSpec | None


def serve_in_foreground(ctx: Context, wanted: Wanted) -> NoReturn:
    """Become the server of that version. It never sees the tokens and addresses that this command was given."""
    model = _model(ctx, wanted.version)
    listener = _listener(wanted.host, wanted.port)
    command = _command(model, wanted, listener)
    host, port = listener.getsockname()[:2]
    said = f"version {model.version} of {model.name}" if model.version else str(model.folder)
    shown = f"[{host}]" if ":" in host else host
    print(f"serving {said} on http://{shown}:{port} (/docs says how to ask it); Ctrl-C ends it", flush=True)
    listener.set_inheritable(True)
    os.execve(sys.executable, command, environment({}))


def _command(model: _Model, wanted: Wanted, listener: socket.socket) -> list[str]:
    serve = model.spec.serve if model.spec else None
    workers = wanted.workers or (serve.workers if serve else 1)
    command = [sys.executable, "-m", "mlp_ci.serve.server", "--model", str(model.folder.absolute())]
    command += ["--digest", model.digest, "--name", model.name, "--version", str(model.version)]
    command += ["--fd", str(listener.fileno()), "--workers", str(workers), "--drain", str(wanted.drain)]
    if serve:
        command += ["--max-rows", str(serve.batching.max_rows)]
        command += ["--max-delay-ms", str(serve.batching.max_delay.total_seconds() * 1000)]
    return command


def _listener(host: str, port: int) -> socket.socket:
    try:
        return bind(host, port)
    except OSError as error:
        msg = f"{host}:{port} cannot be listened on: {error.strerror}"
        fix = "end what listens there, or give another --port"
        raise OutsideError(msg, why="the model is to be asked there", fix=fix) from error


def _model(ctx: Context, version: str) -> _Model:
    """A registered version by its number, or any folder with an MLflow model."""
    if not version.isdecimal():
        return _folder(ctx, Path(version))
    from mlp_ci.evaluate.models import cached_model
    from mlp_ci.train.flow import connect_to

    spec = load_model(ctx.repo)
    tracking = connect_to(ctx)
    doing(f"looking for version {version} of {spec.name}")
    fact = tracking.version(spec.name, int(version))
    if not fact.digest:
        msg = f"version {version} of {spec.name} has no digest"
        why = "nobody could say whether what is served is what was registered"
        raise InputError(msg, why=why, fix="serve a version that `mlp-ci register` made, or the folder of a model")
    doing(f"fetching version {version} of {spec.name}")
    folder = cached_model(ctx, tracking, fact.run_id, fact.digest)
    return _Model(spec.name, fact.number, fact.digest, folder, spec)


def _folder(ctx: Context, folder: Path) -> _Model:
    if not (folder / "MLmodel").is_file():
        msg = f"{folder} is neither the number of a version nor the folder of an MLflow model"
        raise InputError(msg, fix="give a number, such as 3, or a folder with a file MLmodel")
    spec = load_model(ctx.repo) if (ctx.repo / MODEL_FILE).is_file() else None
    return _Model(spec.name if spec else "model", 0, artifact_digest(folder), folder, spec)
