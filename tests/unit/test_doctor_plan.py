"""The comparison by itself, without a network: who counts, what is by hand, and that a plan never loosens anything."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import Any

import pytest
from githubkit_schemas.v2026_03_10 import models

from mlp_ci.doctor.codeowners import owners_of
from mlp_ci.doctor.github_plan import compare, plan
from mlp_ci.doctor.settings import Branch, Environment, Line, Owners, Setter, Settings, Source, Unseen
from mlp_ci.report import Outcome

HIDDEN = Unseen("GitHub says 403: Upgrade to GitHub Pro", "administration: read")
FLAGS = ("dismiss_stale_reviews_on_push", "require_code_owner_review", "require_last_push_approval",
         "required_review_thread_resolution")  # fmt: skip
CHECK = {"required_status_checks": [{"context": "mlp-ci/approvals", "integration_id": 7}]}
ALL = {
    "pull_request": {**dict.fromkeys(FLAGS, True), "required_approving_review_count": 1},
    "required_status_checks": CHECK,
    "non_fast_forward": {},
    "deletion": {},
}


def source(name: str = "theirs", *, passers: tuple[str, ...] | None = (), **changed: Any) -> Source:
    rules = {kind: given for kind, given in {**ALL, **changed}.items() if given is not None}
    return Source(name=name, rules=rules, passers=passers)


def settings(*sources: Source, **changed: Any) -> Settings:
    good = Settings(
        owner="acme",
        name="flight-delay",
        private=True,
        branch=Branch(name="main", sources=sources or (source(),)),
        records=Branch(name="mlp-ci/records", sources=(source(),)),
        stages=("production",),
        policy=Branch(name="main", sources=(source(),)),
        setter=Setter(login="mlp-ci[bot]", is_app=True, number=7),
        owners=Owners(path=".github/CODEOWNERS", text="/.github/ @acme/platform\nmodel.yaml @acme/platform\n"),
        permissions={"enabled": True, "allowed_actions": "local_only"},
        workflow={"default_workflow_permissions": "read"},
        forks={"run_workflows_from_fork_pull_requests": False},
        environments={"production": Environment(branches=("main",))},
        groups=(),
    )
    return replace(good, **changed)


def wrong(given: Settings) -> dict[str, Line]:
    return {line.setting: line for line in compare(given) if line.outcome is Outcome.FAIL}


def test_all_in_order_is_no_work() -> None:
    assert wrong(settings()) == {}
    assert plan(settings(), compare(settings())) == []


def test_two_rulesets_hold_together() -> None:
    """One asks for the pull request and lets admins pass; the other for the rest and lets nobody."""
    open_to_admins = Source(name="org", rules={"pull_request": ALL["pull_request"]}, passers=("administrators",))
    rest = source(pull_request=None)
    found = wrong(settings(open_to_admins, rest))
    assert set(found) == {"who may pass the rules of main"}
    assert set(found["who may pass the rules of main"].rules) == {"pull_request"}
    assert wrong(settings(open_to_admins, rest, source("another"))) == {}, "one that lets nobody pass is enough"


def test_required_checks_of_others_are_not_ours() -> None:
    other = {"required_status_checks": [{"context": "ci"}]}
    given = settings(source(required_status_checks=other), setter=None)
    assert "required status" in wrong(given)


@pytest.mark.parametrize(
    ("passers", "unseen", "outcome"),
    [((), HIDDEN, Outcome.PASS), (None, None, Outcome.SKIP), (("administrators",), HIDDEN, Outcome.FAIL)],
)
def test_what_cannot_be_seen_is_not_called_missing(
    passers: tuple[str, ...] | None, unseen: Unseen | None, outcome: Outcome
) -> None:
    branch = Branch(name="main", sources=(source(passers=passers),), unseen=unseen)
    line = next(
        li for li in compare(settings(branch=branch)) if li.setting.startswith("who may pass the rules of main")
    )
    assert line.outcome is outcome


def test_a_plan_of_github_without_rules_is_told_in_its_own_words() -> None:
    free = Branch(name="main", unseen=HIDDEN)
    given = settings(branch=free, records=replace(free, name="mlp-ci/records"), workflow=HIDDEN, forks=HIDDEN)
    found = [line for line in compare(given) if "Upgrade to GitHub Pro" in line.now]
    assert len(found) >= 8
    assert all("administration: read" in line.fix for line in found)
    assert plan(given, compare(given)) == []


@pytest.mark.parametrize(
    ("setter", "outcome", "says"),
    [
        (None, Outcome.SKIP, "after the first promotion"),
        (HIDDEN, Outcome.SKIP, "administration: read"),
        (Setter(login="bob", is_app=False), Outcome.SKIP, "bob set it last"),
        (Setter(login="x[bot]", is_app=True), Outcome.SKIP, "choose x as the source"),
        (Setter(login="x[bot]", is_app=True, number=9), Outcome.FAIL, "binds"),
    ],
)
def test_whom_the_status_is_bound_to(setter: Any, outcome: Outcome, says: str) -> None:
    loose = {"required_status_checks": [{"context": "mlp-ci/approvals", "integration_id": None}]}
    given = settings(source(required_status_checks=loose), setter=setter)
    line = next(line for line in compare(given) if line.setting == "who may set mlp-ci/approvals")
    assert (line.outcome, says in line.fix) == (outcome, True), line


@pytest.mark.parametrize(
    ("groups", "missing", "fixed"),
    [
        (HIDDEN, 0, 0),
        (None, 0, 0),
        (({"id": 1, "name": "gpu", "allows_public_repositories": True},), 1, 1),
        (({"id": 1, "name": "gpu", "allows_public_repositories": True, "inherited": True},), 1, 0),
        (({"id": 1, "name": "g", "restricted_to_workflows": True, "selected_workflows": ["a@b"]},), 0, 0),
    ],
)
def test_runner_groups(groups: Any, missing: int, fixed: int) -> None:
    given = settings(groups=groups)
    assert (len(wrong(given)), len(plan(given, compare(given)))) == (missing, fixed)


def test_a_plan_makes_every_rule_at_least_as_strict_as_it_was() -> None:
    dice = random.Random(4)
    for _ in range(500):
        ours = loosened(dice)
        given = settings(
            Source(
                name='ruleset "mlp-ci"', rules={r["type"]: r.get("parameters", {}) for r in ours["rules"]}, passers=()
            ),
            own={"mlp-ci": ours},
        )
        before = json.dumps(ours)
        changes = plan(given, compare(given))
        assert json.dumps(ours) == before
        for change in changes:
            after = {rule["type"]: rule.get("parameters", {}) for rule in change.body["rules"]}
            for rule in ours["rules"]:
                assert rule["type"] in after
                assert no_looser(after[rule["type"]], rule.get("parameters", {}))
            assert set(ours["conditions"]["ref_name"]["include"]) <= set(
                change.body["conditions"]["ref_name"]["include"]
            )
            then = replace(
                given,
                branch=Branch(name="main", sources=(Source(name="ours", rules=after, passers=()),)),
                own={"mlp-ci": {**ours, **change.body}},
            )
            assert plan(then, compare(then)) == [], "a second time there is nothing to do"


REQUESTS = {
    r"POST .*/rulesets": "ReposOwnerRepoRulesetsPostBody",
    r"PUT .*/rulesets/3": "ReposOwnerRepoRulesetsRulesetIdPutBody",
    r"PUT .*/actions/permissions/workflow": "ActionsSetDefaultWorkflowPermissions",
    r"PUT .*/fork-pr-contributor-approval": "ActionsForkPrContributorApproval",
    r"PUT .*/fork-pr-workflows-private-repos": "ActionsForkPrWorkflowsPrivateReposRequest",
    r"PUT .*/environments/production": "ReposOwnerRepoEnvironmentsEnvironmentNamePutBody",
    r"POST .*/deployment-branch-policies": "DeploymentBranchPolicyNamePatternWithType",
    r"PATCH /orgs/acme/actions/runner-groups/1": "OrgsOrgActionsRunnerGroupsRunnerGroupIdPatchBody",
}


def test_every_request_is_one_that_github_describes() -> None:
    """The forge may take what GitHub would not; so each body is held to GitHub's own description of it."""
    kept = {"wait_timer": 5, "prevent_self_review": True, "reviewers": [{"type": "Team", "id": 4}]}
    bad: dict[str, Any] = {
        "branch": Branch(name="main"),
        "records": Branch(name="mlp-ci/records"),
        "workflow": {"default_workflow_permissions": "write", "can_approve_pull_request_reviews": True},
        "environments": {"production": Environment(branches=None, kept=kept)},
        "groups": ({"id": 1, "name": "gpu", "allows_public_repositories": True},),
    }
    forks = {"run_workflows_from_fork_pull_requests": True, "send_secrets_and_variables": True}
    ours = {"id": 3, "name": "mlp-ci", "rules": [{"type": "deletion"}], "conditions": {}, "bypass_actors": []}
    asked = []
    for given in (
        settings(**bad, forks=forks, own={"mlp-ci": ours}),
        settings(**bad, private=False, forks={"approval_policy": "first_time_contributors"}),
    ):
        asked += plan(given, compare(given))
    used = set()
    for change in asked:
        request = f"{change.verb} {change.path}"
        pattern = next(p for p in REQUESTS if re.fullmatch(p, request))
        used.add(pattern)
        model = getattr(models, REQUESTS[pattern])
        read = model.model_validate(change.body).model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert read == change.body, request
    assert used == set(REQUESTS)


