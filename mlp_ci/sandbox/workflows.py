"""Workflow files: which of them an event starts, by GitHub's rules, and what is known of a run before its jobs start.

Reference: docs.github.com, "Workflow syntax" (on.<event>.branches|tags|paths|types) and "Events that trigger
workflows". Only reads; git is asked by the caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import yaml

from mlp_ci.errors import InputError
from mlp_ci.sandbox import expressions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

DEFAULT_TYPES = {
    "pull_request": ("opened", "synchronize", "reopened"),
    "pull_request_target": ("opened", "synchronize", "reopened"),
}
SCOPES = (
    *("actions", "checks", "contents", "deployments", "discussions", "id-token", "issues", "packages", "pages"),
    *("pull-requests", "repository-projects", "security-events", "statuses"),
)
HOSTED_LABELS = ("ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04", "self-hosted", "linux", "x64")
HOSTED, DECIDED_LATER = "hosted", "decided by an earlier job"
LONGEST_MINUTES = 360.0  # GitHub's own limit
_INSIDE = re.compile(r"\b(needs|matrix|strategy)\b")
_SKIP = re.compile(r"\[(?:skip ci|ci skip|no ci|skip actions|actions skip)\]|^skip-checks: ?true$", re.MULTILINE)


@dataclass(frozen=True)
class Job:
    """A job as the file declares it; everything may still hold expressions."""

    id: str
    name: str
    needs: tuple[str, ...]
    runs_on: Any
    timeout_minutes: Any
    outputs: Mapping[str, str]
    concurrency: Mapping[str, Any]


@dataclass(frozen=True)
class Workflow:
    """A parsed workflow file. ``permissions`` is the union over its jobs, None where the file says nothing."""

    path: str
    name: str
    run_name: str
    on: Mapping[str, Any]
    concurrency: Mapping[str, Any]
    permissions: Mapping[str, str] | None
    jobs: tuple[Job, ...]


@dataclass(frozen=True)
class Trigger:
    """What of an event decides whether a workflow starts.

    ``ref`` is the pushed ref, or the base branch's of a pull request; ``paths`` are the files changed; ``cron`` is the
    line of the schedule that is due, ``workflow`` the file that was dispatched; empty where they do not apply.
    """

    event: str
    action: str
    ref: str
    paths: Sequence[str]
    cron: str = ""
    workflow: str = ""
    message: str = ""


def parse(path: str, text: str) -> Workflow:
    """Read a workflow file; InputError if it is not one."""
    try:
        loaded = yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        what = f"{path} is not readable YAML: {error}"
        raise InputError(what, why="no run can start from it", fix="mend the place the message names") from error
    if not isinstance(loaded, dict) or not isinstance(loaded.get("jobs"), dict) or not loaded.get("on"):
        what = f"{path} has no `on` or no `jobs`"
        raise InputError(
            what, why="a workflow names what starts it and what it does", fix="add both, or remove the file"
        )
    concurrency = loaded.get("concurrency") or {}
    return Workflow(
        path=path,
        name=str(loaded.get("name") or path),
        run_name=str(loaded.get("run-name") or ""),
        on=_triggers(loaded["on"]),
        concurrency={"group": concurrency} if isinstance(concurrency, str) else concurrency,
        permissions=_permissions(loaded),
        jobs=tuple(_job(id, job) for id, job in loaded["jobs"].items() if isinstance(job, dict)),
    )


def starts(workflow: Workflow, trigger: Trigger) -> bool:
    """Whether ``trigger`` starts ``workflow``."""
    if trigger.event not in workflow.on:
        return False
    wanted = workflow.on[trigger.event]
    if trigger.event == "workflow_dispatch":
        return not trigger.workflow or workflow.path in (trigger.workflow, f".github/workflows/{trigger.workflow}")
    if trigger.event == "schedule":
        return not trigger.cron or any(row.get("cron") == trigger.cron for row in wanted or [])
    if trigger.event in ("push", "pull_request") and _SKIP.search(trigger.message):
        return False
    filters = wanted if isinstance(wanted, dict) else {}
    types = filters.get("types") or DEFAULT_TYPES.get(trigger.event)
    if types and trigger.action and trigger.action not in _listed(types):
        return False
    return _ref_matches(filters, trigger) and _paths_match(filters, trigger)


def machines(workflow: Workflow, contexts: Mapping[str, Any]) -> frozenset[str]:
    """What a run occupies: the runners of its own that its jobs name, or else one of GitHub's, of which many can run.

    Jobs whose labels an earlier job decides occupy the runner for those.
    """
    found = set()
    for job in workflow.jobs:
        own = [label for label in runs_on(job, contexts) if label not in HOSTED_LABELS]
        found |= {",".join(sorted(own))} if own else set()
        found |= {DECIDED_LATER} if not knowable(str(job.runs_on), contexts) else set()
    return frozenset(found or {HOSTED})


def matches(patterns: Iterable[str], value: str) -> bool:
    """Whether ``value`` passes GitHub's list of patterns: the last one that matches decides, ``!`` takes out again."""
    passed = False
    for pattern in patterns:
        negative = pattern.startswith("!")
        if _regex(pattern.removeprefix("!")).fullmatch(value):
            passed = not negative
    return passed


def labels(workflow: Workflow, contexts: Mapping[str, Any], known: Iterable[str] = ()) -> list[str]:
    """Every runner label the jobs ask for, and those that exist: on one machine every label is this machine.

    ``known`` are those of the organisation's runners, for jobs whose labels an earlier job decides.
    """
    found = [*HOSTED_LABELS, *known]
    for job in workflow.jobs:
        found += runs_on(job, contexts)
    return list(dict.fromkeys(found))


