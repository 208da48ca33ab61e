"""``mlp-ci plan``: which jobs the workflow needs, on which machines, for how long, at which price; and what it skips.

Labels come from the organisation's platform.yaml, or from whoever set the repository's variable; a pull request can
change model.yaml, and must not reach by it a machine that nobody meant for it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import MlpError
from mlp_ci.report import Finding, Outcome, Report, Table
from mlp_ci.spec import MODEL_FILE, RunnerClass, load_model, show_duration
from mlp_ci.train.key import TrainKey, has_no_effect, train_key
from mlp_ci.train.lease import Leases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlp_ci.context import Context
    from mlp_ci.spec import ModelSpec, PlatformSpec
    from mlp_ci.tracking import RunFact, Tracking

DEFAULT = "default"
HOSTED = ("ubuntu-latest",)
# What a job does besides the command: it makes the environment, fetches data, stores the model.
MARGIN = timedelta(minutes=30)
LONGEST = timedelta(days=5)  # GitHub's own limit for a job on a runner that one hosts oneself
LOOK_BACK = timedelta(days=90)
ELSEWHERE = ("kubernetes", "ray")  # the job only sends the work there and follows it


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where a job runs: the class it is called by, and what that class is."""

    name: str
    about: RunnerClass


@dataclass(frozen=True, kw_only=True)
class Machines:
    """``training`` is what is paid for; ``job`` is where the job runs, which may only send the work elsewhere."""

    training: Machine
    judging: Machine
    job: Machine


