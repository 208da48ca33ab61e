"""`mlp-ci approvals` on a real forge: the status, the one comment, the exit code, and the machine's merges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mlp_ci.errors import InputError, NotApproved, OutsideError
from mlp_ci.github import PullRequest
from mlp_ci.promote import approvals
from mlp_ci.report import Outcome, Report
from mlp_ci.sandbox.forge import protection, runs
from mlp_ci.sandbox.forge.records import Event
from tests.promotion import MODEL, World, promotion, register_versions, running_world, world_seed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from mlp_ci.tracking import Tracking

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tracking(mlflow_server: str) -> Tracking:
    return register_versions(mlflow_server)


@pytest.fixture
def world(tmp_path: Path, tracking: Tracking) -> Iterator[World]:
    seeded = world_seed(stages=promotion(staging=1).decode())
    with running_world(tmp_path, seeded, tracking.uri) as running:
        yield running


def ask(world: World, **stages: int) -> int:
    return world.open("alice", {"promotion.yaml": promotion(**(stages or {"staging": 1, "production": 1}))}, "topic")


def judge(world: World, number: int, *, who: str = "app") -> Report:
    """As in a job that the pull request's event started."""
    event = {"pull_request": {"number": number}, "number": number}
    return approvals(world.ctx(who, in_job=True, event=event), pr=None, commit=None)


def statuses(world: World, number: int) -> list[tuple[str, str]]:
    head = world.hub().pull(number).head_sha
    found = world.hub().wire.pages(f"/repos/acme/{MODEL}/commits/{head}/statuses", "read")
    return [(s["state"], s["description"]) for s in found if s["context"] == "mlp-ci/approvals"]