def loosened(dice: random.Random) -> dict[str, Any]:
    """Our ruleset after somebody was at it."""
    flags = {flag: dice.random() < 0.5 for flag in FLAGS}
    checks = [{"context": name} for name in ("ci", "mlp-ci/approvals") if dice.random() < 0.5]
    if checks and dice.random() < 0.5:
        checks[-1]["integration_id"] = dice.choice([7, 8])  # type: ignore[assignment]
    rules: list[dict[str, Any]] = [
        {"type": "pull_request", "parameters": {**flags, "required_approving_review_count": dice.randrange(3)}},
        {"type": "required_status_checks", "parameters": {
            "required_status_checks": checks, "strict_required_status_checks_policy": dice.random() < 0.5}},
        {"type": "non_fast_forward"}, {"type": "deletion"}, {"type": "required_linear_history"},
        {"type": "commit_message_pattern", "parameters": {"operator": "contains", "pattern": "x"}},
    ]  # fmt: skip
    names = [pattern for pattern in ("~DEFAULT_BRANCH", "refs/heads/next") if dice.random() < 0.7]
    return {
        "id": 3,
        "name": "mlp-ci",
        "enforcement": dice.choice(["active", "disabled"]),
        "bypass_actors": [],
        "conditions": {"ref_name": {"include": names, "exclude": []}},
        "rules": [rule for rule in rules if dice.random() < 0.7],
    }


