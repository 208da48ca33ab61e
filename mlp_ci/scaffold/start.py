"""``mlp-ci init``: a new model repository from the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, NothingToDo, OutsideError
from mlp_ci.git import changed_files, git, is_repository
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.scaffold.template import ANSWERS, Files, files_of, put, render, shipped, stamped, state, toplevel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FIRST_COMMIT = "Start the model"
# What GitHub puts into a new repository. Once committed, they can be replaced without a loss.
GITHUBS_OWN = {"README.md", ".gitignore", "LICENSE"}


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What may be chosen for a new repository beside its name; the questions of copier.yml say what each means."""

    example: str = "flights"
    platform_ref: str = ""  # empty: <owner>/mlp-ci@v1
    runner: str = "default"
    remote: str = ""
    commit: bool = True  # start a git repository, if there is none, with a first commit


def init(destination: Path, *, name: str, team: str, owner: str, choices: Choices | None = None) -> Report:
    """Start a model repository in ``destination``: a new or empty folder, or a clone of a new repository.

    Raises InputError when the folder holds other files or an answer is not valid, and NothingToDo when it is a model
    repository already. A run that was cut off is finished by the next one.
    """
    wanted = choices or Choices()
    answers = {
        "name": name,
        "team": team,
        "owner": owner,
        "example": wanted.example,
        "platform_ref": wanted.platform_ref or f"{owner}/mlp-ci@v1",
        "runner": wanted.runner,
        "remote": wanted.remote,
    }
    files = stamped(render(shipped("copier.yml").parent, answers), state())
    replaced = _require_room(destination, files)
    done = _write(destination, files, replaced)
    notes = _start_git(destination) if wanted.commit else []
    if not done and not notes:
        msg = f"{destination} is this model's repository already"
        raise NothingToDo(msg, fix=f"`mlp-ci init --update {destination}` brings a newer template")
    return Report(
        command="init",
        headline=f"{name} is in {destination}: {len(files)} files",
        findings=[*notes, *_next_steps(destination, answers)],
        data={"path": str(destination.resolve()), "answers": answers, "files": sorted(files)},
    )


def _require_room(destination: Path, files: Files) -> set[str]:
    """Refuse to mix with what is there; files with just our content are a run of ours that was cut off.

    Returns the files that may be replaced: GitHub's own of a new repository, which git has.
    """
    if destination.exists() and not destination.is_dir():
        msg = f"{destination} is a file"
        raise InputError(msg, fix="name a new folder")
    if (destination / ANSWERS).is_file() and (destination / ANSWERS).read_bytes() != files[ANSWERS]:
        msg = f"{destination} is a model repository already"
        raise NothingToDo(msg, fix=f"`mlp-ci init --update {destination}` brings a newer template")
    there = files_of(destination)
    committed = set(GITHUBS_OWN) - set(_changed(destination))
    strange = sorted(path for path, content in there.items() if files.get(path) != content and path not in committed)
    if strange and ANSWERS not in there:
        shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more" if len(strange) > 5 else "")
        msg = f"{destination} is not empty: {shown}"
        why = "a new model repository would be mixed up with what is there"
        raise InputError(msg, why=why, fix="name a new folder, or move these files away and bring them back later")
    return committed if ANSWERS not in there else set()


def _changed(destination: Path) -> list[str]:
    """Of GitHub's own files, those that git does not have as they are."""
    if not destination.is_dir() or not is_repository(destination):
        return sorted(GITHUBS_OWN)
    return [path for path in changed_files(destination) if path in GITHUBS_OWN]


def _start_git(destination: Path) -> list[Finding]:
    """A repository with a first commit, if the folder lies in none; what was done, or why not."""
    if is_repository(destination):
        return []
    inside = (destination / ".git").exists()
    if not inside and toplevel(destination) is not None:
        return []  # a folder of a larger repository that has no commit yet: theirs to commit
    if not inside:
        git(destination, "init", "-q", "-b", "main")
    by_hand = f"cd {destination} && git add -A && git commit -m '{FIRST_COMMIT}'"
    if not _knows_author(destination):
        fix = f"git config --global user.name NAME && git config --global user.email ADDRESS && {by_hand}"
        return [_note("no commit yet: git does not know who you are", fix)]
    git(destination, "add", "-A")
    git(destination, "commit", "-q", "-m", FIRST_COMMIT)
    return [Finding(check="git", outcome=Outcome.PASS, message=f"git repository with a first commit, {FIRST_COMMIT!r}")]


def _knows_author(repo: Path) -> bool:
    try:
        return bool(git(repo, "config", "user.email"))
    except OutsideError:
        return False


def _note(message: str, fix: str) -> Finding:
    return Finding(check="git", outcome=Outcome.SKIP, message=message, fix=fix, severity="warning")


def _next_steps(destination: Path, answers: Mapping[str, str]) -> list[Finding]:
    """What is left to the team, each with its command; findings, because a command in a table would be wrapped."""
    suffix = "parquet" if answers["example"] == "flights" else "csv"
    steps = [("next: write the data", f"cd {destination} && python data/refresh.py")]
    if not answers["remote"]:
        steps.append(("then: say where the data lives", "dvc remote add --default storage ADDRESS"))
    steps += [
        ("then: keep the data", f"dvc add data/train.{suffix} data/test.{suffix} && dvc push"),
        ("then: publish", "git add -A && git commit -m 'Add the first data' && git push"),
    ]
    return [Finding(check="init", outcome=Outcome.SKIP, message=what, fix=command) for what, command in steps]


def _write(destination: Path, files: Files, replaced: set[str]) -> int:
    """Write what is missing, the answers last, so that a folder with answers is complete; returns how many."""
    missing = [path for path in files if path in replaced or not (destination / path).exists()]
    for path in sorted(missing, key=lambda p: p == ANSWERS):
        put(destination / path, files[path])
    return len(missing)
