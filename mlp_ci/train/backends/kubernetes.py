"""The back end ``kubernetes``: a Job of the cluster runs ``mlp-ci train`` on a checkout of the commit."""

from __future__ import annotations

import os
import time
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, TextIO

from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.report import Report, commands_stopped
from mlp_ci.spec import load_model
from mlp_ci.spec.platform import Kubernetes
from mlp_ci.train.backends import handing_over, manifests
from mlp_ci.train.backends.cluster import Cluster, ended
from mlp_ci.train.command import asked_to_stop
from mlp_ci.train.key import train_key
from mlp_ci.train.relay import Mask, secrets_in

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.spec.platform import PlatformSpec
    from mlp_ci.train.backends.manifests import Manifest, Wanted
    from mlp_ci.train.key import TrainKey

LOOK_SECONDS = 1.0
OUT_OF_REACH_SECONDS = 600.0
HOPELESS_SECONDS = 300.0
# What a container waits for and will not get by waiting.
HOPELESS = {"InvalidImageName", "ErrImagePull", "ImagePullBackOff", "CreateContainerConfigError", "ErrImageNeverPull"}


class KubernetesJob:
    """A training as a job of a Kubernetes cluster."""

    def __init__(self, ctx: Context, spec: ModelSpec) -> None:
        self._ctx = ctx
        self._spec = spec

    def train(self, key: TrainKey, log: TextIO) -> None:
        """Create the job of this key, or find the one that runs, and follow it to its end."""
        platform = handing_over.platform_for(self._ctx)
        asked_for = wanted(self._ctx, self._spec, key, platform)
        cluster = Cluster.connect(asked_for.cluster)
        mask = Mask(secrets_in(os.environ))
        with asked_to_stop() as asked, commands_stopped(log, in_job=self._ctx.in_job):
            job = _started(cluster, asked_for, log)
            following = _Following(cluster, asked_for, log, mask)
            try:
                job = _wait(cluster, asked_for, job, asked.once, log)
            finally:
                following.finish()
        if asked.once.is_set():
            log.write(f"mlp-ci: job {asked_for.order.name} is deleted; the same command goes on with its run\n")
            raise KeyboardInterrupt
        if ended(job) != "Complete":
            raise _failure(cluster, asked_for, job, following.last_lines())


def wanted(ctx: Context, spec: ModelSpec, key: TrainKey, platform: PlatformSpec) -> Wanted:
    """What to ask the cluster for; raises InputError when something is missing that no cluster can guess."""
    where = platform.backends.kubernetes or Kubernetes.model_validate({})
    image = spec.train.environment.image or where.image
    if not image:
        msg = "train.backend is kubernetes, and nothing says which image the job runs in"
        fix = "write `environment: {image: NAME@sha256:…}` in model.yaml, or `backends: {kubernetes: {image: …}}` in "
        raise InputError(msg, why="it must have mlp-ci and git", fix=f"{fix}platform.yaml", file="model.yaml")
    if ctx.github is None:
        msg = "a job in a cluster fetches the code from GitHub, and this repository is on none that mlp-ci knows"
        raise InputError(msg, fix="add a remote named origin, and push; or set GITHUB_REPOSITORY=owner/name")
    return manifests.Wanted(
        order=handing_over.order(ctx, spec, key, platform),
        spec=spec,
        cluster=where,
        image=image,
        repository=f"{ctx.github.server_url}/{ctx.github.full_name}.git",
    )


def _started(cluster: Cluster, asked_for: Wanted, log: TextIO) -> Manifest:
    """The job that runs for this key: found, or made anew; one that has ended is replaced."""
    name = asked_for.order.name
    with_trainer = asked_for.spec.train.nodes > 1 and cluster.has_trainer()
    kind = manifests.TRAINER_API if with_trainer else "batch/v1"
    found = cluster.job(kind, name)
    if found is not None and not ended(found) and "deletionTimestamp" not in found["metadata"]:
        log.write(f"mlp-ci: {found['kind']} {name} runs in {asked_for.cluster.namespace} already; following it\n")
        return found
    if found is not None:
        cluster.delete(kind, name)
    manifest = manifests.train_job(asked_for) if with_trainer else manifests.job(asked_for)
    made = cluster.apply_job(manifest)
    if asked_for.spec.train.nodes > 1 and not with_trainer:
        cluster.apply_service(manifests.service(asked_for, str(made["metadata"]["uid"])))
    log.write(f"mlp-ci: {manifest['kind']} {name} is made in {asked_for.cluster.namespace}\n")
    return made


