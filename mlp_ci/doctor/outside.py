"""What others have to be ready for: the DVC remote, the organisation's platform, MLflow, the repository on GitHub."""

from __future__ import annotations

import difflib
import urllib.request
from typing import TYPE_CHECKING, Any

from mlp_ci.doctor.repository import model_of
from mlp_ci.doctor.settings import STATUS
from mlp_ci.errors import MlpError, OutsideError
from mlp_ci.report import Finding, Outcome

if TYPE_CHECKING:
    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.spec import ModelSpec, PlatformSpec

WAIT_SECONDS = 3.0
OLDEST_MLFLOW = (3, 0)
SECRET = "MLP_CI_TOKEN"


# ---------------------------------------------------------------- data


def look_at_data(ctx: Context) -> list[Finding]:
    """Whether the DVC remote is named, reachable, and has what git asks for."""
    from mlp_ci.dvc import look_at_remote

    model = model_of(ctx.repo)
    if model is None:
        return []
    remote = look_at_remote(ctx.repo, [model.data.train, model.data.test], seconds=WAIT_SECONDS)
    if not remote.address:
        fix = "dvc remote add --default storage ADDRESS && git add .dvc/config && git commit -m 'Say where data lives'"
        return [_fail("dvc remote", "DVC has no default remote: no other machine can get the data", fix)]
    if remote.unreachable:
        fix = "check the network, the permissions, and the address: `dvc remote modify storage url ADDRESS`"
        return [_fail("dvc remote", f"{remote.address} cannot be reached: {remote.unreachable}", fix)]
    reached = _pass("dvc remote", f"{remote.address} can be reached")
    if remote.lacking is None:
        return [reached, _skip("pushed data", f"the remote gave no list within {WAIT_SECONDS:.0f} s", "dvc status -c")]
    if remote.lacking:
        lacking = ", ".join(remote.lacking)
        return [reached, _fail("pushed data", f"the remote does not have {lacking} as git asks for it", "dvc push")]
    return [reached, _pass("pushed data", "the remote has all data that is tracked")]


# ---------------------------------------------------------------- platform


def look_at_platform(ctx: Context) -> list[Finding]:
    """The organisation's policy, the runner class of the model in it, and MLflow."""
    from mlp_ci.github import policy_of

    try:
        policy = policy_of(ctx)
    except MlpError as error:
        return [_fail("platform", error.what, error.fix), *_mlflow(ctx, None)]
    platform, where = policy.spec, policy.source
    if where.startswith("the built-in default"):
        fix = "set GITHUB_TOKEN to let the organisation's platform.yaml be read, or pass --platform FILE"
        findings = [_skip("platform", f"{where} is used: two stages, no runner classes, no prices", fix)]
    else:
        findings = [_pass("platform", f"{where}: stages {', '.join(platform.stage_names())}")]
    model = model_of(ctx.repo)
    if model is not None:
        findings += _runner(model, platform)
    return findings + _mlflow(ctx, platform)


def _runner(model: ModelSpec, platform: PlatformSpec) -> list[Finding]:
    wanted = model.train.runner
    if not isinstance(wanted, str):
        return [_pass("runner", f"trains on labels {', '.join(wanted)}")]
    if wanted in platform.runners:
        return [_pass("runner", f"{wanted} is on labels {', '.join(platform.runners[wanted].labels)}")]
    if not platform.runners:
        return [_skip("runner", f"no platform.yaml says what runner class {wanted} is")]
    close = difflib.get_close_matches(wanted, platform.runners, n=1)
    fix = f"did you mean `{close[0]}`?" if close else f"platform.yaml has {', '.join(platform.runners)}"
    return [_fail("runner", f"platform.yaml has no runner class {wanted}", f"in model.yaml, train.runner: {fix}")]


def _mlflow(ctx: Context, platform: PlatformSpec | None) -> list[Finding]:
    from mlp_ci.tracking.address import first_contact, shown

    uri = ctx.tracking_uri or (platform.tracking.uri if platform and platform.tracking else "")
    if not uri:
        fix = "export MLFLOW_TRACKING_URI=http://…, or `tracking: {uri: …}` in the organisation's platform.yaml"
        return [_fail("mlflow", "there is no address of MLflow", fix)]
    if not uri.startswith(("http://", "https://")):
        return [_skip("mlflow", f"{shown(uri)} is no server: it works on this machine only")]
    try:
        first_contact(uri.rstrip("/"))
    except MlpError as error:
        return [_fail("mlflow", error.what, error.fix)]
    return [_mlflow_version(shown(uri.rstrip("/")))]


def _mlflow_version(uri: str) -> Finding:
    try:
        with urllib.request.urlopen(f"{uri}/version", timeout=WAIT_SECONDS) as answer:
            version = answer.read(100).decode("ascii", "replace").strip()
        numbers = tuple(int(part) for part in version.split(".")[:2])
    except (OSError, ValueError):
        return _skip("mlflow", f"{uri} answers, but does not say its version")
    if numbers < OLDEST_MLFLOW:
        oldest = ".".join(map(str, OLDEST_MLFLOW))
        return _fail("mlflow", f"{uri} is MLflow {version}; {oldest} or newer is needed", "pip install -U mlflow there")
    return _pass("mlflow", f"{uri} is MLflow {version}")


