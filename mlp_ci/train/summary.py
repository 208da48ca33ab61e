"""What `mlp-ci train` reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.train.key import uncommitted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.tracking import RunFact
    from mlp_ci.train.attempt import Trained
    from mlp_ci.train.job import Job


def report_of(job: Job, run: RunFact, trained: Trained | None) -> Report:
    """The run in a few lines; ``trained`` is None when nothing had to be trained."""
    seconds = float(run.tags.get("mlp.train_seconds", 0))
    if trained:
        headline = f"trained {job.spec.name} in {trained.seconds:.1f} s"
    else:
        headline = f"{job.spec.name} is trained already: the same code, data, params and environment, {seconds:.1f} s"
    report = Report(command="train", headline=headline)
    report.outputs = {"run-id": run.run_id, "train-key": job.key.digest, "trained": str(trained is not None).lower()}
    report.links = [("MLflow run", job.tracking.run_page(run.run_id))]
    tags = run.tags
    facts = {
        "train key": job.key.digest[:16],
        "commit": tags.get("mlp.commit", "")[:12] + (" (dirty)" if tags.get("mlp.dirty") == "true" else ""),
        "model digest": run.digest,
        "environment": tags.get("mlp.env", ""),
        "machine": f"{tags.get('mlp.cpus')} CPUs, {tags.get('mlp.memory_gb')} GB, GPU: {tags.get('mlp.gpu')}",
        "seed": job.spec.train.seed,
        "seconds, all attempts": seconds,
        **_searched(tags),
        **usage_facts(tags),
    }
    own = {k: v for k, v in run.metrics.items() if not k.startswith("system/")}
    metrics = {k: v for k, v in own.items() if trained is None or k in trained.output.metrics}
    rows = (*facts.items(), *((f"metric {k}", v) for k, v in sorted(metrics.items()) if not k.startswith("test_")))
    report.tables = [Table(title="", columns=("what", "value"), rows=tuple(rows))]
    report.data = {"run_id": run.run_id, "train_key": job.key.digest, "key_parts": dict(job.key.parts), **facts}
    dirty = uncommitted(job.ctx.repo, job.spec)
    if dirty:
        report.findings = [_dirty(dirty)]
    return report


def _searched(tags: Mapping[str, str]) -> dict[str, str]:
    """Which trial of a search gave the parameters."""
    if "mlp.sweep_trial" not in tags:
        return {}
    return {
        "parameters of": f"trial {tags['mlp.sweep_trial']} of sweep {tags.get('mlp.sweep', '')}",
        "it had": tags.get("mlp.sweep_value", ""),
        "parameters": tags.get("mlp.sweep_params", ""),
    }


def usage_facts(tags: Mapping[str, str]) -> dict[str, str]:
    """What a training used, in words, as far as it is known: label → value."""
    shown = {
        "attempts": ("mlp.attempts", "{}"),
        "processor time": ("mlp.cpu_seconds", "{} s"),
        "peak memory": ("mlp.peak_memory_mb", "{} MB"),
        "GPU utilisation": ("mlp.gpu_utilization", "{} % on average"),
        "GPU peak memory": ("mlp.gpu_peak_memory_mb", "{} MB"),
        "GPU energy": ("mlp.energy_wh", "{} Wh"),
        "cost": ("mlp.cost_usd", "${} at $" + tags.get("mlp.usd_per_hour", "") + " an hour"),
    }
    return {label: text.format(tags[tag]) for label, (tag, text) in shown.items() if tags.get(tag)}


def _dirty(paths: list[str]) -> Finding:
    shown = ", ".join(paths[:5]) + (f" and {len(paths) - 5} more" if len(paths) > 5 else "")
    return Finding(
        check="committed",
        outcome=Outcome.FAIL,
        severity="warning",
        message=f"not committed: {shown}; register takes only what a commit describes",
        fix="git add and commit, or add files that training writes to .gitignore",
    )