def _wait(cluster: Cluster, asked_for: Wanted, job: Manifest, asked: Event, log: TextIO) -> Manifest:
    """Wait for the job's end; its last state. Deletes it when this process is asked to stop."""
    kind, name = job["apiVersion"], asked_for.order.name
    answered = time.monotonic()
    told, since = "", time.monotonic()
    while not ended(job):
        if asked.wait(LOOK_SECONDS):
            cluster.delete(kind, name)
            return job
        try:
            found = cluster.job(kind, name)
            waits = cluster.waits_for(name)
            answered = time.monotonic()
        except OutsideError:
            if time.monotonic() - answered > OUT_OF_REACH_SECONDS:
                raise
            continue  # it runs on without us
        if found is None:
            msg = f"somebody deleted {job['kind']} {name} while it ran"
            raise OutsideError(msg, fix="run `mlp-ci train` again: it resumes the same run from its checkpoints")
        job = found
        reason = waits.partition(":")[0]
        if reason != told:
            told, since = reason, time.monotonic()
            if waits:
                log.write(f"mlp-ci: the pod waits: {waits}\n")
        if reason in HOPELESS and time.monotonic() - since > HOPELESS_SECONDS:
            cluster.delete(kind, name)
            msg = f"the pod of job {name} cannot start"
            raise OutsideError(msg, why=waits, fix="check the image, its pull secret and the Secret, and run again")
    return job


def _failure(cluster: Cluster, asked_for: Wanted, job: Manifest, said: list[str]) -> MlpError:
    """What a job that failed means; its own deadline and memory are told from other ends."""
    where = f"Kubernetes (job {asked_for.order.name})"
    conditions = job.get("status", {}).get("conditions") or []
    reasons = {c.get("reason", "") for c in conditions if c.get("status") == "True"}
    if "DeadlineExceeded" in reasons:
        what = f"the training on {where} was ended: it and what comes before and after took too long"
        return GateError(what, why="train.timeout and an hour were over", fix="raise `train.timeout` in model.yaml")
    code, reason = cluster.exit_of(asked_for.order.name)
    if reason == "OOMKilled":
        what = f"the training on {where} ran out of memory"
        fix = "raise `train.resources.memory_gb` in model.yaml; the same key goes on from its checkpoints"
        return GateError(what, why="the kernel killed it at the pod's limit", fix=fix, file="model.yaml")
    return handing_over.outcome_error(where, code, said)


class _Following:
    """Shows the log of the first pod as it comes, from a thread of its own, again and again until the job is over."""

    def __init__(self, cluster: Cluster, asked_for: Wanted, log: TextIO, mask: Mask) -> None:
        self._cluster = cluster
        self._name = asked_for.order.name
        self._log = log
        self._mask = mask
        self._shown = 0
        self._kept: list[str] = []
        self._over = Event()
        self._thread = Thread(target=self._follow, name="log of the job", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """The job has ended: the thread shows what is left of its log."""
        self._over.set()
        self._thread.join(20)

    def last_lines(self) -> list[str]:
        return self._kept[-handing_over.LINES_SHOWN :]

    def _follow(self) -> None:
        while True:
            last = self._over.is_set()  # asked before reading, so that what came before the end is read
            for number, line in enumerate(self._cluster.log_lines(self._name, follow=not last)):
                if number >= self._shown:
                    self._shown = number + 1
                    self._show(line)
            if last:
                return
            self._over.wait(LOOK_SECONDS)

    def _show(self, line: str) -> None:
        masked = self._mask(line)
        self._kept = [*self._kept[-100:], masked]
        try:
            self._log.write(masked + "\n")
            self._log.flush()
        except (OSError, ValueError):
            return


def show_manifests(ctx: Context) -> Report:
    """What would be asked of the cluster, as YAML, for who wants to see it before; nothing is asked."""
    import yaml

    spec = load_model(ctx.repo)
    asked_for = wanted(ctx, spec, train_key(ctx, spec), handing_over.platform_for(ctx))
    documents: list[Any] = [manifests.job(asked_for)]
    if spec.train.nodes > 1:
        documents.append(manifests.service(asked_for, "(of the Job)"))
        documents.append(manifests.train_job(asked_for))
    report = Report(command="train", headline=f"{len(documents)} manifests, not applied")
    if spec.train.nodes > 1:
        report.headline += "; where Kubeflow Trainer is installed the TrainJob is used, else the two before it"
    report.document = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True)
    report.data = {"manifests": documents}
    return report