def runs_on(job: Job, contexts: Mapping[str, Any]) -> list[str]:
    """The labels of one job; an expression over what only the run can say (`needs`, `matrix`) gives none."""
    wanted = job.runs_on.get("labels", []) if isinstance(job.runs_on, dict) else job.runs_on
    found: list[str] = []
    for entry in wanted if isinstance(wanted, list) else [wanted]:
        if not knowable(str(entry), contexts):
            continue
        value = expressions.substitute(str(entry), contexts)
        found += [expressions.as_text(item) for item in (value if isinstance(value, list) else [value])]
    return [label for label in found if label]


class Loader(yaml.SafeLoader):
    """YAML 1.2 booleans, as on GitHub: ``on`` is a word."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if tag != "tag:yaml.org,2002:bool"]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def _triggers(on: Any) -> dict[str, Any]:
    if isinstance(on, dict):
        return {str(event): filters for event, filters in on.items()}
    return dict.fromkeys(_listed(on))


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def _job(id: str, job: Mapping[str, Any]) -> Job:
    concurrency = job.get("concurrency") or {}
    return Job(
        id=id,
        name=str(job.get("name") or id),
        needs=tuple(_listed(job["needs"])) if job.get("needs") else (),
        runs_on=job.get("runs-on", []),
        timeout_minutes=job.get("timeout-minutes", LONGEST_MINUTES),
        outputs={str(name): str(value) for name, value in (job.get("outputs") or {}).items()},
        concurrency={"group": concurrency} if isinstance(concurrency, str) else concurrency,
    )


def minutes(job: Job, contexts: Mapping[str, Any]) -> float:
    """The job's time limit, as far as it can be said."""
    given = job.timeout_minutes
    if isinstance(given, str) and knowable(given, contexts):
        given = expressions.substitute(given, contexts)
    try:
        return float(given)
    except (TypeError, ValueError):
        return LONGEST_MINUTES


def knowable(text: str, contexts: Mapping[str, Any]) -> bool:
    """Whether an expression speaks of nothing that only the run itself can say."""
    return "${{" not in text or all(name in contexts for name in _INSIDE.findall(text))


def concurrency_of(declared: Mapping[str, Any], contexts: Mapping[str, Any]) -> tuple[str, bool]:
    """The group (empty without one) and whether a newer one cancels what is in progress."""
    group = expressions.as_text(expressions.substitute(str(declared.get("group", "")), contexts))
    cancels = declared.get("cancel-in-progress", False)
    if isinstance(cancels, str):
        cancels = expressions.truthy(expressions.substitute(cancels, contexts))
    return group, bool(cancels)


def _permissions(workflow: Mapping[str, Any]) -> dict[str, str] | None:
    """The union of what the jobs ask for; a job without its own list has the workflow's."""
    rank = {"none": 0, "read": 1, "write": 2}
    union: dict[str, str] | None = None
    for job in workflow["jobs"].values():
        own = job.get("permissions") if isinstance(job, dict) else None
        own = workflow.get("permissions") if own is None else own
        if own in ("read-all", "write-all"):
            own = dict.fromkeys(SCOPES, own.removesuffix("-all"))
        if not isinstance(own, dict):
            continue
        union = union or {}
        for scope, level in own.items():
            if rank.get(str(level), 0) >= rank.get(union.get(scope, "none"), 0):
                union[scope] = str(level)
    return union


def _ref_matches(filters: Mapping[str, Any], trigger: Trigger) -> bool:
    kind, _, name = trigger.ref.removeprefix("refs/").partition("/")
    mine, other = ("tags", "branches") if kind == "tags" else ("branches", "tags")
    if filters.get(mine) is not None:
        return matches(_listed(filters[mine]), name)
    if filters.get(f"{mine}-ignore") is not None:
        return not matches(_listed(filters[f"{mine}-ignore"]), name)
    # A push filtered by tags only starts for no branch, and the other way round.
    named = filters.get(other) is not None or filters.get(f"{other}-ignore") is not None
    return not (named and trigger.event == "push")


def _paths_match(filters: Mapping[str, Any], trigger: Trigger) -> bool:
    if trigger.ref.startswith("refs/tags/"):
        return True
    if filters.get("paths") is not None:
        return any(matches(_listed(filters["paths"]), path) for path in trigger.paths)
    if filters.get("paths-ignore") is not None:
        return not all(matches(_listed(filters["paths-ignore"]), path) for path in trigger.paths)
    return True


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    """GitHub's patterns: ``*`` stops at a slash, ``**`` does not; ``?`` and ``+`` repeat the character before."""
    parts, at = [], 0
    while at < len(pattern):
        rest = pattern[at:]
        if rest.startswith("**/"):
            parts.append("(?:.*/)?")
            at += 3
        elif rest.startswith("**"):
            parts.append(".*")
            at += 2
        elif pattern[at] == "*":
            parts.append("[^/]*")
            at += 1
        elif pattern[at] in "?+":
            parts.append(pattern[at])
            at += 1
        elif (group := re.match(r"\[[A-Za-z0-9_.\-]+\]", rest)) is not None:
            parts.append(group[0])
            at += len(group[0])
        else:
            escaped = pattern[at] == "\\" and at + 1 < len(pattern)
            parts.append(re.escape(pattern[at + 1] if escaped else pattern[at]))
            at += 2 if escaped else 1
    try:
        return re.compile("".join(parts))
    except re.error as error:
        what = f"The pattern {pattern!r} of a workflow filter cannot be read: {error}"
        raise InputError(what, fix="see GitHub's filter pattern cheat sheet") from error
