"""The facts of a model in a stage, as an annotation of its HTTPRoute: what is said and done change in one write.

The object's ``resourceVersion`` is the compare-and-set: whoever read an older one changes nothing.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve import state as states
from mlp_ci.serve.state import Place, State
from mlp_ci.serve.targets.kubernetes import manifests, splitter
from mlp_ci.serve.targets.kubernetes.matching import contains
from mlp_ci.serve.targets.kubernetes.wanted import MANAGED, MODEL, label, place_name, selector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.serve.targets.kubernetes.api import Api
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest
    from mlp_ci.spec.serve import KubernetesServing

FOLLOW_SECONDS = 45
SYNC_SECONDS = 600  # Argo CD looks every three minutes, Flux as it is told, unless a webhook wakes them
MOST_BYTES = 200_000  # of 256 KiB that the annotations of an object may have together


@dataclass(frozen=True)
class Keeping:
    """Reads and writes the HTTPRoute of a place."""

    api: Api
    cluster: KubernetesServing

    def route(self, place: Place) -> Manifest | None:
        """The HTTPRoute as it is; InputError when one of that name is not ours."""
        found = self.api.get(manifests.GATEWAY_API, "HTTPRoute", place_name(place.model, place.stage))
        if found is None:
            return None
        labels = found["metadata"].get("labels") or {}
        if any(labels.get(key) != value for key, value in {**MANAGED, **selector(place.model, place.stage)}.items()):
            msg = f"HTTPRoute {found['metadata']['name']} of namespace {self.api.namespace} is not of {place}"
            raise InputError(msg, why="mlp-ci did not make it", fix="rename it, or give mlp-ci a namespace of its own")
        return found

    def routes(self, model: str) -> list[Manifest]:
        """The HTTPRoutes of all stages of a model."""
        return self.api.find(manifests.GATEWAY_API, "HTTPRoute", {**MANAGED, MODEL: label(model)})

    def read(self, place: Place) -> State | None:
        found = self.route(place)
        return state_in(found) if found else None

    @contextmanager
    def changing(self, place: Place, *, force: bool = False, stands: str = "") -> Iterator[State]:
        """The state, to be changed; written when the block ends. Raises Changed when somebody else was faster.

        Without ``force`` it is an InputError when somebody else manages the weights. Where the state needs a splitter,
        the route leads to the one that ``stands``, else to the one that it leads to, else to the versions.
        """
        found = self.route(place) or self._made(place)
        state = state_in(found)
        fresh = state is None
        state = state or State(model=place.model, stage=place.stage)
        before = states.to_json(state)
        yield state
        through = stands or splitter.led_to(place, found)
        manifest = self.manifest(place, state, through)
        if states.to_json(state) == before and not fresh and _leads_as(found, manifest):
            return
        state.generation += 1
        manifest = self.manifest(place, state, through)
        manifest["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]
        self.api.apply(manifest, force=force or fresh)
        self.api.publish(f"{place}: {_split(state)}")

    def manifest(self, place: Place, state: State, through: str) -> Manifest:
        """The HTTPRoute that ``state`` wants; ``through`` this splitter, if it needs one."""
        through = through if splitter.needed(state, self.cluster) else ""
        notes = {manifests.STATE: annotation(state)}
        return manifests.route(place, self.cluster, manifests.arms_of(state), notes, through)

    def follow(self, place: Place) -> None:
        """Wait until the Gateway's controller has taken the route as it is now."""
        deadline = time.monotonic() + (SYNC_SECONDS if self.cluster.gitops else FOLLOW_SECONDS)
        while True:
            found = self.route(place)
            taken, why = taken_by_gateway(found or {})
            if taken:
                return
            if time.monotonic() > deadline:
                gateway = self.cluster.gateway
                msg = f"the Gateway {gateway} does not take the route of {place}"
                name = place_name(place.model, place.stage)
                fix = f"`kubectl --namespace {self.api.namespace} describe httproute {name}`, and run this again"
                raise OutsideError(msg, why=why or "nobody says that it was taken", fix=fix)
            time.sleep(0.2)

    def _made(self, place: Place) -> Manifest:
        """An HTTPRoute that hangs on no Gateway yet; when somebody else is faster, theirs."""
        bare = manifests.route(place, self.cluster, [], {})
        metadata = {key: bare["metadata"][key] for key in ("name", "namespace", "labels")}
        return self.api.create(
            {"apiVersion": bare["apiVersion"], "kind": bare["kind"], "metadata": metadata, "spec": {}}
        )


def state_in(route: Manifest) -> State | None:
    """The state in the annotation of a route; None when it has none yet."""
    text = (route["metadata"].get("annotations") or {}).get(manifests.STATE)
    if text is None:
        return None
    try:
        return states.from_json(json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        name = route["metadata"]["name"]
        msg = f"the annotation {manifests.STATE} of HTTPRoute {name} cannot be read: {error!r}"
        fix = f"`kubectl annotate httproute {name} {manifests.STATE}-`, and run `mlp-ci deploy` again"
        raise OutsideError(msg, why="it says what runs for this stage", fix=fix) from error


def annotation(state: State) -> str:
    """The state as text. The history of looks, which is for people alone, gives way where it is too long."""
    text = _compact(states.to_json(state))
    while len(text) > MOST_BYTES and state.progress and state.progress.looks:
        looks = state.progress.looks
        state = replace(state, progress=replace(state.progress, looks=looks[1::2]))
        text = _compact(states.to_json(state))
    return text


def taken_by_gateway(route: Manifest) -> tuple[bool, str]:
    """Whether a controller took this generation of the route; else what it says."""
    generation = int((route.get("metadata") or {}).get("generation") or 0)
    said = ""
    for parent in (route.get("status") or {}).get("parents") or ():
        conditions = {c.get("type"): c for c in parent.get("conditions") or ()}
        accepted = conditions.get("Accepted") or {}
        refused = [
            f"{c.get('reason', '')}: {c.get('message', '')}"
            for kind, c in conditions.items()
            if kind in ("Accepted", "ResolvedRefs") and c.get("status") == "False"
        ]
        current = int(accepted.get("observedGeneration") or generation) >= generation
        if accepted.get("status") == "True" and current and not refused:
            return True, ""
        said = "; ".join(refused) or said
    return False, said


def _leads_as(found: Manifest, wanted: Manifest) -> bool:
    """Whether the route leads where it should; the server adds defaults, which are no difference."""
    return contains(found.get("spec") or {}, wanted["spec"])


def _split(state: State) -> str:
    """How the traffic is split, for the log of a GitOps repository."""
    return ", ".join(f"{a.weight} % on version {a.version}" for a in state.arms) or "no traffic yet"


def _compact(raw: Any) -> str:
    return json.dumps(raw, separators=(",", ":"), ensure_ascii=False)
