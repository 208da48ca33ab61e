"""Processes that predict: several of them, each with the model loaded, none with the job's secrets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlp_ci
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve.batch import worker as program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import pyarrow as pa

    from mlp_ci.evaluate.predict import Where

# No batch takes longer: a model that hangs is said to hang.
LONGEST_SECONDS = 3600.0


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is loaded: an MLflow model folder, whose digest was verified, and what it takes instead of a DataFrame.

    ``matrix``: the numpy type of one array of all columns; ``tensors``: those of arrays by name.
    """

    folder: Path
    matrix: str | None = None
    tensors: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Said:
    """Predictions as columns, for each row that was not refused; refused rows by their number in the batch."""

    table: pa.Table
    refused: dict[int, str]
    seconds: float


@dataclass
class Workers:
    """A pool of processes; more are started only while rows wait for one. Use it in a ``with`` block."""

    model: Model
    where: Where
    count: int
    alone: bool
    _scratch: tempfile.TemporaryDirectory[str] = field(init=False)
    _pool: ThreadPoolExecutor = field(init=False)
    _own: threading.local = field(default_factory=threading.local)
    _all: list[_Worker] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Workers:
        self._scratch = tempfile.TemporaryDirectory(prefix="mlp-ci-")
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="predict")
        settings = {
            "mlp_ci": str(Path(mlp_ci.__file__).resolve().parent),
            "model": str(self.model.folder.resolve()),
            "matrix": self.model.matrix,
            "tensors": dict(self.model.tensors),
            "alone": self.alone,
        }
        (Path(self._scratch.name) / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        for one in list(self._all):
            one.kill()  # a thread that waits for it then ends
        self._pool.shutdown(wait=True)
        for one in self._all:
            one.close()
        self._scratch.cleanup()

    def predict(self, table: pa.Table) -> Future[Said]:
        """Predict these rows as soon as a process is free. The future raises InputError and OutsideError."""
        return self._pool.submit(self._predict, table)

    def _predict(self, table: pa.Table) -> Said:
        if not hasattr(self._own, "worker"):
            self._own.worker = _Worker(Path(self._scratch.name), self.where, max(1, _processors() // self.count))
            self._all.append(self._own.worker)
            if self._over.is_set():
                self._own.worker.kill()
            self._own.worker.started()
        one: _Worker = self._own.worker
        return one.predict(table)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One process."""

    def __init__(self, scratch: Path, where: Where, threads: int) -> None:
        self._said = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115  # it lives as long as the process
        settings = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1", "MLFLOW_LOGGING_LEVEL": "ERROR"}
        self._process = subprocess.Popen(
            [str(where.python), "-P", str(Path(program.__file__).resolve()), str(scratch / "settings.json")],
            cwd=scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**settings, **where.environ},
            start_new_session=True,  # Ctrl-C is for mlp-ci, which ends it
        )

    def started(self) -> None:
        """Wait until the model is loaded. Raises InputError when it cannot be."""
        self._answer("the model cannot be loaded")

    def predict(self, table: pa.Table) -> Said:
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # it ended; what it said is read below
            program.send(self._process.stdin, b"T", memoryview(sink.getvalue()))
        answer = pa.ipc.open_stream(self._answer("the model cannot predict")).read_all()
        told = {key.decode(): value.decode() for key, value in (answer.schema.metadata or {}).items()}
        refused = {int(row): kind for row, kind in json.loads(told.get("refused", "{}")).items()}
        return Said(table=answer, refused=refused, seconds=float(told.get("seconds", 0)))

    def _answer(self, trouble: str) -> bytes:
        stream: Any = self._process.stdout
        if not select.select([stream], [], [], LONGEST_SECONDS)[0]:
            self.kill()
            msg = f"{trouble}: it took longer than {LONGEST_SECONDS / 60:.0f} minutes for one batch"
            raise InputError(msg, fix="give it fewer rows at once with --batch-rows, or make the model faster")
        message = program.receive(stream)
        if message is None:
            raise self._ended(trouble)
        kind, content = message
        if kind == b"E":
            raise _told(trouble, json.loads(content))
        return content

    def _ended(self, trouble: str) -> InputError | OutsideError:
        code = self._process.wait()
        if code < 0:
            msg = f"the process that predicts was killed (signal {-code})"
            why = "most often the machine ran out of memory; the parts that were finished stay finished"
            fix = "run again, which goes on, with fewer --workers or --batch-rows, or on a machine with more memory"
            return OutsideError(msg, why=why, fix=fix)
        self._said.seek(0)
        lines = self._said.read()[-4000:].decode(errors="replace").strip().splitlines()[-12:]
        fix = "predicting needs mlflow, pandas and pyarrow in train.environment; see the lines above"
        return InputError(f"{trouble}: it ended with {code}", why="\n".join(lines), fix=fix)

    def kill(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Let go of it, once nobody reads from it any more."""
        self.kill()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with contextlib.suppress(BrokenPipeError):
                if stream:
                    stream.close()


def _told(trouble: str, told: dict[str, str]) -> InputError:
    text = f"{told['kind']}: {told['text']}"
    if told["kind"] in ("ModuleNotFoundError", "ImportError"):
        package = told["name"].split(".")[0] or "the package"
        fix = f"add {package} to the environment of model.yaml (train.environment); the model is loaded in it"
        return InputError(f"{trouble}: {text}", fix=fix)
    why = "\n".join(told["traceback"].strip().splitlines()[-10:])
    fix = "load the model with mlflow.pyfunc.load_model and predict these rows by hand; mend it, or the rows"
    return InputError(f"{trouble}: {text}", why=why, fix=fix)