@dataclass(frozen=True, kw_only=True)
class Past:
    """What MLflow knows: the run of this key, whether somebody trains it now, and all newer runs, oldest first."""

    run: RunFact | None = None
    busy: bool = False
    earlier: Sequence[RunFact] = ()


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether to train and to judge, and why; ``run`` is the trained run, where there is one."""

    train: bool
    judge: bool
    reason: str
    run: RunFact | None = None


def plan(ctx: Context, *, default_runner: str = "") -> Report:
    """Plan the jobs for what lies here; changes nothing.

    ``default_runner``: labels, separated by commas, for models whose class platform.yaml does not know. Raises
    InputError for a model.yaml that is wrong and OutsideError when MLflow or GitHub does not answer.
    """
    from mlp_ci.github import platform_of
    from mlp_ci.tracking import connect

    spec = load_model(ctx.repo)
    if ctx.backend:  # what is said for this one time wins over the file
        spec = spec.model_copy(update={"train": spec.train.model_copy(update={"backend": ctx.backend})})
    platform = platform_of(ctx)
    key = train_key(ctx, spec)
    tracking = connect(ctx, platform)
    fallback = default_machine(platform, default_runner)
    training, findings = machine_for(spec.train.runner, platform, fallback, "train.runner")
    judging, more = judging_machine(spec, platform, fallback, training)
    past = _past(tracking, spec, key)
    decision = decide(spec, key, past, lambda: _changed(ctx))
    findings += [*more, *limits(spec, training)]
    machines = Machines(training=training, judging=judging, job=fallback if _goes_away(spec) else training)
    return _report(spec, key, decision, machines, (findings, past))


# ---------------------------------------------------------------- machines


def default_machine(platform: PlatformSpec, labels: str) -> Machine:
    """The class ``default`` of platform.yaml, else the labels of the repository's variable, else GitHub's own."""
    if DEFAULT in platform.runners:
        return Machine(name=DEFAULT, about=platform.runners[DEFAULT])
    given = tuple(part.strip() for part in labels.split(",") if part.strip())
    return Machine(name=DEFAULT, about=RunnerClass(labels=given or HOSTED))  # type: ignore[call-arg]


def machine_for(
    wanted: str | tuple[str, ...], platform: PlatformSpec, fallback: Machine, where: str
) -> tuple[Machine, list[Finding]]:
    """The machine of a runner class, or of the class that has exactly these labels; else the default, and why."""
    if wanted == DEFAULT or (not isinstance(wanted, str) and set(wanted) == set(fallback.about.labels)):
        return fallback, []
    name = platform.class_called(wanted)
    if name is not None:
        return Machine(name=name, about=platform.runners[name]), []
    shown = wanted if isinstance(wanted, str) else f"[{', '.join(wanted)}]"
    known = ", ".join(platform.runners) or "none that can be read here"
    what = "is no runner class" if isinstance(wanted, str) else "are the labels of no runner class"
    finding = Finding(
        check="runner",
        subject=f"{where}: {shown}",
        outcome=Outcome.FAIL,
        severity="warning",
        message=f"{shown} {what} of platform.yaml ({known}); the default runs it: {', '.join(fallback.about.labels)}",
        fix=f"add it to platform.yaml: `runners: {{{_as_name(wanted)}: {{labels: [...], usd_per_hour: ...}}}}`; labels "
        "in model.yaml alone choose no machine, for a pull request can change them",
        file=MODEL_FILE,
    )
    return fallback, [finding]


def _goes_away(spec: ModelSpec) -> bool:
    return spec.train.backend in ELSEWHERE


def _as_name(wanted: str | tuple[str, ...]) -> str:
    return wanted if isinstance(wanted, str) else wanted[-1].lower()


def judging_machine(
    spec: ModelSpec, platform: PlatformSpec, fallback: Machine, training: Machine
) -> tuple[Machine, list[Finding]]:
    """Where the model is judged. An inherited environment is only there where the model was trained."""
    if spec.evaluate.runner == DEFAULT and spec.train.environment.kind == "inherit":
        return training, []
    return machine_for(spec.evaluate.runner, platform, fallback, "evaluate.runner")


def limits(spec: ModelSpec, machine: Machine) -> list[Finding]:
    """What the model asks for and its class does not have."""
    found = []
    longest, wanted = machine.about.timeout, spec.train.resources.gpus or 0
    if longest is not None and spec.train.timeout > longest:
        message = (
            f"train.timeout is {show_duration(spec.train.timeout)}, and class {machine.name} ends every job after "
        )
        message += show_duration(longest)
        fix = "take another class, or rely on checkpoints: the same key goes on where it was cut off"
        found.append(_warning("timeout", message, fix))
    if wanted > machine.about.gpus and not _goes_away(spec):
        message = f"the model asks for {wanted} GPUs, and class {machine.name} has {machine.about.gpus}"
        found.append(_warning("gpus", message, "take a class with as many, or ask for fewer in train.resources.gpus"))
    return found


def _warning(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, severity="warning", message=message, fix=fix, file=MODEL_FILE)


# ---------------------------------------------------------------- what is to be done


def decide(
    spec: ModelSpec, key: TrainKey, past: Past, changed: Callable[[], tuple[str, tuple[str, ...]] | None]
) -> Decision:
    """Whether to train and judge.

    ``changed`` gives the event (push or pull_request) and the files it changed; None where that is not known.
    """
    run = past.run
    if run is not None and run.trained and _same_machine(spec, run):
        return Decision(
            train=False, judge=True, reason=f"this train key is trained already (run {run.run_id})", run=run
        )
    said = changed()
    if said is not None and said[1] and all(has_no_effect(path) and path != MODEL_FILE for path in said[1]):
        shown = ", ".join(said[1][:3]) + (f" and {len(said[1]) - 3} more" if len(said[1]) > 3 else "")
        reason = f"nothing that makes or judges a model changed, only {shown}"
        # After a push somebody has to train; only while another job does, this one has nothing to do.
        if said[0] == "pull_request":
            return Decision(train=False, judge=False, reason=reason)
        if past.busy:
            return Decision(train=False, judge=False, reason=f"{reason}; another job trains this key now")
    return Decision(train=True, judge=True, reason=_why(key, past))


def _why(key: TrainKey, past: Past) -> str:
    if past.run is not None and not past.run.trained:
        return f"run {past.run.run_id} of this key is not finished; it goes on"
    if past.run is not None:
        return "this key was trained on another runner class, and the environment is what a machine has"
    if not past.earlier:
        return "the first training of this model"
    parts = json.loads(past.earlier[-1].tags.get("mlp.key_parts") or "{}") or {}
    differ = ", ".join(key.changed_since(parts)) or "nothing that the key shows"
    return f"since the newest run these changed: {differ}"


def _same_machine(spec: ModelSpec, run: RunFact) -> bool:
    """Whether the training job would have this key too.

    The key of an inherited environment holds the packages of the machine that computes it, here of the one that plans.
    That a run of this class has it shows that both have the same.
    """
    runner = spec.train.runner if isinstance(spec.train.runner, str) else ",".join(spec.train.runner)
    return spec.train.environment.kind != "inherit" or run.tags.get("mlp.runner") == runner


def _changed(ctx: Context) -> tuple[str, tuple[str, ...]] | None:
    """The event's name and the files it changes, by GitHub; None outside a job, or where that cannot be said."""
    place = ctx.github
    if place is None or not ctx.in_job or not place.token:
        return None
    pull = place.event.get("pull_request")
    if pull:
        base, head = str(pull["base"]["sha"]), str(pull["head"]["sha"])
    else:
        base, head = str(place.event.get("before") or ""), str(place.event.get("after") or "")
    if not (base.strip("0") and head.strip("0")):
        return None
    from mlp_ci.github import connect

    try:
        return place.event_name, connect(place).changed_between(base, head)
    except MlpError:  # a commit that a forced push took away: then it is trained
        return None


# ---------------------------------------------------------------- time and money


def _past(tracking: Tracking, spec: ModelSpec, key: TrainKey) -> Past:
    now = clock.now()
    earlier = tracking.runs(spec.name, now - LOOK_BACK, now + timedelta(minutes=1))
    run = tracking.find_run(spec.name, key.digest)
    return Past(run=run, busy=run is not None and Leases(tracking, "").held_by_another(run), earlier=earlier)


