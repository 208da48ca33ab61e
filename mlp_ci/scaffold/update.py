"""``mlp-ci init --update``: what changed in the template, merged into a repository that was made from it.

The template is rendered as it was (from git, by the state that ``.copier-answers.yml`` records) and as it is, and the
difference goes into the repository file by file, as git merges: what the team changed stays, and what both changed is
marked as a conflict. Copier's own update would need the template's repository within reach each time; this one needs
it only when the installation is not a clone.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.errors import InputError, NothingToDo, OutsideError
from mlp_ci.git import changed_files, is_repository, origin
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.scaffold.start import FIRST_COMMIT
from mlp_ci.scaffold.template import ANSWERS, Files, put, render, shipped, stamped, state, template_at

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Step:
    """What an update does to one file; ``content`` is None where it goes away."""

    what: str  # added | changed | removed | conflict
    content: bytes | None


def update(destination: Path) -> Report:
    """Merge what changed in the template since ``destination`` was made or last updated; commits nothing.

    Needs a clean working tree, so that `git diff` afterwards is the update. Raises InputError where there is nothing
    to update from, NothingToDo when the template did not change, OutsideError when its old state cannot be had.
    """
    recorded = _recorded(destination)
    answers = {k: v for k, v in recorded.items() if not k.startswith("_")}
    with tempfile.TemporaryDirectory(prefix="mlp-ci-update-") as scratch:
        then = template_at(str(recorded.get("_commit") or ""), Path(scratch), _sources(destination, recorded))
        old = render(then, answers)
    now = shipped("copier.yml").parent
    new = stamped(render(now, answers), state())
    kept = {ANSWERS, *yaml.safe_load((now / "copier.yml").read_text(encoding="utf-8"))["_skip_if_exists"]}
    steps = _plan(destination, _without(old, kept), _without(new, kept))
    if not steps:
        msg = f"{destination} has the newest template already"
        raise NothingToDo(msg)
    # The answers last: until they are written, the same update can be done again after `git checkout .`.
    for path, step in {**steps, ANSWERS: Step("changed", new[ANSWERS])}.items():
        if step.content is None:
            (destination / path).unlink()
        else:
            put(destination / path, step.content)
    return _update_report(destination, steps)


def _without(files: Files, kept: set[str]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if path not in kept}


def _recorded(destination: Path) -> dict[str, Any]:
    file = destination / ANSWERS
    if not file.is_file():
        msg = f"{destination} was not made by `mlp-ci init`: it has no {ANSWERS}"
        raise InputError(msg, fix=f"start one with `mlp-ci init {destination}`, or name the right folder")
    if not is_repository(destination):
        msg = f"{destination} is not in a git repository with a commit"
        why = "an update is a change that you look at with git before you keep it"
        fix = f"cd {destination} && git init && git add -A && git commit -m '{FIRST_COMMIT}'"
        raise InputError(msg, why=why, fix=fix)
    changed = changed_files(destination)
    if changed:
        msg = f"{destination} has changes that are not committed: {', '.join(changed[:5])}"
        why = "they could not be told from the changes of the update"
        raise InputError(msg, why=why, fix="commit or stash them, then update")
    try:
        recorded = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        msg = f"{file} cannot be read: {error}"
        raise InputError(msg, fix=f"git checkout the last good {ANSWERS}") from error
    if not isinstance(recorded, dict):
        msg = f"{file} holds no answers"
        raise InputError(msg, fix=f"git checkout the last good {ANSWERS}")
    return recorded


def _sources(destination: Path, recorded: Mapping[str, Any]) -> list[str]:
    """Where an older state of the template may be fetched, besides this checkout."""
    sources = [str(recorded.get("_src_path") or "")]
    remote = origin(destination)
    if remote is not None:
        sources.append(f"{remote[0]}/{str(recorded.get('platform_ref', '')).partition('@')[0]}")
    # Only what git calls https: an answers file must not make git read another file or run a helper.
    return [s for s in dict.fromkeys(sources) if s.startswith(("https://", "http://127.0.0.1:"))]


def _plan(destination: Path, old: Files, new: Files) -> dict[str, Step]:
    """What brings the change from ``old`` to ``new`` into the repository, by path."""
    steps: dict[str, Step] = {}
    for path in sorted({*old, *new}):
        file = destination / path
        mine = file.read_bytes() if file.is_file() else None
        before, after = old.get(path), new.get(path)
        if after in (before, mine):
            continue  # nothing new, or so already
        if mine == before:
            what = "added" if before is None else "removed" if after is None else "changed"
            steps[path] = Step(what, after)
        elif mine is not None and after is not None:
            content, conflict = _merge(mine, before or b"", after)
            if content != mine:
                steps[path] = Step("conflict" if conflict else "changed", content)
        # Else one side took the file away and the other changed it: the team's side stands.
    return steps


def _merge(mine: bytes, before: bytes, after: bytes) -> tuple[bytes, bool]:
    """Three-way merge of one file, by git; whether it holds conflict markers."""
    with tempfile.TemporaryDirectory(prefix="mlp-ci-merge-") as scratch:
        names = {"yours": mine, "template before": before, "template now": after}
        for name, content in names.items():
            (Path(scratch) / name).write_bytes(content)
        labels = [part for name in names for part in ("-L", name)]
        done = subprocess.run(
            ["git", "merge-file", "-p", *labels, *names], cwd=scratch, capture_output=True, check=False
        )
    if done.returncode < 0 or done.returncode > 127:
        msg = f"git could not merge: {done.stderr.decode(errors='replace').strip()}"
        raise OutsideError(msg, fix="mend what git says and run again")
    return done.stdout, done.returncode > 0


def _update_report(destination: Path, steps: Mapping[str, Step]) -> Report:
    conflicts = [path for path, step in steps.items() if step.what == "conflict"]
    findings = [
        Finding(check="update", outcome=Outcome.PASS, subject=path, message=step.what)
        for path, step in steps.items()
        if path not in conflicts
    ]
    findings += [
        Finding(
            check="update",
            outcome=Outcome.FAIL,
            subject=path,
            file=path,
            message="you and the template changed the same lines",
            fix=f"open {path}, keep what is right between <<<<<<< and >>>>>>>, and commit",
        )
        for path in conflicts
    ]
    changed = f"{len(steps)} file{'s' if len(steps) != 1 else ''} brought up to the newest template"
    rest = f", {len(conflicts)} with conflicts to solve" if conflicts else "; look with `git diff`, then commit"
    return Report(
        command="init",
        headline=changed + rest,
        outcome=Outcome.FAIL if conflicts else Outcome.PASS,
        findings=findings,
        data={"path": str(destination.resolve()), "files": {path: step.what for path, step in steps.items()}},
    )
