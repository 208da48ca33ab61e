"""A cluster as a target; see :class:`mlp_ci.serve.targets.Target` for what each function promises.

All facts are in the HTTPRoute of a model in a stage. Nothing is locked: who read an older one writes nothing, and what
did not depend on it is tried again.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.serve.artefacts import folder_of
from mlp_ci.serve.state import Held, Interval, LiveFact, Place, Reversal, Server, State
from mlp_ci.serve.targets import Answer, Release, Settings, Why
from mlp_ci.serve.targets.kubernetes import addresses, manifests, measuring, planning, starting
from mlp_ci.serve.targets.kubernetes.api import TRIES, Api, again, said
from mlp_ci.serve.targets.kubernetes.gitops import Checkout
from mlp_ci.serve.targets.kubernetes.keeping import Keeping, state_in
from mlp_ci.serve.targets.kubernetes.splitting import Splitting
from mlp_ci.serve.targets.kubernetes.wanted import MANAGED, VERSION, Wanted, selector, version_name, wanted
from mlp_ci.serve.targets.machine import as_expected, goal_of, settings_of
from mlp_ci.serve.targets.told import Told

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from mlp_ci.serve.measured import Measured
    from mlp_ci.serve.state import Arm
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import Serving

LOOK_SECONDS = 0.5
# What a version consists of, and what is looked through for versions that nobody needs any more.
WORKLOADS = (("apps/v1", "Deployment"), (manifests.KSERVE_API, "InferenceService"))
PARTS = (
    *WORKLOADS,
    ("autoscaling/v1", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"),
    ("v1", "Service"),
)


class KubernetesTarget(Told):
    """One namespace of a cluster."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._cluster = serving.kubernetes
        if not self._cluster.gateway:
            msg = "serve.target is kubernetes, and platform.yaml names no Gateway"
            fix = "write `serving: {kubernetes: {gateway: NAMESPACE/NAME}}` in platform.yaml"
            raise InputError(msg, why="traffic is split by an HTTPRoute, which hangs on one", fix=fix)

    @cached_property
    def _api(self) -> Api:
        return Checkout.connect(self._cluster) if self._cluster.gitops else Api.connect(self._cluster)

    @cached_property
    def _keeping(self) -> Keeping:
        return Keeping(self._api, self._cluster)

    @cached_property
    def _splitting(self) -> Splitting:
        return Splitting(self._api, self._cluster, self._keeping)

    # ------------------------------------------------------------ facts

    def read(self, place: Place) -> State | None:
        return self._keeping.read(place)

    def changing(self, place: Place) -> AbstractContextManager[State]:
        return self._keeping.changing(place)

    keep = again(Told.keep)
    note = again(Told.note)
    announce = again(Told.announce)
    acknowledge = again(Told.acknowledge)

    def live(self, place: Place) -> LiveFact | None:
        """The version that has the traffic, and the address at the Gateway."""
        fact = super().live(place)
        return replace(fact, address=addresses.address(self._api, self._cluster, place)) if fact else None

    def history(self, home: Path, model: str) -> list[Interval]:
        """All intervals of all stages of ``model``, by start."""
        found = [state for route in self._keeping.routes(model) if (state := state_in(route))]
        return sorted((i for state in found for i in state.intervals()), key=lambda i: (i.started, i.stage))

    def runs(self, place: Place, state: State) -> bool:
        return state.live is not None and self.healthy(place, state.live)

    def healthy(self, place: Place, version: int) -> bool:
        """Whether a pod of the version is ready, as the cluster's own probes say.

        One that is on its way in is not while what leads people to it does not answer: they must not wait for that.
        """
        return self._answers(place, version) and self._splitting.reaches(place, version)

    def _answers(self, place: Place, version: int) -> bool:
        workload = self._workload(place, version)
        return workload is not None and starting.answers(workload)

    def measured(self, place: Place) -> Measured:
        """What every version answered."""
        if not self._cluster.prometheus:
            return measuring.by_pods(self._api, place)
        state = self.read(place)
        begun = datetime_of(state.progress.started) if state and state.progress else None
        begun = begun or (state.intervals()[-1].started if state and state.history else clock.now())
        return measuring.by_prometheus(self._cluster.prometheus, place, begun, clock.now())

    # ------------------------------------------------------------ running

    def prepare(self, place: Place, release: Release, settings: Settings) -> None:
        """Have ``release`` run and answer, without any traffic, and what splits the traffic now as it should."""
        self._run(place, release, settings)
        self._splitting.resume(place)

    def _run(self, place: Place, release: Release, settings: Settings) -> None:
        asked_for = self._wanted(place, release, settings)
        self._note_server(place, asked_for, settings)
        try:
            self._apply(asked_for)
            self._wait(place, asked_for)
        except (InputError, OutsideError):
            self.withdraw(place, release.version)  # unless it has traffic already
            raise

    def _wanted(self, place: Place, release: Release, settings: Settings) -> Wanted:
        from mlp_ci.serve.package.naming import reference

        registry = self._serving.docker.registry
        if registry is None:
            msg = "serve.target is kubernetes, and platform.yaml names no registry that the cluster takes images from"
            fix = "write `serving: {docker: {registry: HOST/PATH}}` in platform.yaml, and run `mlp-ci package` for it"
            raise InputError(msg, fix=fix)
        image = reference(registry, place.model, release.version, release.digest)
        return wanted(place, release, settings, self._cluster, image)

    @again
    def _note_server(self, place: Place, asked_for: Wanted, settings: Settings) -> None:
        with self.changing(place) as state:
            state.servers[asked_for.version] = Server(
                version=asked_for.version,
                digest=asked_for.digest,
                port=manifests.SERVICE_PORT,
                artefact=asked_for.name,
                python="",
                image=asked_for.image,
            )
            state.log, state.labels = dict(settings.log), dict(settings.labels)
            state.serve = settings.serve.model_dump(mode="json")
            state.stopped = False

    @again
    def _apply(self, asked_for: Wanted) -> None:
        """Apply everything of the version, and delete what an earlier deploy of it made and this one does not want."""
        mine = manifests.of_version(asked_for)
        for manifest in mine:
            self._api.apply(manifest)
        kinds = {manifest["kind"] for manifest in mine}
        self._delete(asked_for.model, asked_for.stage, asked_for.version, kinds)
        self._api.publish(f"run {asked_for.name}")

    def _delete(self, model: str, stage: str, version: int, but: set[str]) -> None:
        labels = {**MANAGED, **selector(model, stage), VERSION: str(version)}
        for api_version, kind in PARTS:
            if kind not in but:
                for found in self._api.find(api_version, kind, labels):
                    self._api.delete(api_version, kind, found["metadata"]["name"])

    def _wait(self, place: Place, asked_for: Wanted) -> None:
        """Until it answers. What waiting does not mend is an error, with the pod's last words."""
        begun = time.monotonic()
        while True:
            workload = self._workload(place, asked_for.version)
            state = self.read(place)
            if workload is None or state is None or asked_for.version not in state.servers:
                msg = f"another command ended version {asked_for.version} of {place} while it started"
                raise RolloutAborted(msg, fix="run `mlp-ci deploy` again")
            if starting.ready(workload):
                return
            pods = self._api.find("v1", "Pod", asked_for.selector)
            waited = time.monotonic() - begun
            if found := starting.trouble(workload, pods, waited):
                self._hopeless(asked_for, found)
            if waited > manifests.DEADLINE_SECONDS:
                msg = f"version {asked_for.version} of {place} does not answer after {waited:.0f} s"
                raise OutsideError(msg, why=starting.waits_for(pods), fix="run `mlp-ci deploy` again when it can")
            time.sleep(LOOK_SECONDS)

    def _hopeless(self, asked_for: Wanted, found: starting.Trouble) -> None:
        msg = f"version {asked_for.version} does not start in the cluster"
        if not found.ours:
            fix = f"`kubectl --namespace {self._api.namespace} describe pods -l {VERSION}={asked_for.version}`"
            why = found.why.strip()[:600]
            if "quota" in why:
                fix = "raise the ResourceQuota of the namespace, or lower `serve.resources` and `serve.replicas`"
            elif "Image" in why:
                fix = (
                    f"see that {asked_for.image} is in the registry: `mlp-ci package {asked_for.version}` puts it there"
                )
            raise OutsideError(msg, why=why, fix=fix)
        log = self._api.last_words(found.pod, found.container)
        raise InputError(msg, why=f"{found.why}\n{log}"[:1500].strip(), fix="mend the model, and register it again")

    def plan(self, place: Place, release: Release, settings: Settings) -> str:
        """What would change, as a diff; the API server itself says what would become of each object."""
        asked_for = self._wanted(place, release, settings)
        return planning.plan(self._api, self._keeping, place, asked_for)

    def ask(self, place: Place, version: int | None, body: bytes) -> Answer:
        """Post to the version by way of the API server, or to the address of the Gateway.

        Where this machine does not reach the Gateway, the live version is asked by way of the API server as well.
        """
        if version is None:
            address = addresses.address(self._api, self._cluster, place)
            answer = addresses.post(f"{address}/invocations", body)
            if answer is not None:
                return answer
            state = self.read(place)
            version = state.live if state else None
        if version is None:
            msg = f"nothing serves {place}"
            raise OutsideError(msg, fix="run `mlp-ci deploy`")
        backend = manifests.backend(place, version, self._cluster)
        told = self._api.through("POST", f"services/http:{backend['name']}:{backend['port']}", "/invocations", body)
        if told.status in (404, 502, 503) and b'"kind":"Status"' in told.body.replace(b" ", b""):
            msg = f"version {version} of {place} does not answer"
            raise OutsideError(msg, why=said(told)[:600], fix="run `mlp-ci deploy` again")
        return Answer(told.status, told.body)

    def withdraw(self, place: Place, version: int) -> None:
        """End a version that has no traffic; its pods answer what they were asked before they go."""
        if self._forget(place, version):
            self._end(place, version)

    @again
    def _end(self, place: Place, version: int) -> None:
        self._delete(place.model, place.stage, version, set())
        self._api.publish(f"end version {version} of {place}")

    @again
    def _forget(self, place: Place, version: int) -> bool:
        """Take a version out of the facts; False when it has traffic."""
        state = self.read(place)
        if state is None or any(arm.version == version for arm in state.arms):
            return state is None
        if version in state.servers:
            with self.changing(place) as state:
                if any(arm.version == version for arm in state.arms):
                    return False
                state.servers.pop(version, None)
        return True

    def tidy(self, place: Place) -> None:
        """End every version that has no traffic and is not kept warm, also what a killed command left."""
        state = self.read(place)
        if state is None:
            return
        self._splitting.tidy(place)
        labels = {**MANAGED, **selector(place.model, place.stage)}
        found = {*state.servers}
        for api_version, kind in PARTS:
            for item in self._api.find(api_version, kind, labels):
                number = str(item["metadata"]["labels"].get(VERSION, ""))
                found |= {int(number)} if number.isdigit() else set()
        for version in found - state.warm():
            self.withdraw(place, version)

    def stop(self, place: Place) -> None:
        """End everything; the facts stay in the route, which leads nowhere."""
        if self.read(place) is None:
            return
        self._stopped(place)
        self._end_all(place)

    @again
    def _stopped(self, place: Place) -> None:
        with self.changing(place) as state:
            state.stopped = True

    @again
    def _end_all(self, place: Place) -> None:
        labels = {**MANAGED, **selector(place.model, place.stage)}
        for api_version, kind in PARTS:
            for found in self._api.find(api_version, kind, labels):
                self._api.delete(api_version, kind, found["metadata"]["name"])
        self._api.publish(f"end all of {place}")

    def _workload(self, place: Place, version: int) -> Manifest | None:
        name = version_name(place.model, place.stage, version)
        api_version, kind = WORKLOADS[1 if self._cluster.kserve else 0]
        return self._api.get(api_version, kind, name)

    # ------------------------------------------------------------ traffic

    def shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None = None) -> None:
        """Split the traffic; on return the Gateway has taken the new split."""
        self._shift(place, arms, expected)
        self._keeping.follow(place)
        self._splitting.resume(place)  # somebody who tidied up in between did not know of it
        self._splitting.tidy(place)

    @again
    def _shift(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None) -> None:
        stands = self._splitting.stand(place, arms, expected)
        with self._keeping.changing(place, stands=stands) as state:
            as_expected(place, state, expected)
            missing = [a.version for a in arms if a.version not in state.servers]
            if missing:
                msg = f"version {missing[0]} does not run, so it cannot have traffic"
                raise OutsideError(msg, fix="run `mlp-ci deploy` again")
            state.arms = list(arms)
            self._splitting.same(place, state, stands)

    def settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None = None) -> None:
        """Give ``release`` everything, keep the one before warm, end all others."""
        self._settle(place, release, now, expected)
        self._keeping.follow(place)
        self.tidy(place)

    @again
    def _settle(self, place: Place, release: Release, now: datetime, expected: Sequence[Arm] | None) -> None:
        with self.changing(place) as state:
            as_expected(place, state, expected)
            state.settle(release.version, release.digest, now, release.evidence)

    def turn_back(
        self, place: Place, to: int | None, why: Why, expected: Sequence[Arm] | None = None
    ) -> tuple[Reversal, bool]:
        """Give all traffic to an earlier version; nobody's hold on the weights stops it."""
        for _ in range(TRIES):
            found = self._turned(place, to, why, expected)
            if not isinstance(found, tuple):
                reversal = found
                self._keeping.follow(place)
                return reversal, True
            reversal_before, release, settings = found
            if reversal_before:
                return reversal_before, False
            try:
                self._run(place, release, settings)
            except RolloutAborted:  # a deploy that ended in between cleared it away: it is needed all the same
                continue
        msg = f"other commands keep ending the version that {place} is to go back to"
        raise OutsideError(msg, fix="run the rollback again")

    @again
    def _turned(
        self, place: Place, to: int | None, why: Why, expected: Sequence[Arm] | None
    ) -> Reversal | tuple[Reversal | None, Release, Settings]:
        """The reversal, when traffic moved. Else the one before, or what has to be started first."""
        if self.read(place) is None:
            goal_of(place, State(model=place.model, stage=place.stage), to)  # raises: nothing was ever deployed
        with self._keeping.changing(place, force=True) as state:
            before = state.reversal
            goal = goal_of(place, state, to)
            digest = state.digest_of(goal) or ""
            release = Release(version=goal, digest=digest, artefact=folder_of(place.home, digest))
            if goal == state.live and state.canary() is None and before and before.version == goal:
                return before, release, settings_of(state)
            as_expected(place, state, expected)
            if goal in state.servers and self._answers(place, goal):
                taken, bad = state.taken()
                held = Held(version=taken, digest=bad, reason=why.reason, since=why.now.isoformat())
                return state.reverse(goal, held, why.by)
            return None, release, settings_of(state)


def datetime_of(text: str) -> datetime | None:
    from datetime import datetime

    return datetime.fromisoformat(text) if text else None