# ---------------------------------------------------------------- GitHub


def look_at_github(ctx: Context) -> list[Finding]:
    """The token's permission and the settings that the loop needs."""
    if ctx.github is None:
        fix = "gh repo create OWNER/NAME --private --source . --push"
        return [_fail("github", "there is no remote `origin` on a GitHub", fix)]
    place = ctx.github
    if not place.token:
        fix = "export GITHUB_TOKEN=$(gh auth token)"
        return [_skip("github", f"no token, so {place.full_name} and its settings cannot be seen", fix)]
    from mlp_ci.github import connect

    hub = connect(place, patience=WAIT_SECONDS)
    try:
        repository = hub.wire.get(_path(hub), "read the repository")
        return [_permission(hub, repository), _protection(hub), _pull_requests(hub)]
    except OutsideError as error:
        return [_skip("github", error.what, error.fix)]
    except MlpError as error:
        return [_fail("github", error.what, error.fix)]


def _path(hub: Hub, *parts: str) -> str:
    return "/".join(["/repos", hub.place.owner, hub.place.repo, *parts])


def _permission(hub: Hub, repository: dict[str, Any]) -> Finding:
    granted = repository.get("permissions") or {}
    who = hub.login or "the token"
    if granted.get("push"):
        return _pass("github", f"{who} may write to {hub.place.full_name}")
    if not granted:
        return _skip("github", f"{hub.place.full_name} can be read; GitHub does not say what else {who} may do")
    fix = f"ask an admin of {hub.place.owner} for write access, or use a token that has it"
    return _fail("github", f"{who} may read {hub.place.full_name} but not write to it", fix)


def _protection(hub: Hub) -> Finding:
    """Whether the default branch takes a promotion only with the approvals' status."""
    from mlp_ci.github import GitHubError

    branch = hub.default_branch
    fix = (
        f"`mlp-ci doctor --github` says what {branch} needs (a pull request, the status check {STATUS}) and with --fix "
        "sets it; without it `deploy` still refuses what is not approved, but only after the merge"
    )
    try:
        rules = hub.wire.get(_path(hub, "branches", branch, "protection"), "read the branch protection")
    except GitHubError as refusal:
        if refusal.status in (403, 404):
            return _ruled(hub, branch, fix, unseen=refusal.status == 403)
        raise
    required = rules.get("required_status_checks") or {}
    if STATUS in (required.get("contexts") or []):
        return _pass("protection", f"{branch} takes merges only with {STATUS}")
    return _fail("protection", f"{branch} does not require the status check {STATUS}", fix)


def _ruled(hub: Hub, branch: str, fix: str, *, unseen: bool) -> Finding:
    """The same question to the rulesets, which anyone who reads the repository may see."""
    from mlp_ci.github import GitHubError

    try:
        rules = hub.wire.pages(_path(hub, "rules", "branches", branch), "read the rules of the branch")
    except GitHubError:
        rules = []
    checks = [
        check.get("context")
        for rule in rules
        if rule.get("type") == "required_status_checks"
        for check in (rule.get("parameters") or {}).get("required_status_checks") or []
    ]
    if STATUS in checks:
        return _pass("protection", f"a ruleset lets {branch} take merges only with {STATUS}")
    if unseen:
        return _skip("protection", f"only an admin can see how {branch} is protected", fix)
    return _fail("protection", f"{branch} does not require the status check {STATUS}", fix)


def _pull_requests(hub: Hub) -> Finding:
    """Whether CI can open pull requests whose own checks run: by an app's token, or at least by the default one."""
    from mlp_ci.github import GitHubError

    try:
        secrets = hub.wire.pages(_path(hub, "actions", "secrets"), "list the names of the secrets", item="secrets")
        if SECRET in [secret.get("name") for secret in secrets]:
            return _pass("ci token", f"the secret {SECRET} lets CI open pull requests that start workflows")
        settings = hub.wire.get(_path(hub, "actions", "permissions", "workflow"), "read the settings of Actions")
    except GitHubError as refusal:
        if refusal.status in (403, 404):
            return _skip("ci token", f"only an admin can see whether there is a secret {SECRET}")
        raise
    if settings.get("can_approve_pull_request_reviews"):
        fix = f"gh secret set {SECRET}: the token of a GitHub App, so that workflows run on what CI opens"
        return _skip(
            "ci token", f"no secret {SECRET}: pull requests that CI opens start no workflow by themselves", fix
        )
    fix = f"gh secret set {SECRET}; or Settings, Actions, General: allow Actions to create pull requests"
    return _fail("ci token", "CI may not open pull requests: promotions and retrainings cannot be proposed", fix)


# ---------------------------------------------------------------- findings


def _pass(check: str, message: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, message=message)


def _fail(check: str, message: str, fix: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, message=message, fix=fix)


def _skip(check: str, message: str, fix: str = "") -> Finding:
    return Finding(check=check, outcome=Outcome.SKIP, message=message, fix=fix, severity="notice")
