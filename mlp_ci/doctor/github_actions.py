"""What the policy relies on beside branches: what jobs may do, what forks may, who may deploy, who uses the runners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.doctor.settings import Change, Line, Unseen, advice, passed, unseen
from mlp_ci.github.wire import repository_path
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlp_ci.doctor.settings import Environment, Settings

EVERYBODY_OUTSIDE = "all_external_contributors"
_ENVIRONMENT_WHY = "a workflow on a branch that anybody may push could name the environment and read its secrets"
# In private repositories → what the switch should be, where forks run workflows at all.
_FORK_SWITCHES = {
    "send_write_tokens_to_workflows": (False, "write tokens are sent"),
    "send_secrets_and_variables": (False, "secrets are sent"),
    "require_approval_for_fork_pr_workflows": (True, "no approval is asked"),
}
# Workflows that run on the default branch only, so that a group of runners can be kept to them.
STEADY = ("deploy", "rollback", "rollout", "monitor")


def jobs(settings: Settings) -> list[Line]:
    """Tokens of jobs, and whose actions they run."""
    return [_default_token(settings), _may_propose(settings), _allowed_actions(settings)]


def forks(settings: Settings) -> list[Line]:
    """What a pull request from outside may start."""
    setting = "pull requests from forks"
    why = "code from outside would run on your runners, with what they can reach, before anybody has read it"
    wanted = "wait for approval" if not settings.private else "start nothing, or wait and get no secrets"
    now = settings.forks
    if isinstance(now, Unseen):
        return [unseen(setting, now, wanted, why)]
    if settings.private:
        return [_private_forks(settings, now, setting, wanted, why)]
    policy = str(now.get("approval_policy", ""))
    if policy == EVERYBODY_OUTSIDE:
        return [passed(setting, wanted, wanted, why)]
    change = _put(
        settings, ("actions", "permissions", "fork-pr-contributor-approval"), {"approval_policy": EVERYBODY_OUTSIDE},
        "let workflows on pull requests of everybody outside wait for approval",
    )  # fmt: skip
    return [_mend(setting, f"only of {policy.replace('_', ' ')}", wanted, why, change)]


def environments(settings: Settings) -> list[Line]:
    """One per stage: only the default branch deploys to it."""
    if isinstance(settings.stages, Unseen):
        return [unseen("environments", settings.stages, f"{settings.branch.name} only", _ENVIRONMENT_WHY)]
    return [_environment(settings, stage, settings.environments.get(stage)) for stage in settings.stages]


def runners(settings: Settings) -> list[Line]:
    """The groups of self-hosted runners that this repository may use."""
    why = "anybody could fork a public repository and run code on these machines"
    found = settings.groups
    if found is None:
        return []
    if isinstance(found, Unseen):
        return [unseen("runner groups", found, "not open to public repositories", why)]
    if not found:
        return [passed("runner groups", "none that this repository may use", "not open to public repositories", why)]
    return [line for group in found for line in _group(settings, group)]


# ---------------------------------------------------------------- jobs


def _default_token(settings: Settings) -> Line:
    setting, wanted = "a job's token, where the workflow does not say", "read"
    why = "a workflow that forgets `permissions:` could write to git, to releases and to statuses"
    now = settings.workflow
    if isinstance(now, Unseen):
        return unseen(setting, now, wanted, why)
    if now.get("default_workflow_permissions") == "read":
        return passed(setting, "read", wanted, why)
    body = {"default_workflow_permissions": "read"}
    if "can_approve_pull_request_reviews" in now:  # stays as it is
        body["can_approve_pull_request_reviews"] = now["can_approve_pull_request_reviews"]
    change = _put(settings, ("actions", "permissions", "workflow"), body, "give jobs a token that reads by default")
    return _mend(setting, str(now.get("default_workflow_permissions")), wanted, why, change)


def _may_propose(settings: Settings) -> Line:
    """Never changed: it depends on whether CI has a token of an app, and on would be looser."""
    setting, wanted = "Actions may open and approve pull requests", "no, where CI has an app's token"
    why = "a job could approve; the policy counts no bot, but other rules of yours may"
    now = settings.workflow
    if isinstance(now, Unseen):
        return unseen(setting, now, wanted, why)
    if not now.get("can_approve_pull_request_reviews"):
        return passed(setting, "no", wanted, why)
    fix = "switch it off once the secret MLP_CI_TOKEN is an app's: Settings, Actions, General"
    return advice(setting, "yes", wanted, why, fix)


def _allowed_actions(settings: Settings) -> Line:
    """Never changed: which actions a team needs is known to the team."""
    setting, wanted = "whose actions may run", "GitHub's, ours, and those you name"
    why = "a tag of somebody's action can be moved to code that reads the secrets of the job"
    now = settings.permissions
    if isinstance(now, Unseen):
        return unseen(setting, now, wanted, why)
    allowed = now.get("allowed_actions", "all") if now.get("enabled", True) else "none: Actions are switched off"
    pinned = ", by full commit hash only" if now.get("sha_pinning_required") else ""
    if allowed == "all":
        if pinned:
            return passed(setting, f"all{pinned}", wanted, why)
        fix = f"Settings, Actions, General: allow GitHub's and `{settings.owner}/mlp-ci/*`, and what else you use"
        return advice(setting, "everybody's", wanted, why, fix)
    if allowed != "selected" or settings.selected is None:
        return passed(setting, f"{allowed.replace('_', ' ')}{pinned}", wanted, why)
    if isinstance(settings.selected, Unseen):
        return unseen(setting, settings.selected, wanted, why)
    names = [*settings.selected.get("patterns_allowed", [])]
    names += ["GitHub's"] if settings.selected.get("github_owned_allowed") else []
    names += ["verified creators'"] if settings.selected.get("verified_allowed") else []
    return passed(setting, (", ".join(names) or "none") + pinned, wanted, why)


def _private_forks(settings: Settings, now: Mapping[str, Any], setting: str, wanted: str, why: str) -> Line:
    if not now.get("run_workflows_from_fork_pull_requests"):
        return passed(setting, "start nothing", wanted, why)
    wrong = {name: (good, says) for name, (good, says) in _FORK_SWITCHES.items() if bool(now.get(name)) is not good}
    if not wrong:
        return passed(setting, "wait for approval, get no secrets", wanted, why)
    body = {
        **{name: now[name] for name in now if name in _FORK_SWITCHES},
        **{name: good for name, (good, _) in wrong.items()},
    }
    body["run_workflows_from_fork_pull_requests"] = True
    path = ("actions", "permissions", "fork-pr-workflows-private-repos")
    change = _put(settings, path, body, "let pull requests from forks wait for approval and get no secrets")
    return _mend(setting, ", ".join(says for _, says in wrong.values()), wanted, why, change)


# ---------------------------------------------------------------- environments


def _environment(settings: Settings, stage: str, now: Environment | Unseen | None) -> Line:
    setting, branch = f"environment {stage}", settings.branch.name
    wanted = f"{branch} only"
    if isinstance(now, Unseen):
        return unseen(setting, now, wanted, _ENVIRONMENT_WHY)
    if now is not None and now.branches == (branch,):
        return passed(setting, wanted, wanted, _ENVIRONMENT_WHY)
    if now is not None and (now.protected or now.branches):
        # Somebody chose these: they are not taken away.
        shown = "any protected branch" if now.protected else ", ".join(now.branches or ())
        fix = f"Settings, Environments, {stage}: selected branches, {branch}"
        return Line(setting=setting, now=shown, wanted=wanted, why=_ENVIRONMENT_WHY, outcome=Outcome.FAIL, fix=fix)
    path_of = ("environments", stage)
    policy = {"protected_branches": False, "custom_branch_policies": True}
    body = {**(now.kept if now else {}), "deployment_branch_policy": policy}
    changes = [] if now and now.branches == () else [
        _put(settings, path_of, body, f"{'limit' if now else 'make'} the environment {stage}: chosen branches only")
    ]  # fmt: skip
    path = repository_path(settings.owner, settings.name, *path_of, "deployment-branch-policies")
    allow = Change(
        verb="POST", path=path, body={"name": branch}, says=f"let {branch} deploy to {stage}", once="branch_policies"
    )
    shown = "does not exist" if now is None else "any branch" if now.branches is None else "no branch"
    return _mend(setting, shown, wanted, _ENVIRONMENT_WHY, *changes, allow)


# ---------------------------------------------------------------- runners


def _group(settings: Settings, group: Mapping[str, Any]) -> list[Line]:
    name = str(group["name"])
    why = "anybody could fork a public repository and run code on these machines"
    wanted, setting = "private ones only", f"runner group {name}: repositories"
    if not group.get("allows_public_repositories"):
        lines = [passed(setting, wanted, wanted, why)]
    elif group.get("inherited"):
        fix = "ask the owners of the enterprise: the group is theirs"
        lines = [Line(setting=setting, now="public ones, too", wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix)]
    else:
        change = Change(
            verb="PATCH",
            path=f"/orgs/{settings.owner}/actions/runner-groups/{int(group['id'])}",
            body={"name": name, "allows_public_repositories": False},
            says=f"close the runner group {name} to public repositories, for all of {settings.owner}",
            needs="organization self-hosted runners: write",
        )
        lines = [_mend(setting, "public ones, too", wanted, why, change)]
    return [*lines, _restricted(settings, group)]


def _restricted(settings: Settings, group: Mapping[str, Any]) -> Line:
    """Never changed: a group that trains runs the workflows of pull requests, which no list can name."""
    setting, wanted = f"runner group {group['name']}: workflows", "chosen ones, where it deploys"
    why = "any workflow that somebody pushes to a branch could run where the serving machine's credentials are"
    if group.get("restricted_to_workflows"):
        return passed(setting, ", ".join(group.get("selected_workflows") or ()) or "none", wanted, why)
    prefix, branch = f"{settings.full_name}/.github/workflows", settings.branch.name
    names = ", ".join(f"{prefix}/{name}.yml@refs/heads/{branch}" for name in STEADY)
    fix = f"if it deploys, choose {names}; one that trains cannot be kept to a list, so give it nothing worth stealing"
    return advice(setting, "all", wanted, why, fix)


# ---------------------------------------------------------------- lines


def _put(settings: Settings, path: tuple[str, ...], body: Mapping[str, Any], says: str) -> Change:
    return Change(verb="PUT", path=repository_path(settings.owner, settings.name, *path), body=body, says=says)


def _mend(setting: str, now: str, wanted: str, why: str, *changes: Change) -> Line:
    fix = f"`--fix`: {'; '.join(change.says for change in changes)}"
    return Line(setting=setting, now=now, wanted=wanted, why=why, outcome=Outcome.FAIL, fix=fix, changes=changes)
