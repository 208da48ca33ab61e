"""The trained run of the working tree: what evaluating, telling and registering start from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError
from mlp_ci.spec import load_model
from mlp_ci.train.flow import connect_to
from mlp_ci.train.key import TrainKey, train_key

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec
    from mlp_ci.tracking import RunFact, Tracking


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every step of one evaluation needs: the trained run of the working tree, and where things are."""

    ctx: Context
    spec: ModelSpec
    key: TrainKey
    tracking: Tracking
    run: RunFact


def open_job(ctx: Context) -> Job:
    """The trained run of the working tree; InputError, with what changed since the last one, when there is none."""
    spec = load_model(ctx.repo)
    key = train_key(ctx, spec)
    tracking = connect_to(ctx)
    run = tracking.find_run(spec.name, key.digest)
    if run is None or not run.trained:
        raise _not_trained(tracking, spec, key, run)
    return Job(ctx=ctx, spec=spec, key=key, tracking=tracking, run=run)


def _not_trained(tracking: Tracking, spec: ModelSpec, key: TrainKey, run: RunFact | None) -> InputError:
    fix = "run `mlp-ci train` first"
    if run is not None:
        status = run.tags.get("mlp.status", run.status)
        msg = f"training of what lies here is not finished (run {run.run_id}: {status})"
        return InputError(msg, fix=f"{fix}; it goes on where it stopped")
    msg = "what lies here has not been trained"
    experiment = tracking.experiment(spec.name)
    newest = tracking.client.search_runs([experiment], max_results=1) if experiment else []
    if not newest:
        return InputError(msg, why=f"there is no run of {spec.name}", fix=fix)
    parts = json.loads(newest[0].data.tags.get("mlp.key_parts") or "{}")
    changed = ", ".join(key.changed_since(parts)) or "nothing that the key shows"
    why = f"since the newest run these changed: {changed}"
    if "code" in changed:
        fix += "; if training itself writes files into the repository, add them to .gitignore"
    return InputError(msg, why=why, fix=fix)
