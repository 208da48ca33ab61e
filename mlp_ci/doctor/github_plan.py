"""What ``--fix`` would do: the requests that make the settings right. It adds and tightens; it never loosens.

Rules go into one ruleset of ours per branch. What others have set up stays: their rulesets, classic protection, and in
our own ruleset every rule that is not ours. What is taken away there are exceptions, for people and for apps alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.doctor import github_actions, github_branches
from mlp_ci.doctor.settings import RECORDS_RULESET, RULESET, Change
from mlp_ci.github.wire import repository_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.doctor.settings import Branch, Line, Rules, Settings


def compare(settings: Settings) -> list[Line]:
    """Every setting that the policy relies on, as it is and as it should be."""
    lines = github_branches.default_branch(settings)
    if not settings.is_policy:
        lines += github_branches.records_branch(settings)
        lines += github_branches.policy_branch(settings)
    lines += [*github_actions.jobs(settings), *github_actions.forks(settings)]
    if not settings.is_policy:
        lines += [*github_actions.environments(settings), *github_actions.runners(settings)]
    return lines


def plan(settings: Settings, lines: Sequence[Line]) -> list[Change]:
    """The requests that mend the lines that can be mended, in the order they are made."""
    changes = []
    for branch, name in ((settings.branch, RULESET), (settings.records, RECORDS_RULESET)):
        wanted: dict[str, Mapping[str, Any]] = {}
        for line in lines:
            if line.branch == branch.name:
                wanted = _together(wanted, line.rules)
        if wanted:
            changes.append(_ruleset(settings, branch, name, wanted))
    return [*changes, *(change for line in lines for change in line.changes)]


def _ruleset(settings: Settings, branch: Branch, name: str, wanted: Rules) -> Change:
    now = settings.own.get(name)
    ref = "~DEFAULT_BRANCH" if branch is settings.branch else f"refs/heads/{branch.name}"
    names = {kind: kind.replace("_", " ").replace("non fast forward", "no force push") for kind in wanted}
    path = (settings.owner, settings.name, "rulesets")
    body: dict[str, Any] = {"name": name, "target": "branch", "enforcement": "active", "bypass_actors": []}
    if now is None:
        body |= {"conditions": {"ref_name": {"include": [ref], "exclude": []}}, "rules": _listed(wanted)}
        says = f'make the ruleset "{name}" for {branch.name}: {", ".join(names.values())}'
        return Change(verb="POST", path=repository_path(*path), body=body, says=says, once="")
    body |= {"conditions": _covering(now.get("conditions") or {}, ref, branch.name)}
    body |= {"rules": _listed(_together(_by_type(now.get("rules") or []), wanted))}
    told = [", ".join(names.values())]
    told += ["nobody may pass it by"] if now.get("bypass_actors") else []
    told += ["switched on"] if now.get("enforcement") != "active" else []
    says = f'tighten the ruleset "{name}" for {branch.name}: {"; ".join(told)}'
    return Change(verb="PUT", path=repository_path(*path, int(now["id"])), body=body, says=says)


def _covering(conditions: Mapping[str, Any], ref: str, branch: str) -> dict[str, Any]:
    """The conditions of a ruleset with ``ref`` among what they name, and its branch not among what they leave out."""
    names = conditions.get("ref_name") or {}
    include = list(dict.fromkeys([*(names.get("include") or []), ref]))
    exclude = [pattern for pattern in names.get("exclude") or [] if pattern not in (ref, f"refs/heads/{branch}")]
    return {**conditions, "ref_name": {"include": include, "exclude": exclude}}


def _by_type(rules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(rule["type"]): rule.get("parameters") or {} for rule in rules}


def _listed(rules: Rules) -> list[dict[str, Any]]:
    return [{"type": kind, **({"parameters": dict(given)} if given else {})} for kind, given in rules.items()]


def _together(one: Rules, other: Rules) -> dict[str, Mapping[str, Any]]:
    """Both sets of rules at once: of each parameter the stricter one."""
    kinds = dict.fromkeys([*one, *other])
    return {kind: _stricter(one.get(kind) or {}, other.get(kind) or {}) for kind in kinds}


def _stricter(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(one)
    for name, value in other.items():
        have = one.get(name)
        if name == "required_status_checks":
            found[name] = _checks([*(have or []), *value])
        elif isinstance(value, bool):
            found[name] = bool(have) or value
        elif isinstance(value, int):
            found[name] = max(int(have or 0), value)
        else:
            found[name] = value if have is None else have
    return found


def _checks(checks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each context once, bound to an app if any of them says so; the first binding stays."""
    found: dict[str, dict[str, Any]] = {}
    for check in checks:
        known = found.setdefault(str(check["context"]), {"context": check["context"]})
        number = known.get("integration_id") or check.get("integration_id")
        if number is not None:
            known["integration_id"] = number
    return list(found.values())
