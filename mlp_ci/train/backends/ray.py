"""The back end ``ray``: a job of a Ray cluster, through its job API, runs ``mlp-ci train`` on a copy of the commit."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import shlex
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TextIO

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.report import commands_stopped
from mlp_ci.train.backends import handing_over
from mlp_ci.train.command import asked_to_stop
from mlp_ci.train.relay import Mask, secrets_in

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.train.backends.handing_over import Order
    from mlp_ci.train.key import TrainKey

LOOK_SECONDS = 1.0
OUT_OF_REACH_SECONDS = 600.0  # a cluster's head may be restarted while its job runs on
STOP_SECONDS = 30
ENTRYPOINT = """\
set -e; rm -rf repo; mkdir repo; tar -xf commit.tar -C repo; cd repo; git checkout --quiet --force HEAD; cd {folder}
python -c 'import mlp_ci' || exit 127
exec python -m mlp_ci train
"""


class RayJob:
    """A training as a job of a Ray cluster."""

    def __init__(self, ctx: Context, spec: ModelSpec) -> None:
        self._ctx = ctx
        self._spec = spec

    def train(self, key: TrainKey, log: TextIO) -> None:
        """Submit the job of this key, or find the one that runs, and follow it to its end."""
        if self._spec.train.environment.kind == "image":
            msg = "train.backend is ray, and train.environment is an image"
            fix = "use uv or pip; or start the Ray cluster from that image and write `environment: {inherit: true}`"
            raise InputError(msg, why="a job of a Ray cluster runs in what its machines have", fix=fix)
        platform = handing_over.platform_for(self._ctx)
        address = os.environ.get("RAY_API_SERVER_ADDRESS") or (
            platform.backends.ray.address if platform.backends.ray else ""
        )
        order = handing_over.order(self._ctx, self._spec, key, platform)
        client = _client(address)
        mask = Mask(secrets_in(os.environ))
        with asked_to_stop() as asked, commands_stopped(log, in_job=self._ctx.in_job):
            job, runs = _last_job(client, order.name)
            if runs:
                log.write(f"mlp-ci: job {job} runs on Ray already; following it\n")
            else:
                self._submit(client, order, job)
                log.write(f"mlp-ci: job {job} is submitted to Ray at {address}\n")
            following = _Following(client, job, log, mask)
            status = _wait(client, job, order.seconds, asked.once)
            following.finish()
        if asked.once.is_set():
            log.write(f"mlp-ci: job {job} is stopped; the same command goes on with its run\n")
            raise KeyboardInterrupt
        if status.status != "SUCCEEDED":
            said = following.last_lines() or [status.message or ""]
            where = f"Ray (job {job})"
            raise handing_over.outcome_error(where, status.driver_exit_code, said)

    def _submit(self, client: Any, order: Order, job: str) -> None:
        """Hand the commit over."""
        wanted = self._spec.train.resources
        with tempfile.TemporaryDirectory(prefix="mlp-ci-") as folder:
            handing_over.pack_commit(self._ctx, order.commit, Path(folder) / "commit.tar")
            package = Path(folder) / "package"
            package.mkdir()
            (Path(folder) / "commit.tar").rename(package / "commit.tar")
            try:
                client.submit_job(
                    submission_id=job,
                    entrypoint=f"sh -c {shlex.quote(ENTRYPOINT.format(folder=shlex.quote(order.folder)))}",
                    runtime_env={
                        "working_dir": str(package),
                        "env_vars": {**order.variables, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
                    },
                    metadata={"model": order.model, "commit": order.commit},
                    entrypoint_num_cpus=wanted.cpus,
                    entrypoint_num_gpus=wanted.gpus,
                    entrypoint_memory=int(wanted.memory_gb * 1e9) if wanted.memory_gb else None,
                )
            except (RuntimeError, ValueError, OSError) as error:
                said = " ".join(str(error).split())
                if "already exists" in said:
                    return  # somebody else asked for the same at the same moment
                msg = "Ray did not take the job"
                raise OutsideError(
                    msg, why=said[:600], fix="mend what Ray says, and run `mlp-ci train` again"
                ) from error


def _client(address: str) -> Any:
    """A client of Ray's job API."""
    if not address:
        msg = "train.backend is ray, and nothing says where the cluster is"
        fix = "write `backends: {ray: {address: http://HEAD:8265}}` in platform.yaml, or set RAY_API_SERVER_ADDRESS"
        raise InputError(msg, fix=fix)
    try:
        from ray.job_submission import JobSubmissionClient

        logging.getLogger("ray").setLevel(logging.WARNING)
        return JobSubmissionClient(address)
    except (ImportError, AttributeError) as error:
        msg = f"train.backend is ray, and Ray's job client is not installed: {error}"
        raise InputError(msg, fix='pip install "mlp-ci[ray]"') from error
    except (RuntimeError, ConnectionError, ValueError) as error:
        msg = f"Ray at {address} cannot be reached"
        why = " ".join(str(error).split())[:400]
        fix = "see that its head runs and its dashboard (port 8265) is open to this machine; it speaks the job API"
        raise OutsideError(msg, why=why, fix=fix) from error


