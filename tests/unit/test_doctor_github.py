"""`mlp-ci doctor --github [--fix]` on a forge that keeps to what is set: compared, set, set once, never loosened."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mlp_ci.context import Context, GitHubPlace
from mlp_ci.doctor import examine
from mlp_ci.errors import InputError
from mlp_ci.github import GitHubError, connect
from mlp_ci.report import Outcome, Report
from mlp_ci.sandbox.forge import events, runs, seed
from mlp_ci.sandbox.forge.records import Event, RunnerGroup
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REPO = "/repos/acme/flight-delay"
OWNED = b"/.github/ @acme/platform\n/model.yaml @acme/platform\n"
PLATFORM = b"apiVersion: mlp-ci/v1\nstages: [{name: staging}, {name: production}]\n"
WORLD = Seed(
    org="acme",
    users=(
        SeedUser("alice", "Alice", "alice@acme.test", token="alice-token"),
        SeedUser("carol", "Carol", "carol@acme.test", role="admin", token="carol-token"),
        SeedUser("mlp-ci[bot]", "mlp-ci[bot]", kind="Bot", role="app", token="app-token"),
    ),
    repos=(
        SeedRepo("flight-delay", files={"README.md": b"#\n", ".github/CODEOWNERS": OWNED}),
        SeedRepo("open-data", private=False, files={"README.md": b"#\n"}),
        SeedRepo(".github", private=False, files={"platform.yaml": PLATFORM}),
    ),
    teams=(
        SeedTeam("growth-ml", ("alice",), {"flight-delay": "write"}),
        SeedTeam("platform", ("carol",), {"flight-delay": "maintain"}),
    ),
)


class World:
    """A forge, and `doctor --github` of a repository on it."""

    def __init__(self, server: ForgeServer, folder: Path) -> None:
        self.forge = server.forge
        self.api = f"{server.url}/api/v3"
        self.folder = folder

    def doctor(self, token: str = "carol-token", repo: str = "flight-delay", *, fix: bool = False) -> Report:
        place = GitHubPlace(owner="acme", repo=repo, api_url=self.api, server_url=self.api, token=token)
        folder = self.folder
        ctx = Context(repo=folder, work=folder, serve_home=folder, prediction_log=folder, github=place)
        return examine(ctx, github=True, fix=fix)

    def ask(self, method: str, path: str, body: Any = None, token: str = "carol-token") -> Any:
        answer = httpx.request(method, self.api + path, json=body, headers={"Authorization": f"token {token}"})
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def ruleset(self, name: str) -> Any:
        found = [r for r in self.ask("GET", REPO + "/rulesets?per_page=100") if r["name"] == name]
        return self.ask("GET", f"{REPO}/rulesets/{found[0]['id']}")

    def run_token(self) -> str:
        row = seed.repo_of(self.forge, "acme/flight-delay")
        events.take_events(self.forge.store)
        event = self.forge.store.find(Event, "repo_id = ?", row.id)[-1]
        run = runs.create_run(self.forge, event, ".github/workflows/ci.yml", "CI")
        return runs.mint_run_token(self.forge, run, {"contents": "write", "statuses": "write", "actions": "write"})

    def propose(self) -> str:
        tip = self.ask("GET", REPO + "/git/ref/heads/main")["object"]["sha"]
        self.ask("POST", REPO + "/git/refs", {"ref": "refs/heads/topic", "sha": tip})
        body = {"message": "m", "content": "", "branch": "topic"}
        sha = self.ask("PUT", REPO + "/contents/new.txt", body)["commit"]["sha"]
        self.ask("POST", REPO + "/pulls", {"title": "T", "head": "topic", "base": "main"})
        return str(sha)

    def set_status(self, sha: str, token: str) -> None:
        self.ask("POST", f"{REPO}/statuses/{sha}", {"state": "success", "context": "mlp-ci/approvals"}, token)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ForgeServer(tmp_path / "forge") as server:
        seed.apply(server.forge, WORLD)
        (tmp_path / "model").mkdir()
        yield World(server, tmp_path / "model")


def lines(report: Report) -> dict[str, dict[str, Any]]:
    return {line["setting"]: line for line in report.data["settings"]}


def wrong(report: Report) -> set[str]:
    return {name for name, line in lines(report).items() if line["outcome"] == "fail"}


def loose(world: World) -> dict[str, Any]:
    """All settings of the repository, to see whether they changed."""
    settings = REPO + "/actions/permissions"
    paths = ("/rulesets", "/environments", "/actions/permissions", "/actions/permissions/workflow")
    forks = world.ask("GET", settings + "/fork-pr-workflows-private-repos")
    return {**{path: world.ask("GET", REPO + path) for path in paths}, "forks": forks}


def test_without_fix_nothing_changes_and_all_that_fix_would_do_is_said(world: World) -> None:
    before = loose(world)
    report = world.doctor()
    assert loose(world) == before
    assert report.outcome is Outcome.FAIL
    assert [(c["verb"], c["path"].removeprefix(REPO)) for c in report.data["changes"]] == [
        ("POST", "/rulesets"),
        ("POST", "/rulesets"),
        ("PUT", "/actions/permissions/workflow"),
        ("PUT", "/environments/staging"),
        ("POST", "/environments/staging/deployment-branch-policies"),
        ("PUT", "/environments/production"),
        ("POST", "/environments/production/deployment-branch-policies"),
    ]
    assert "nothing is changed yet" in report.tables[1].title
    assert wrong(report) == {
        "changes of main", "required status", "force push to main", "deletion of main", "review by code owners",
        "force push to mlp-ci/records", "deletion of mlp-ci/records", "acme/.github",
        "a job's token, where the workflow does not say", "environment staging", "environment production",
    }  # fmt: skip
    assert all(line["why"] for line in lines(report).values())


def test_fix_sets_it_and_a_second_time_does_nothing(world: World) -> None:
    report = world.doctor(fix=True)
    assert [done["refusal"] for done in report.data["done"]] == [""] * 7
    assert wrong(report) == {"acme/.github"}, "that is another repository"
    after = loose(world)
    again = world.doctor(fix=True)
    assert again.data["done"] == again.data["changes"] == []
    assert loose(world) == after
    refused = httpx.put(
        f"{world.api}{REPO}/contents/x",
        json={"message": "m", "content": ""},
        headers={"Authorization": "token carol-token"},
    )
    assert refused.status_code == 409, "an admin pushes nothing to main any more"
    world.doctor(fix=True, repo=".github")
    assert wrong(world.doctor()) == set()


def test_a_writer_and_a_job_see_what_they_may_and_are_told_what_is_missing(world: World) -> None:
    for token in ("alice-token", world.run_token()):
        report = world.doctor(token)
        shown = lines(report)
        assert shown["a job's token, where the workflow does not say"]["outcome"] == "skip"
        assert "administration: read" in shown["pull requests from forks"]["fix"]
        assert "self-hosted runners: read" in shown["runner groups"]["fix"]
        assert "403" in shown["runner groups"]["is"]
        assert shown["changes of main"]["outcome"] == "fail", "that main is open can be seen by anybody"
    world.doctor(fix=True)
    shown = lines(world.doctor("alice-token"))
    assert shown["changes of main"]["outcome"] == "pass", "rulesets are for all to see"
    assert "only an administrator" in shown["who may pass the rules of main"]["is"]


def test_what_is_refused_says_so_and_changes_nothing(world: World) -> None:
    before = loose(world)
    report = world.doctor("alice-token", fix=True)
    assert report.outcome is Outcome.FAIL
    tried = [done["refusal"] for done in report.data["done"] if not done["refusal"].startswith("not tried")]
    assert (len(tried), len(report.data["done"])) == (4, 6), "no branch for an environment that could not be made"
    assert all("403" in refusal and "administration: write" in refusal for refusal in tried)
    assert loose(world) == before


def test_a_ruleset_of_ours_that_was_loosened_is_tightened_and_all_others_stay(world: World) -> None:
    world.doctor(fix=True)
    theirs = {
        "name": "theirs", "target": "branch", "enforcement": "active", "rules": [{"type": "required_signatures"}],
        "conditions": {"ref_name": {"include": ["refs/heads/release"], "exclude": []}},
        "bypass_actors": [{"actor_type": "OrganizationAdmin", "actor_id": 1, "bypass_mode": "always"}],
    }  # fmt: skip
    world.ask("POST", REPO + "/rulesets", theirs)
    kept = world.ruleset("theirs")
    ours = world.ruleset("mlp-ci")
    check = {"required_status_checks": [{"context": "ci"}], "strict_required_status_checks_policy": True}
    review = next(r for r in ours["rules"] if r["type"] == "pull_request")["parameters"]
    rules = [
        {"type": "required_linear_history"},
        {"type": "required_status_checks", "parameters": check},
        {"type": "pull_request", "parameters": {**review, "require_code_owner_review": False,
                                                "required_approving_review_count": 2}},
    ]  # fmt: skip
    loosened = {
        "rules": rules,
        "bypass_actors": [{"actor_type": "RepositoryRole", "actor_id": 4, "bypass_mode": "pull_request"}],
        "conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH", "refs/heads/next"], "exclude": []}},
    }
    world.ask("PUT", f"{REPO}/rulesets/{ours['id']}", loosened)
    report = world.doctor()
    assert lines(report)["who may pass the rules of main"]["is"] == "writers (on pull requests)"
    assert wrong(report) >= {"required status", "review by code owners", "force push to main", "deletion of main"}
    assert [(c["verb"], c["path"]) for c in report.data["changes"]] == [("PUT", f"{REPO}/rulesets/{ours['id']}")]
    world.doctor(fix=True)
    now = world.ruleset("mlp-ci")
    by_type = {r["type"]: r.get("parameters") for r in now["rules"]}
    assert now["bypass_actors"] == []
    assert now["conditions"]["ref_name"]["include"] == ["~DEFAULT_BRANCH", "refs/heads/next"]
    assert set(by_type) == {
        "required_linear_history", "required_status_checks", "pull_request", "non_fast_forward", "deletion"
    }  # fmt: skip
    checks = by_type["required_status_checks"]
    assert [c["context"] for c in checks["required_status_checks"]] == ["ci", "mlp-ci/approvals"]
    assert checks["strict_required_status_checks_policy"]
    assert (by_type["pull_request"]["required_approving_review_count"], review["require_code_owner_review"]) == (
        2,
        True,
    )
    assert world.ruleset("theirs") == kept
    assert world.doctor(fix=True).data["done"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"enforcement": "evaluate"},
        {"enforcement": "disabled"},
        {"conditions": {"ref_name": {"include": ["~DEFAULT_BRANCH"], "exclude": ["refs/heads/main"]}}},
        {"conditions": {"ref_name": {"include": ["refs/heads/other"], "exclude": []}}},
        {"rules": []},
    ],
)
def test_whatever_takes_a_ruleset_out_of_force_is_put_right(world: World, change: dict[str, Any]) -> None:
    world.doctor(fix=True)
    number = world.ruleset("mlp-ci")["id"]
    world.ask("PUT", f"{REPO}/rulesets/{number}", change)
    assert "force push to main" in wrong(world.doctor())
    assert len(world.doctor(fix=True).data["done"]) == 1
    assert wrong(world.doctor()) == {"acme/.github"}
    assert world.ruleset("mlp-ci")["id"] == number, "the same ruleset, no second one"


def test_classic_protection_counts_as_well_as_a_ruleset(world: World) -> None:
    rules = {
        "required_status_checks": {"strict": False, "contexts": ["mlp-ci/approvals"]},
        "required_pull_request_reviews": {"required_approving_review_count": 1, "dismiss_stale_reviews": True},
        "enforce_admins": True,
        "restrictions": None,
    }
    world.ask("PUT", REPO + "/branches/main/protection", rules)
    report = world.doctor()
    assert not wrong(report) & {"changes of main", "required status", "force push to main", "deletion of main"}
    assert "branch protection" in lines(report)["required status"]["is"]
    assert lines(report)["who may pass the rules of main"]["outcome"] == "pass"
    world.ask("PUT", REPO + "/branches/main/protection", {**rules, "enforce_admins": False})
    report = world.doctor()
    assert lines(report)["who may pass the rules of main"]["is"] == "administrators"
    body = next(c for c in report.data["changes"] if "for main" in c["says"])["body"]
    assert {r["type"] for r in body["rules"]} == {
        "pull_request", "required_status_checks", "non_fast_forward", "deletion"
    }  # fmt: skip
    world.doctor(fix=True)
    assert lines(world.doctor())["who may pass the rules of main"]["is"] == "nobody"
    assert world.ask("GET", REPO + "/branches/main/protection")["enforce_admins"]["enabled"] is False, "theirs stays"


def test_the_status_is_bound_to_the_app_that_sets_it(world: World) -> None:
    setting = "who may set mlp-ci/approvals"
    sha = world.propose()
    world.doctor(fix=True)
    assert "after the first promotion" in lines(world.doctor())[setting]["fix"]
    world.set_status(sha, "alice-token")
    assert "alice set it last" in lines(world.doctor())[setting]["fix"]
    world.set_status(sha, world.run_token())
    assert "github-actions[bot] (15368)" in lines(world.doctor())[setting]["should_be"]
    world.set_status(sha, "app-token")
    number = world.ask("GET", "/apps/mlp-ci")["id"]
    assert setting in wrong(world.doctor())
    assert [d["says"] for d in world.doctor(fix=True).data["done"]] == [
        'tighten the ruleset "mlp-ci" for main: required status checks'
    ]
    checks = {r["type"]: r.get("parameters") for r in world.ruleset("mlp-ci")["rules"]}["required_status_checks"]
    assert checks["required_status_checks"] == [{"context": "mlp-ci/approvals", "integration_id": number}]
    assert lines(world.doctor())[setting]["outcome"] == "pass"
    world.set_status(sha, world.run_token())
    told = lines(world.doctor(fix=True))[setting]
    assert told["outcome"] == "skip", "never bound anew: the newest status may be the forged one"
    assert "find out which" in told["fix"]


def test_an_environment_keeps_its_reviewers_and_its_own_branches(world: World) -> None:
    carol = world.ask("GET", "/user")["id"]
    path = REPO + "/environments/production"
    reviewers = {"reviewers": [{"type": "User", "id": carol}], "wait_timer": 30, "prevent_self_review": True}
    world.ask("PUT", path, reviewers)
    custom = {"protected_branches": False, "custom_branch_policies": True}
    world.ask("PUT", REPO + "/environments/staging", {"deployment_branch_policy": custom})
    report = world.doctor()
    assert lines(report)["environment production"]["is"] == "any branch"
    assert lines(report)["environment staging"]["is"] == "no branch", "somebody was interrupted halfway"
    world.doctor(fix=True)
    now = {rule["type"]: rule for rule in world.ask("GET", path)["protection_rules"]}
    assert now["wait_timer"]["wait_timer"] == 30
    assert now["required_reviewers"]["prevent_self_review"]
    assert now["required_reviewers"]["reviewers"][0]["reviewer"]["login"] == "carol"
    world.ask("POST", path + "/deployment-branch-policies", {"name": "release/*"})
    protected = {"protected_branches": True, "custom_branch_policies": False}
    world.ask("PUT", REPO + "/environments/staging", {"deployment_branch_policy": protected})
    report = world.doctor(fix=True)
    assert report.data["done"] == [], "what somebody chose is not taken away"
    assert lines(report)["environment production"]["is"] == "main, release/*"
    assert lines(report)["environment staging"]["is"] == "any protected branch"
    assert wrong(report) >= {"environment production", "environment staging"}


def test_forks_of_a_private_repository_get_no_secrets(world: World) -> None:
    path = REPO + "/actions/permissions/fork-pr-workflows-private-repos"
    assert lines(world.doctor())["pull requests from forks"]["is"] == "start nothing"
    on = {"run_workflows_from_fork_pull_requests": True, "send_secrets_and_variables": True}
    world.ask("PUT", path, on)
    told = lines(world.doctor())["pull requests from forks"]
    assert told["is"] == "secrets are sent, no approval is asked"
    world.doctor(fix=True)
    assert world.ask("GET", path) == {
        "run_workflows_from_fork_pull_requests": True,
        "send_write_tokens_to_workflows": False,
        "send_secrets_and_variables": False,
        "require_approval_for_fork_pr_workflows": True,
    }


def test_forks_of_a_public_repository_wait_and_its_runners_are_closed_to_it(world: World) -> None:
    row = seed.repo_of(world.forge, "acme/open-data")
    world.forge.store.insert(
        RunnerGroup, org_id=row.owner_id, name="gpu", visibility="all", standard=False, public=True,
        restricted=False, workflows=[], repositories=[],
    )  # fmt: skip
    report = world.doctor(repo="open-data")
    assert wrong(report) >= {"pull requests from forks", "runner group gpu: repositories", "CODEOWNERS"}
    assert "deploy.yml@refs/heads/main" in lines(report)["runner group gpu: workflows"]["fix"]
    assert "/.github/ @acme/platform" in lines(report)["CODEOWNERS"]["fix"]
    done = world.doctor(repo="open-data", fix=True).data["done"]
    assert [d["refusal"] for d in done] == [""] * len(done)
    group = world.ask("GET", "/orgs/acme/actions/runner-groups")["runner_groups"][0]
    assert (group["allows_public_repositories"], group["visibility"]) == (False, "all")
    forks = world.ask("GET", "/repos/acme/open-data/actions/permissions/fork-pr-contributor-approval")
    assert forks == {"approval_policy": "all_external_contributors"}
    assert wrong(world.doctor(repo="open-data")) == {"CODEOWNERS", "acme/.github"}


def test_the_repository_of_the_policy_needs_an_approval_for_every_change(world: World) -> None:
    report = world.doctor(repo=".github")
    assert "required status" not in lines(report)
    assert not any(name.startswith(("environment", "runner")) for name in lines(report))
    world.doctor(repo=".github", fix=True)
    assert wrong(world.doctor(repo=".github")) == {"CODEOWNERS"}
    rules = {r["type"]: r.get("parameters") for r in world.ask("GET", "/repos/acme/.github/rules/branches/main")}
    assert rules["pull_request"]["required_approving_review_count"] == 1
    assert lines(world.doctor())["acme/.github"]["outcome"] == "pass"


def test_no_environment_is_made_up_where_the_policy_cannot_be_read(tmp_path: Path) -> None:
    with ForgeServer(tmp_path / "forge") as server:
        seed.apply(server.forge, replace(WORLD, repos=WORLD.repos[:2]))
        (tmp_path / "model").mkdir()
        world = World(server, tmp_path / "model")
        told = lines(world.doctor(fix=True))
        assert world.ask("GET", REPO + "/environments")["environments"] == []
    assert (told["environments"]["outcome"], told["acme/.github"]["outcome"]) == ("skip", "skip")
    assert "contents: read" in told["environments"]["fix"]


def test_our_ruleset_is_found_behind_more_than_a_hundred_others(world: World) -> None:
    for number in range(101):
        body = {"name": f"r{number}", "enforcement": "disabled", "rules": [], "conditions": {}}
        world.ask("POST", REPO + "/rulesets", body)
    world.doctor(fix=True)
    assert world.doctor(fix=True).data["done"] == []


@pytest.mark.parametrize(
    ("permissions", "selected", "shown", "outcome"),
    [
        ({"allowed_actions": "all"}, None, "everybody's", "skip"),
        ({"allowed_actions": "all", "sha_pinning_required": True}, None, "all, by full commit hash only", "pass"),
        ({"allowed_actions": "local_only"}, None, "local only", "pass"),
        ({"allowed_actions": "selected"}, {"patterns_allowed": ["acme/*"]}, "acme/*, GitHub's", "pass"),
    ],
)
def test_whose_actions_may_run_is_shown_and_never_changed(
    world: World, permissions: dict[str, Any], selected: dict[str, Any] | None, shown: str, outcome: str
) -> None:
    world.ask("PUT", REPO + "/actions/permissions", {"enabled": True, **permissions})
    if selected:
        world.ask("PUT", REPO + "/actions/permissions/selected-actions", selected)
    told = lines(world.doctor())["whose actions may run"]
    assert (told["is"], told["outcome"]) == (shown, outcome)


def test_a_job_that_may_open_pull_requests_still_may(world: World) -> None:
    path = REPO + "/actions/permissions/workflow"
    world.ask("PUT", path, {"can_approve_pull_request_reviews": True})
    world.doctor(fix=True)
    now = {"default_workflow_permissions": "read", "can_approve_pull_request_reviews": True}
    assert world.ask("GET", path) == now


@pytest.mark.parametrize(
    ("text", "outcome", "shown"),
    [
        ("* @acme/platform\n/promotion.yaml\n", "pass", "owners of"),
        ("* @acme/platform\n", "skip", "promotion.yaml has owners"),
        ("* @acme/platform\n/promotion.yaml\n/data @nobody\n", "fail", "line 3: Unknown owner"),
        ("/.github/workflows/ @acme/platform\n", "fail", "nobody owns .github/CODEOWNERS, model.yaml"),
    ],
)
def test_what_codeowners_covers(world: World, text: str, outcome: str, shown: str) -> None:
    row = seed.repo_of(world.forge, "acme/flight-delay")
    from mlp_ci.sandbox.forge import repositories
    from mlp_ci.sandbox.forge.access import Actor

    carol = world.forge.store.user("carol")
    assert carol
    repositories.commit_files(world.forge, row, Actor(carol), {".github/CODEOWNERS": text.encode()}, "Own")
    told = lines(world.doctor())["CODEOWNERS"]
    assert (told["outcome"], shown in told["is"]) == (outcome, True), told


def test_fix_alone_is_a_mistake(world: World, cli: Callable[..., Any]) -> None:
    done = cli("doctor", "--fix", "--path", world.folder)
    assert done.returncode == 2
    assert "--fix is for --github only" in done.stderr
    place = GitHubPlace(owner="acme", repo="flight-delay", api_url=world.api, server_url=world.api)
    folder = world.folder
    ctx = Context(repo=folder, work=folder, serve_home=folder, prediction_log=folder, github=place)
    with pytest.raises(InputError, match="needs a GitHub token"):
        examine(ctx, github=True)


def test_the_command_line_ends_with_3_while_something_is_missing(world: World, cli: Callable[..., Any]) -> None:
    env = {
        "GITHUB_TOKEN": "carol-token",
        "GITHUB_REPOSITORY": "acme/flight-delay",
        "GITHUB_API_URL": world.api,
        "GITHUB_SERVER_URL": world.api,
    }
    done = cli("doctor", "--github", "--path", world.folder, **env)
    assert done.returncode == 3, done.stderr
    assert "carol-token" not in done.stdout
    assert "What --fix would do" in done.stdout
    assert cli("doctor", "--github", "--fix", "--path", world.folder, **env).returncode == 3, "acme/.github is left"
    world.doctor(repo=".github", fix=True)
    assert cli("doctor", "--github", "--path", world.folder, **env).returncode == 0


class Breaking:
    """ASGI middleware: each write is done, and then its answer is lost, once."""

    def __init__(self) -> None:
        self.lost: set[tuple[str, str]] = set()
        self.on = False

    def __call__(self, app: Any) -> Any:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            key = (scope.get("method", ""), scope.get("path", ""))
            if not self.on or key[0] in ("GET", "") or key in self.lost:
                await app(scope, receive, send)
                return
            self.lost.add(key)

            async def swallow(_: Any) -> None:
                """Nobody hears it."""

            await app(scope, receive, swallow)
            headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 502, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})

        return serve


def test_an_answer_that_is_lost_makes_nothing_twice(tmp_path: Path) -> None:
    breaking = Breaking()
    with ForgeServer(tmp_path / "forge", wrap=breaking) as server:
        seed.apply(server.forge, WORLD)
        (tmp_path / "model").mkdir()
        world = World(server, tmp_path / "model")
        breaking.on = True
        done = world.doctor(fix=True).data["done"]
        assert [d["refusal"] for d in done] == [""] * 7
        assert len(breaking.lost) == 6, "the two rulesets have one address"
        assert [r["name"] for r in world.ask("GET", REPO + "/rulesets")] == ["mlp-ci", "mlp-ci records"]
        assert wrong(world.doctor()) == {"acme/.github"}


def test_what_the_loop_does_still_works_under_the_rules(world: World) -> None:
    """Records are added, a rollback's direct commit is refused so that it becomes a pull request, and that merges."""
    sha = world.propose()
    world.set_status(sha, "app-token")
    world.doctor(fix=True)
    place = GitHubPlace(owner="acme", repo="flight-delay", api_url=world.api, server_url=world.api, token="app-token")
    hub = connect(place)
    tip = world.ask("GET", REPO + "/git/ref/heads/main")["object"]["sha"]
    world.ask("POST", REPO + "/git/refs", {"ref": "refs/heads/mlp-ci/records", "sha": tip})
    for number in (1, 2):
        assert hub.commit_files("mlp-ci/records", lambda _, n=number: {f"records/{n}.json": b"{}\n"}, "Record")[1]  # type: ignore[misc]
    with pytest.raises(GitHubError) as refused:
        hub.commit_files("main", lambda _: {"promotion.yaml": b"x"}, "Roll back")
    assert refused.value.status in (403, 409, 422), "what record_rollback takes for a protected branch"
    assert hub.merge_pull(1, sha)
