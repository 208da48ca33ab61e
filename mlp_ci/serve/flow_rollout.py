"""``mlp-ci rollout``: how the rollouts of a model go, and a person's word in them. The next deploy follows it.

Pausing, resuming and promoting are notes on the target, which a running deploy reads within a second or two; aborting
is a rollback. Whether a version may be deployed at all was decided before; this is about its pace alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.errors import InputError, NothingToDo, RolloutAborted
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve.flow_rollback import roll_back
from mlp_ci.serve.rollout import standing, steps
from mlp_ci.serve.rollout.progress import Phase, Progress
from mlp_ci.serve.state import Place
from mlp_ci.serve.targets import target_here
from mlp_ci.spec import load_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.serve.targets import Target
    from mlp_ci.serve.telling.facts import Facts
    from mlp_ci.spec import ModelSpec, PromotionSpec

TRIES = 10  # a deploy that watches writes down what it sees: ask again


def facts(ctx: Context, stage: str | None) -> list[Facts]:
    """What is known of every stage (or one) where something runs or ran here."""
    model, target = _opened(ctx)
    stages = [stage] if stage else _stages(target, Place(ctx.serve_home, model.name, ""))
    now, rollout = clock.now(), model.serve.rollout
    return [standing.facts(target, Place(ctx.serve_home, model.name, name), rollout, now) for name in stages]


def status(ctx: Context, stage: str | None, html: Path | None = None) -> Report:
    """Where the rollouts stand; ``html`` also gets a page of the one that is under way, else of the newest."""
    from mlp_ci.serve.telling import page
    from mlp_ci.serve.telling import status as telling

    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        what = "is a folder" if html.is_dir() else f"cannot be written: there is no folder {html.absolute().parent}"
        msg = f"--html: {html} {what}"
        raise InputError(msg, fix="name a file in a folder that is there")
    found = facts(ctx, stage)
    report = telling.report(found)
    if html is not None:
        shown = [f for f in found if f.progress]
        if not shown:
            msg = "no rollout is known here, so there is nothing to draw"
            raise NothingToDo(msg, fix="leave `--html` out")
        chosen = max(shown, key=lambda f: (f.progress.going, f.progress.started) if f.progress else (False, ""))
        html.write_text(page.page(chosen), encoding="utf-8")
        report.links.append(("page", str(html)))
    return report


def pause(ctx: Context, stage: str, reason: str) -> Report:
    """Leave the traffic as it is until a person says otherwise; harm still ends the rollout."""
    by = _login(ctx)

    def change(progress: Progress) -> Progress:
        if progress.phase is Phase.PAUSED:
            msg = f"the rollout of version {progress.version} in {stage} is paused already: {progress.why}"
            raise NothingToDo(msg)
        return steps.paused(progress, reason or "a person paused it", by)

    said = "traffic stays as it is until `mlp-ci rollout resume`; a failing version is still taken away"
    return _noted(ctx, stage, "pause", change, said)


def resume(ctx: Context, stage: str) -> Report:
    """Go on where it stands; the step may wait for its data as long again."""

    def change(progress: Progress) -> Progress:
        if progress.phase is not Phase.PAUSED:
            msg = f"the rollout of version {progress.version} in {stage} is not paused"
            raise NothingToDo(msg, fix=f"`mlp-ci rollout status --stage {stage}` says what it waits for")
        return steps.resumed(progress, clock.now())

    return _noted(ctx, stage, "resume", change, "it goes on where it stood with the next `mlp-ci deploy`")


def promote(ctx: Context, stage: str) -> Report:
    """Give the version all traffic without the steps that are left, at the next deploy."""
    by = _login(ctx)

    def change(progress: Progress) -> Progress:
        if progress.ready:
            msg = f"version {progress.version} is to get all traffic of {stage} already"
            raise NothingToDo(msg, fix="`mlp-ci deploy` gives it")
        return replace(progress, ready=True, by=by, phase=Phase.RUNNING, why="")

    said = "the next `mlp-ci deploy` gives it all traffic, unless it fails before"
    return _noted(ctx, stage, "promote", change, said)


def abort(ctx: Context, stage: str, reason: str) -> Report:
    """Take the new version away: all traffic back at once, git told, its bytes quarantined."""
    model, target = _opened(ctx)
    place = Place(ctx.serve_home, model.name, stage)
    progress = _going(target, place)
    if all(a.version != progress.version for a in target.arms(place)):
        ended = replace(progress, phase=Phase.ABORTED, why=reason or "a person ended it", by=_login(ctx))
        target.keep(place, ended, progress)
        message = f"version {progress.version} had no traffic yet, so nothing was quarantined"
        again = "git still asks for it, and the next deploy begins anew: take it out of promotion.yaml"
        return _report(place, "abort", f"{message}; {again}", target.progress(place))
    why = reason or f"the rollout was ended at {progress.weight} % by a person"
    report = roll_back(ctx, place, target, to=str(progress.stable), reason=why)
    report.command = "rollout abort"
    report.outputs["rollout"] = Phase.ABORTED.value
    return report


def retry(ctx: Context, stage: str) -> Report:
    """Let the next deploy begin the rollout of a version anew that was aborted here."""
    model, target = _opened(ctx)
    place = Place(ctx.serve_home, model.name, stage)
    progress = target.progress(place)
    if progress is None or progress.phase is not Phase.ABORTED:
        msg = f"no rollout was aborted in {stage}"
        raise NothingToDo(msg, fix="mlp-ci rollout status")
    if any("git" in r.left for r in target.unfinished(place) if r.held.digest == progress.digest):
        msg = f"git was not told yet that version {progress.version} was taken away from {stage}"
        raise InputError(msg, fix=f"`mlp-ci rollback --stage {stage}` tells it; then lift the quarantine there")
    asked = _asked(ctx, model)
    if progress.digest in {q.digest for q in asked.quarantine}:
        msg = f"version {progress.version} is quarantined in promotion.yaml, so no deploy may take it"
        why = "git says what may run; whoever lifts the quarantine there answers for it"
        fix = f"take it out of `quarantine` by a pull request, then `mlp-ci promote {stage}`: its rollout begins anew"
        raise InputError(msg, why=why, fix=fix)
    target.acknowledge(place, progress.digest)
    return _report(place, "retry", "the next `mlp-ci deploy` begins its rollout anew, if git asks for it", progress)


def steer(ctx: Context, action: str, stage: str, reason: str) -> Report:
    """Do what is called ``action``; InputError for anything else."""
    known: dict[str, Callable[[], Report]] = {
        "pause": lambda: pause(ctx, stage, reason),
        "resume": lambda: resume(ctx, stage),
        "promote": lambda: promote(ctx, stage),
        "abort": lambda: abort(ctx, stage, reason),
        "retry": lambda: retry(ctx, stage),
    }
    if action not in known:
        msg = f"{action!r} is nothing that can be done with a rollout"
        raise InputError(msg, fix=f"one of {', '.join(known)}")
    return known[action]()


# ---------------------------------------------------------------- parts


def _opened(ctx: Context) -> tuple[ModelSpec, Target]:
    """The model as it is checked out here, and its target."""
    model = load_model(ctx.repo)
    return model, target_here(ctx, model)


def _going(target: Target, place: Place) -> Progress:
    progress = target.progress(place)
    if progress is None or not progress.going:
        msg = f"no rollout is under way for {place}"
        fix = f"`mlp-ci rollout status` says what is; `mlp-ci rollback --stage {place.stage}` takes a version back"
        others = [stage for stage in _stages(target, place) if _runs(target, replace(place, stage=stage))]
        if others:
            msg, fix = f"{msg}, but one is in {' and '.join(others)}", f"say which is meant: --stage {others[0]}"
        raise NothingToDo(msg, fix=fix)
    return progress


def _stages(target: Target, place: Place) -> list[str]:
    """Where something runs or ran here."""
    return sorted({i.stage for i in target.history(place.home, place.model)})


def _runs(target: Target, place: Place) -> bool:
    progress = target.progress(place)
    return progress is not None and progress.going


def _noted(ctx: Context, stage: str, verb: str, change: Callable[[Progress], Progress], said: str) -> Report:
    """Change what the target keeps of the rollout; a deploy that watches may write at the same moment."""
    model, target = _opened(ctx)
    place = Place(ctx.serve_home, model.name, stage)
    for left in range(TRIES, 0, -1):
        progress = _going(target, place)
        try:
            target.keep(place, change(progress), progress)
            break
        except RolloutAborted:
            if left == 1:
                raise
    return _report(place, verb, said, target.progress(place))


def _report(place: Place, verb: str, said: str, progress: Progress | None) -> Report:
    version, phase = (progress.version, progress.phase.value) if progress else (0, "")
    finding = Finding(check="rollout", outcome=Outcome.PASS, subject=place.stage, message=said)
    return Report(
        command=f"rollout {verb}",
        headline=f"{place}: version {version}: {said}",
        findings=[finding],
        outputs={"rollout": phase},
        data={"stage": place.stage, "progress": progress.to_json() if progress else None},
    )


def _asked(ctx: Context, model: ModelSpec) -> PromotionSpec:
    """What git asks for: on the default branch where there is a GitHub, else here."""
    from mlp_ci.github import connect
    from mlp_ci.promote.files import promotion_at
    from mlp_ci.spec import load_promotion

    if ctx.github is None:
        return load_promotion(ctx.repo)
    hub = connect(ctx.require_github("looking for quarantines"))
    return promotion_at(hub, hub.head(hub.default_branch), model.name)


def _login(ctx: Context) -> str:
    return ctx.github.actor if ctx.github else ""