def _last_job(client: Any, name: str) -> tuple[str, bool]:
    """The job of a training that runs, or else the name of the next one; and whether it runs.

    A name of its own for each attempt: Ray would write the log of a second one behind that of the first.
    """
    for attempt in itertools.count(1):
        job = f"{name}-{attempt}"
        try:
            if not client.get_job_status(job).is_terminal():
                return job, True
        except RuntimeError:  # Ray's answer for a job that it does not know
            break
    return job, False


def _wait(client: Any, job: str, seconds: float, asked: Event) -> Any:
    """Wait for the job's end; its last state. A cluster that does not answer for a while is waited for."""
    deadline = time.monotonic() + seconds
    answered = time.monotonic()
    stopping = 0.0
    while True:
        try:
            state = client.get_job_info(job)
            answered = time.monotonic()
            if state.status.is_terminal():
                return state
            if not stopping and (asked.is_set() or time.monotonic() > deadline):
                client.stop_job(job)
                stopping = time.monotonic()
        except (RuntimeError, OSError) as error:  # requests' errors are OSErrors
            if time.monotonic() - answered > OUT_OF_REACH_SECONDS or asked.is_set():
                msg = f"Ray has not answered for {time.monotonic() - answered:.0f} s"
                fix = "run `mlp-ci train` again: it finds the job if it still runs"
                raise OutsideError(msg, why=" ".join(str(error).split())[:400], fix=fix) from error
        if stopping and time.monotonic() - stopping > 2 * STOP_SECONDS:
            msg = f"Ray did not stop job {job} within {2 * STOP_SECONDS} s"
            raise OutsideError(msg, fix=f"`ray job stop {job}`, and look at the cluster")
        time.sleep(LOOK_SECONDS) if stopping else asked.wait(LOOK_SECONDS)


class _Following:
    """Shows a job's log as it comes, from a thread of its own; after a lost connection it goes on where it was."""

    def __init__(self, client: Any, name: str, log: TextIO, mask: Mask) -> None:
        self._client = client
        self._name = name
        self._log = log
        self._mask = mask
        self._shown = 0
        self._kept = ""
        self._over = Event()
        self._thread = Thread(target=self._follow, name="log of the job", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """The job has ended: show what is left of its log."""
        self._over.set()
        self._thread.join(10)
        with suppress(Exception):  # a log that is lost at the very end is no reason to fail
            self._show(self._client.get_job_logs(self._name)[self._shown :])

    def last_lines(self) -> list[str]:
        return self._kept.splitlines()

    def _follow(self) -> None:
        while not self._over.is_set():
            with suppress(Exception):  # of aiohttp, of websockets, of Ray: all mean that the connection is gone
                asyncio.run(self._tail())
            self._over.wait(LOOK_SECONDS)

    async def _tail(self) -> None:
        before = 0  # a tail begins with the beginning
        async for text in self._client.tail_job_logs(self._name):
            end = before + len(text)
            self._show(text[max(0, self._shown - before) :] if end > self._shown else "")
            before = end
            if self._over.is_set():
                return

    def _show(self, text: str) -> None:
        self._shown += len(text)
        masked = self._mask(text)
        self._kept = (self._kept + masked)[-20_000:]
        with suppress(OSError, ValueError):
            self._log.write(masked)
            self._log.flush()
