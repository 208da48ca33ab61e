"""Has a splitter stand before the route leads to it, and ends those that it no longer leads to.

A splitter follows from the state alone, and the route names it in the same write that changes the state. So of two
controllers the one that comes second changes nothing that people meet, and wherever one is killed the route leads to a
splitter that splits as the state says.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import note
from mlp_ci.serve.targets.kubernetes import manifests, splitter, starting
from mlp_ci.serve.targets.kubernetes.api import Changed, again
from mlp_ci.serve.targets.kubernetes.keeping import state_in
from mlp_ci.serve.targets.kubernetes.matching import contains
from mlp_ci.serve.targets.kubernetes.wanted import MANAGED, PART
from mlp_ci.serve.targets.machine import as_expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.state import Arm, Place, State
    from mlp_ci.serve.targets.kubernetes.api import Api
    from mlp_ci.serve.targets.kubernetes.keeping import Keeping
    from mlp_ci.serve.targets.kubernetes.splitter import Splitter
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import KubernetesServing

LOOK_SECONDS = 0.3
RESUME_SECONDS = 30.0
PATIENCE = 3.0  # what a Deployment says of itself may be older than what was just asked of it
KINDS = (("apps/v1", "Deployment"), ("policy/v1", "PodDisruptionBudget"), ("v1", "Service"))


@dataclass(frozen=True)
class Splitting:
    """Applies, watches and ends the splitters of a place."""

    api: Api
    cluster: KubernetesServing
    keeping: Keeping

    def stand(self, place: Place, arms: Sequence[Arm], expected: Sequence[Arm] | None) -> str:
        """Have what splits the traffic like ``arms`` stand and answer; its name, empty where a route alone can do it.

        Raises RolloutAborted, and makes nothing, when the split is not the ``expected`` one now.
        """
        state = self.keeping.read(place)
        if state is None:
            return ""
        then = replace(state, arms=list(arms))
        if not splitter.needed(then, self.cluster):
            return ""
        as_expected(place, state, expected)
        wanted = splitter.of_state(place, then, self.cluster)
        try:
            self._until_it_answers(wanted, manifests.DEADLINE_SECONDS)
        except (InputError, OutsideError) as error:
            if not isinstance(error, Changed):
                self.tidy(place)
            raise
        return wanted.name

    def same(self, place: Place, state: State, stands: str) -> None:
        """Raises Changed when the splitter that stands is not the one that the state needs."""
        if splitter.needed(state, self.cluster) and splitter.of_state(place, state, self.cluster).name != stands:
            msg = f"somebody else changed how users of {place} are told apart"
            raise Changed(msg, fix="run the same command again")

    def reaches(self, place: Place, version: int) -> bool:
        """Whether it answers, where it is what leads people to the version that is on its way in."""
        route = self.keeping.route(place)
        state = state_in(route) if route else None
        if route is None or state is None or state.canary() != version:
            return True
        name = splitter.led_to(place, route)
        found = self.api.get(*KINDS[0], name) if name else None
        return not name or (found is not None and starting.answers(found))

    @again
    def resume(self, place: Place) -> None:
        """Have what splits the traffic stand as the state needs it, and the route lead there; mostly that is so."""
        route = self.keeping.route(place)
        state = state_in(route) if route else None
        if route is None or state is None or not splitter.needed(state, self.cluster):
            return
        wanted = splitter.of_state(place, state, self.cluster)
        if splitter.led_to(place, route) != wanted.name:
            stands = self.stand(place, state.arms, state.arms)
            with self.keeping.changing(place, stands=stands) as state:
                self.same(place, state, stands)
            self.keeping.follow(place)
            return
        try:
            self._until_it_answers(wanted, RESUME_SECONDS)
            self.keeping.follow(place)
        except Changed:
            raise
        except OutsideError as error:  # what people meet is judged by `reaches`, and may have to be aborted
            note(f"{place.stage}: {error.what}: {error.why}")

    @again
    def tidy(self, place: Place) -> None:
        """End those that the route does not lead to; their pods answer what they were asked before they go."""
        labels = {**MANAGED, **splitter.of_place(place)}
        # The route is read last: one that was made for a newer route is not among those that were found.
        found = {part: {o["metadata"]["name"] for o in self.api.find(*part, labels)} for part in KINDS}
        route = self.keeping.route(place) if any(found.values()) else None
        kept = splitter.led_to(place, route) if route else ""
        left = [(part, name) for part, names in found.items() for name in sorted(names - {kept})]
        for part, name in left:
            self.api.delete(*part, name)
        if left:
            self.api.publish(f"end what split {place}")

    # ------------------------------------------------------------ until it answers

    def _until_it_answers(self, wanted: Splitter, seconds: float) -> None:
        begun = time.monotonic()
        while True:
            found = self.api.get(*KINDS[0], wanted.name)
            *others, deployment = splitter.of_splitter(wanted)
            if found is None or not contains(found.get("spec") or {}, deployment["spec"]):
                for manifest in (*others, deployment):
                    self.api.apply(manifest)
                self.api.publish(f"split {wanted.place} by user")
            elif self._answers(wanted, found):
                return
            else:
                waited = time.monotonic() - begun
                self._look(wanted, found, waited, last=waited > seconds)
            time.sleep(LOOK_SECONDS)

    def _answers(self, wanted: Splitter, found: Manifest) -> bool:
        """Whether its pods answer behind its Service."""
        if not starting.ready(found):
            return False
        service = f"services/http:{wanted.name}:{manifests.SERVICE_PORT}"
        return self.api.through("GET", service, "/v2/health/ready").status == 200

    def _look(self, wanted: Splitter, found: Manifest, waited: float, *, last: bool) -> None:
        """Raises OutsideError for what waiting does not mend; for everything if it is the ``last`` look."""
        pods = self.api.find("v1", "Pod", wanted.selector)
        trouble = starting.trouble(found, pods, waited) if waited > PATIENCE else None
        if trouble is None and not last:
            return
        msg = f"what splits the traffic of {wanted.place} by user does not start in the cluster"
        why = trouble.why.strip()[:600] if trouble else starting.waits_for(pods)
        fix = f"`kubectl --namespace {self.api.namespace} describe pods -l {PART}={splitter.NAME}`"
        if "quota" in why:
            fix = "raise the ResourceQuota of the namespace: each pod of it asks for 100m and 256Mi, at most 512Mi"
        elif "Image" in why:
            fix = f"see that {self.cluster.image} (`serving.kubernetes.image` of platform.yaml) is in the registry"
        elif trouble and trouble.ours:
            why = f"{why}\n{self.api.last_words(trouble.pod, trouble.container)}"[:1500].strip()
            fix = f"see that {self.cluster.image} (`serving.kubernetes.image` of platform.yaml) is this mlp-ci"
        raise OutsideError(msg, why=why, fix=f"{fix}; then run the same command again")