def comments(world: World, number: int) -> list[dict[str, Any]]:
    return world.hub().wire.pages(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")


def test_from_waiting_to_approved_in_one_status_and_one_comment(world: World) -> None:
    number = ask(world)
    report = judge(world, number)
    assert (report.exit_code, report.outputs["approved"]) == (0, "false")
    waiting = "1 of 1 approval missing: someone with write access other than alice"
    assert statuses(world, number) == [("pending", waiting)]
    [comment] = comments(world, number)
    assert comment["body"].startswith("<!-- mlp-ci approvals -->")
    assert waiting in comment["body"]
    assert "version 1 to production: waiting" in comment["body"]
    assert "acme/.github/platform.yaml" in comment["body"]

    world.review("bob", number)
    report = judge(world, number)
    assert (report.outcome, report.outputs["approved"]) == (Outcome.PASS, "true")
    assert statuses(world, number)[0] == ("success", "approved by bob")
    [updated] = comments(world, number)
    assert updated["id"] == comment["id"]
    assert "version 1 to production: approved" in updated["body"]
    for rule in ("one-file", "commit-authors", "approvals", "version", "gate", "digest", "quarantine", "stage-order"):
        assert f"| {rule} | ✓ pass |" in updated["body"]

    world.faults.requests.clear()
    judge(world, number)
    assert world.faults.writes() == []


def test_a_new_push_takes_the_approval_away(world: World) -> None:
    number = ask(world)
    world.review("bob", number)
    judge(world, number)
    world.push("alice", {"promotion.yaml": promotion(staging=1, production=1) + b"# later\n"}, branch="topic")
    assert judge(world, number).outputs["approved"] == "false"
    assert statuses(world, number)[0][0] == "pending"
    assert "not for the newest commit" in comments(world, number)[0]["body"]


def test_asking_for_changes_is_a_failure_with_a_name(world: World) -> None:
    number = ask(world)
    world.review("bob", number)
    world.review("carol", number, "REQUEST_CHANGES")
    judge(world, number)
    assert statuses(world, number)[0] == ("failure", "carol asked for changes")


@pytest.mark.parametrize(
    ("stages", "state", "says"),
    [
        ({"staging": 1, "production": 2}, "failure", "production only takes what staging has"),
        ({"staging": 4}, "failure", "version 4 did not pass its gate"),
        ({"staging": 8}, "failure", "version 8 is not in the registry"),
        ({"staging": 2}, "success", "all rules hold; no approval needed"),
    ],
)
def test_the_status_tells_the_rule(world: World, stages: dict[str, int], state: str, says: str) -> None:
    number = ask(world, **stages)
    judge(world, number)
    assert statuses(world, number)[0][0] == state
    assert says in statuses(world, number)[0][1]


def test_a_broken_promotion_file_is_a_failure_not_a_crash(world: World) -> None:
    number = world.open("alice", {"promotion.yaml": b"stages: [\n"}, "topic")
    report = judge(world, number)
    assert report.exit_code == 0
    state, text = statuses(world, number)[0]
    assert state == "failure"
    assert "promotion.yaml cannot be read" in text


def test_a_pull_request_that_promotes_nothing_gets_a_success_and_no_comment(world: World) -> None:
    same = b"# hi\n" + promotion(staging=1)
    for name, files in {"code": {"train.py": b"print(2)\n"}, "note": {"promotion.yaml": same}}.items():
        number = world.open("alice", files, name)
        report = judge(world, number)
        assert (report.outcome, report.outputs) == (Outcome.SKIP, {"approved": "true"})
        assert statuses(world, number) == [("success", "changes no promotion")]
        assert comments(world, number) == []


def test_what_promotes_nothing_passes_also_where_no_policy_can_be_read(world: World) -> None:
    number = world.open("alice", {"train.py": b"print(3)\n"}, "code")
    world.faults.fail("GET /api/v3/repos/acme/.github", 404, times=50)
    assert judge(world, number).outcome is Outcome.SKIP
    assert statuses(world, number) == [("success", "changes no promotion")]


def test_the_policy_and_tier_of_the_default_branch_count_not_those_of_the_pull_request(world: World) -> None:
    model = (world.hub().read_file("model.yaml", "main") or b"").replace(b"tier: standard", b"tier: low")
    files = {"promotion.yaml": promotion(staging=1, production=1), "model.yaml": model}
    number = world.open("alice", files, "topic")
    report = judge(world, number)
    assert report.outputs["approved"] == "false"
    assert {f.check for f in report.findings if f.outcome is Outcome.FAIL} == {"one-file", "approvals"}


def test_by_hand_it_prints_the_rules_and_exits_5(world: World, cli: Callable[..., CompletedProcess[str]]) -> None:
    number = ask(world)
    place = world.place("bob")
    env = {
        "GITHUB_TOKEN": place.token,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_REPOSITORY": place.full_name,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
    }
    folder = world.ctx().repo
    done = cli("approvals", "--pr", str(number), "--path", folder, **env)
    assert done.returncode == 5
    assert "1 of 1 approval missing: someone with write access other than alice" in done.stdout
    assert statuses(world, number) == []
    assert comments(world, number) == []
    world.review("bob", number)
    done = cli("approvals", "--pr", str(number), "--path", folder, "--format", "json", **env)
    assert done.returncode == 0
    assert json.loads(done.stdout)["data"]["stages"]["production"]["approvers"] == ["bob"]
    merged = world.merge("alice", number)
    done = cli("approvals", "--commit", merged, "--path", folder, **env)
    assert done.returncode == 0
    assert f"#{number}" in done.stdout
    done = cli("approvals", "--path", folder, **env)
    assert done.returncode == 2
    assert "--pr NUMBER" in done.stderr


def test_a_direct_push_has_no_pull_request_to_judge(world: World) -> None:
    sha = world.push("alice", {"promotion.yaml": promotion(staging=1, production=1)})
    with pytest.raises(NotApproved, match="pushed directly"):
        approvals(world.ctx(), pr=None, commit=sha)


def test_a_pull_request_that_does_not_exist(world: World) -> None:
    with pytest.raises(InputError, match="no pull request #99"):
        approvals(world.ctx(), pr=99, commit=None)


def test_a_token_that_may_not_set_the_status_says_what_it_lacks(world: World) -> None:
    number = ask(world)
    with pytest.raises(InputError) as refused:
        judge(world, number, who="dave")
    assert "statuses: write" in refused.value.fix


def test_an_unreachable_registry_leaves_an_error_not_a_verdict(world: World) -> None:
    number = ask(world)
    world.tracking_uri = "http://127.0.0.1:9"
    with pytest.raises(OutsideError):
        judge(world, number)
    assert statuses(world, number)[0][0] == "error"


# ---------------------------------------------------------------- tier low


@pytest.fixture
def low(tmp_path: Path, tracking: Tracking) -> Iterator[World]:
    seeded = world_seed(tier="low", stages=promotion(staging=1).decode())
    with running_world(tmp_path, seeded, tracking.uri) as running:
        yield running


def test_the_machine_approves_and_merges_tier_low_and_says_so(low: World) -> None:
    number = ask(low)
    report = judge(low, number)
    pull = low.hub().pull(number)
    assert (pull.state, pull.merged_by) == ("merged", "mlp-ci[bot]")
    assert report.outputs["approved"] == "true"
    assert "merged by the machine" in report.headline
    [review] = low.hub().reviews(number)
    assert (review.person, review.state, review.bot) == ("mlp-ci[bot]", "APPROVED", True)
    assert statuses(low, number)[0][0] == "success"


def test_the_machine_merges_its_own_pull_request_without_approving_it(low: World) -> None:
    fact = low.hub().open_or_update_pull(
        PullRequest(branch="b", title="t", body="", files={"promotion.yaml": promotion(staging=2)})
    )
    judge(low, fact.number)
    assert low.hub().pull(fact.number).state == "merged"
    assert low.hub().reviews(fact.number) == []


def test_the_machine_never_merges_a_failed_gate_a_hidden_change_or_a_lifted_quarantine(low: World) -> None:
    hidden = {"promotion.yaml": promotion(staging=2), "train.py": b"x = 1\n"}
    for branch, files in {"gate": {"promotion.yaml": promotion(staging=4)}, "hidden": hidden}.items():
        number = low.open("alice", files, branch)
        judge(low, number)
        assert low.hub().pull(number).state == "open"


def test_the_machine_that_may_not_merge_says_so_and_the_approval_stands(low: World) -> None:
    number = ask(low)
    protection.protect(low.forge, low.repo, "main", approvals=2, enforce_admins=True)
    report = judge(low, number)
    assert low.hub().pull(number).state == "open"
    finding = next(f for f in report.findings if f.check == "machine-merge")
    assert (finding.outcome, finding.severity) == (Outcome.FAIL, "warning")
    assert (report.exit_code, report.outputs["approved"]) == (0, "true")


def test_the_permissions_that_the_workflow_grants_are_enough(world: World) -> None:
    """The token of a run with exactly the permissions of workflow-templates/promotion.yml."""
    workflow = yaml.safe_load((ROOT / "workflow-templates" / "promotion.yml").read_text())
    granted = workflow["jobs"]["approvals"]["permissions"]
    number = ask(world)
    event = world.forge.store.find(Event)[-1]
    run = runs.create_run(world.forge, event, ".github/workflows/promotion.yml", "Promotion")
    token = runs.mint_run_token(world.forge, run, granted)
    judge(world, number, who=token)
    world.review("bob", number)
    judge(world, number, who=token)
    assert [state for state, _ in statuses(world, number)] == ["success", "pending"]
    [comment] = comments(world, number)
    assert comment["user"]["login"] == "github-actions[bot]"
    assert "approved" in comment["body"]