def no_looser(after: dict[str, Any], before: dict[str, Any]) -> bool:
    for name, value in before.items():
        if name == "required_status_checks":
            have = {check["context"]: check.get("integration_id") for check in after[name]}
            if any(have.get(c["context"], "gone") != c.get("integration_id", have[c["context"]]) for c in value):
                return False
        elif isinstance(value, int):
            if after[name] < value:
                return False
        elif after[name] != value:
            return False
    return True


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("a.py", ("@all",)),
        ("web/x.js", ("@js", "js@acme.test")),
        ("docs/a", ("@near",)),
        ("docs/b/c", ("@docs",)),
        ("x/apps/z", ("@apps",)),
        (".github/workflows/ci.yml", ("@platform",)),
        ("model.yaml", ()),
        ("sub/model.yaml", ("@all",)),
        ("a/logs/b", ("@logs",)),
        ("build/x", ("@x",)),
        ("build/a/b/x", ("@x",)),
        ("with space/a", ("@space",)),
        ("q1.txt", ("@q",)),
    ],
)
def test_codeowners_is_read_as_github_reads_it(path: str, owners: tuple[str, ...]) -> None:
    text = """\
# Who owns what
*               @all
*.js            @js js@acme.test  # and why
/docs/          @docs
apps/           @apps
docs/*          @near
/.github/       @platform
/model.yaml
**/logs         @logs
/build/**/x     @x
with\\ space/    @space
q?.txt          @q
"""
    assert owners_of(text, path) == owners
