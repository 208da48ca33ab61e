"""What a deploy would change, as a diff of YAML: the API server says what would become of each object."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from mlp_ci.serve.state import CANARY, STABLE, Arm, Place
from mlp_ci.serve.targets.kubernetes import manifests, splitter
from mlp_ci.serve.targets.kubernetes.wanted import shared_by_user

if TYPE_CHECKING:
    from mlp_ci.serve.state import State
    from mlp_ci.serve.targets.kubernetes.api import Api
    from mlp_ci.serve.targets.kubernetes.keeping import Keeping
    from mlp_ci.serve.targets.kubernetes.wanted import Manifest, Wanted

# What the server writes, and what changes with every look: no change that a deploy makes.
SERVERS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
OTHERS_NOTES = (manifests.STATE, "deployment.kubernetes.io/")


def plan(api: Api, keeping: Keeping, place: Place, asked_for: Wanted) -> str:
    """The diff of everything of the version, and of the route's first and last step; "" when nothing would change.

    Where versions are to share the traffic by user, what splits it so is shown as well.
    """
    said = [_difference(api, manifest, "then") for manifest in manifests.of_version(asked_for)]
    state = keeping.read(place)
    for arms in _steps(state, asked_for):
        weight = next(arm.weight for arm in arms if arm.version == asked_for.version)
        then, through = f"with {weight} % on version {asked_for.version}", ""
        if len(arms) > 1 and shared_by_user(asked_for.serve):
            between = splitter.of_arms(place, arms, asked_for.serve, asked_for.cluster, asked_for.digest)
            said += [_difference(api, manifest, then) for manifest in splitter.of_splitter(between)]
            through = between.name
        wanted = manifests.route(place, asked_for.cluster, arms, {}, through)
        said.append(_difference(api, wanted, then))
    return "".join(said)


def _steps(state: State | None, asked_for: Wanted) -> list[list[Arm]]:
    """The splits that are shown: the first one with traffic, and the last."""
    last = [Arm(version=asked_for.version, weight=100)]
    if state is None or state.live is None or state.live == asked_for.version:
        return [last]
    weight = asked_for.serve.rollout.weights[0]
    if asked_for.serve.rollout.strategy not in ("canary", "ab") or weight >= 100:
        return [last]
    both = (
        Arm(version=state.live, weight=100 - weight, arm=STABLE),
        Arm(version=asked_for.version, weight=weight, arm=CANARY),
    )
    return [list(both), last]


def _difference(api: Api, manifest: Manifest, then: str) -> str:
    """One object as it is, against what the server would make of it."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    now = api.get(manifest["apiVersion"], kind, name)
    return _diff(_shown(now), _shown(api.apply(manifest, dry=True)), f"{kind} {name}", then)


def _shown(value: Manifest | None) -> str:
    """As YAML, without what is the server's."""
    import yaml

    if value is None:
        return ""
    metadata = {key: item for key, item in value["metadata"].items() if key not in SERVERS}
    notes = {k: v for k, v in (metadata.pop("annotations", None) or {}).items() if not k.startswith(OTHERS_NOTES)}
    metadata |= {"annotations": notes} if notes else {}
    shown = {"apiVersion": value["apiVersion"], "kind": value["kind"], "metadata": metadata, "spec": value.get("spec")}
    return yaml.safe_dump(shown, sort_keys=True, allow_unicode=True)


def _diff(before: str, after: str, name: str, then: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        f"{name} (now)" if before else "/dev/null",
        f"{name} ({then})",
    )
    return "".join(lines)