def job_minutes(spec: ModelSpec, machine: Machine) -> int:
    """`timeout-minutes` of a training job: long enough for `train.timeout` to come first, not longer than the class."""
    needed = spec.train.timeout
    sweep = spec.train.sweep
    if sweep is not None:
        # The training job does by itself what the jobs of the matrix left undone, then trains the best.
        trials = spec.train.timeout * math.ceil(sweep.trials / sweep.jobs)
        needed += min(sweep.time or trials, trials)
    allowed = min(needed + MARGIN, machine.about.timeout or LONGEST, LONGEST)
    return max(1, math.ceil(allowed.total_seconds() / 60))


def seconds_so_far(spec: ModelSpec, earlier: Sequence[RunFact]) -> list[float]:
    """How long earlier trainings took on the same class, all attempts together."""
    runner = spec.train.runner if isinstance(spec.train.runner, str) else ",".join(spec.train.runner)
    found = []
    for run in earlier:
        text = run.tags.get("mlp.train_seconds", "")
        if run.trained and run.tags.get("mlp.runner") == runner and text.replace(".", "", 1).isdigit():
            found.append(float(text))
    return found


def price(spec: ModelSpec, machine: Machine, earlier: Sequence[RunFact]) -> tuple[float | None, str]:
    """What this training will probably cost in USD (None where nothing says so), and how that is known."""
    rate = machine.about.usd_per_hour
    if not rate:
        return None, f"class {machine.name} has no price"
    sweep = spec.train.sweep
    if sweep is not None:
        if sweep.budget_usd is not None:
            return sweep.budget_usd, f"at most ${sweep.budget_usd:,.2f}, the budget of the sweep, and one training"
        return None, "a sweep without budget_usd costs what its trials take"
    known = seconds_so_far(spec, earlier)
    if not known:
        worst = spec.train.timeout.total_seconds() / 3600 * rate
        return None, f"no earlier training on {machine.name} to go by; at most ${worst:,.2f} (train.timeout)"
    middle = median(known)
    plural = "s" if len(known) > 1 else ""
    shown = show_duration(timedelta(seconds=max(1, round(middle))))
    usd = middle / 3600 * rate
    return usd, f"about ${usd:,.4f}: {shown} (median of {len(known)} earlier training{plural}) at ${rate:,.2f} an hour"


# ---------------------------------------------------------------- report


def _report(
    spec: ModelSpec,
    key: TrainKey,
    decision: Decision,
    machines: Machines,
    seen: tuple[Sequence[Finding], Past],
) -> Report:
    findings, past = seen
    training, judging = machines.training, machines.judging
    usd, words = price(spec, training, past.earlier)
    jobs = spec.train.sweep.jobs if spec.train.sweep else 1
    minutes = job_minutes(spec, training)
    gpus = 0 if _goes_away(spec) else spec.train.resources.gpus or training.about.gpus
    headline = f"{spec.name}: train on {training.name}" if decision.train else f"{spec.name}: nothing to train"
    report = Report(command="plan", headline=f"{headline}: {decision.reason}")
    outcome = Outcome.PASS if decision.train else Outcome.SKIP
    report.findings = [Finding(check="train", outcome=outcome, message=decision.reason), *findings]
    report.outputs = {
        "train": str(decision.train).lower(),
        "judge": str(decision.judge).lower(),
        "sweep": str(decision.train and jobs > 1).lower(),
        "reason": decision.reason,
        "runs-on": json.dumps(list(machines.job.about.labels)),
        "judge-runs-on": json.dumps(list(judging.about.labels)),
        "timeout-minutes": str(minutes),
        "gpus": str(gpus),
        "matrix": json.dumps({"job": list(range(1, jobs + 1)), "of": [jobs]}),
        "estimated-usd": "" if usd is None or not decision.train else f"{usd:.4f}",
        "train-key": key.digest,
        "run-id": decision.run.run_id if decision.run else "",
    }
    where = f"; {spec.train.backend} does the work, this job follows it" if _goes_away(spec) else ""
    spot = ", may be taken away at any time" if training.about.spot else ""
    labels = ", ".join(machines.job.about.labels)
    facts = {
        "train key": key.digest[:16],
        "training": f"{training.name}: {labels}{spot}{where}" if decision.train else "skipped",
        "jobs of the sweep": jobs if jobs > 1 and decision.train else None,
        "GPUs": gpus if decision.train else None,
        "ends at the latest after": f"{minutes} minutes" if decision.train else None,
        "cost": words if decision.train else "nothing",
        "judging": f"{judging.name}: {', '.join(judging.about.labels)}" if decision.judge else "skipped",
    }
    rows = tuple((name, value) for name, value in facts.items() if value is not None)
    report.tables = [Table(title="", columns=("what", "value"), rows=rows)]
    report.data = {**report.outputs, "machine": training.name, "spot": training.about.spot, "cost": words}
    return report
