"""The demo's steps, in order. Each does what a team would do by hand, and waits for what happens because of it."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from mlp_ci.errors import OutsideError
from mlp_ci.sandbox import organisation, traffic
from mlp_ci.sandbox.demo.story import MODEL, REPO, Chapter, Story
from mlp_ci.sandbox.people import Person, Refused

STATUS = "mlp-ci/approvals"
APRIL = datetime(2013, 4, 1, tzinfo=UTC)
MAY = datetime(2013, 5, 1, tzinfo=UTC)
JUNE = datetime(2013, 6, 1, tzinfo=UTC)
JULY = datetime(2013, 7, 1, tzinfo=UTC)
AUGUST = datetime(2013, 8, 1, tzinfo=UTC)


def start_model(story: Story) -> None:
    """A repository, the template in it, the data under DVC, a pull request; Model CI trains and judges."""
    with story.step("Alice starts a model: flights of January to March, 'will it leave over 15 minutes late?'") as told:
        organisation.found_repository(story.home, REPO, "Will a flight from New York leave late?")
        organisation.clone(story.alice, REPO, story.tree)
        owner = REPO.split("/", maxsplit=1)[0]
        story.mlp(
            story.alice,
            *("init", str(story.tree), "--name", MODEL, "--team", organisation.TEAM, "--owner", owner),
            *("--example", "flights", "--remote", str(story.home.data_remote)),
            *("--platform-ref", f"{owner}/mlp-ci@{organisation.ACTIONS_REF}", "--runner", "gpu-small"),
            cwd=story.work,
        )
        story.alice.git(story.tree, "checkout", "-q", "-b", "first-model")
        written = story.run("python", "data/refresh.py", MLP_NOW=APRIL.isoformat()).strip().splitlines()
        for line in written:
            told.note(line)
        story.run("dvc", "add", "--quiet", "data/train.parquet", "data/test.parquet")
        story.run("dvc", "push", "--quiet")
        sha = _commit_and_push(story, "first-model", "Add the flight delay model")
        pull = story.alice.open_pull(REPO, "first-model", "Add the flight delay model", "Trained on January to March.")
        told.note(f"pull request #{pull['number']} is open; Model CI validates, trains and judges it")
        run = story.run_of("model-ci", sha=sha)
        told.result = f"Model CI passed in {_duration(run)}: data valid, model trained, gates passed"
        told.where = pull["html_url"]


def merge_and_register(story: Story) -> None:
    """The merge registers version 1 without training again, and the bot proposes it for staging."""
    with story.step("Bob reviews, Alice merges: the model becomes version 1") as told:
        pull = _open_pull(story, "first-model")
        story.bob.approve(REPO, pull["number"], "Looks good.")
        sha = story.alice.merge(REPO, pull["number"])
        run = story.run_of("model-ci", sha=sha, event="push")
        story.carol_protects_main()
        proposal = _open_pull(story, "mlp-ci/promote-staging")
        told.result = (
            f"version 1 registered in {_duration(run)} (trained once, not twice); #{proposal['number']} proposes it"
        )
        told.where = proposal["html_url"]


def stage_version_1(story: Story) -> None:
    """Staging needs no second person for tier standard, only a merge."""
    with story.step("Alice merges the promotion to staging") as told:
        address = _merge_promotion(story, "staging", approve=None)
        told.result = f"version {_version_at(address)} answers in staging"
        told.where = address


def promote_version_1(story: Story) -> None:
    """Production needs a second person: refused before, allowed after."""
    with story.step("Alice asks for production; refused until a second person approves") as told:
        story.mlp(story.alice, "promote", "production")
        pull = _open_pull(story, "mlp-ci/promote-production")
        state, words = _wait_for_status(story, pull, "pending")
        told.note(f"status {STATUS}: {state}, {words}")
        told.note(f"Alice tries to merge: {_refused(story.alice, 'PUT', pull, 'merge')}")
        told.note(f"Alice tries to approve her own: {_refused(story.alice, 'POST', pull, 'reviews')}")
        address = _merge_promotion(story, "production", approve=story.bob)
        told.note("Bob approves, Alice merges")
        told.result = f"version {_version_at(address)} answers in production"
        told.where = pull["html_url"]


def quiet_april(story: Story) -> None:
    """A month like the training data: no alarm."""
    with story.step("April: people ask about real flights") as told:
        sent = _send(story, APRIL, MAY)
        told.note(f"{sent.rows:,} flights asked about; the prediction log is in {story.home.prediction_log}")
        run = _monitor(story)
        if story.alice.pull_of(REPO, "mlp-ci/retrain"):
            msg = "April raised an alarm"
            raise OutsideError(msg, fix=run["html_url"])
        told.result = "monitor: no drift, no alarm"
        told.where = story.drift_report(version=1)


def calm_summer(story: Story) -> None:
    """Weeks unlike the training data, one after the other: an alarm, and a pull request with newer data."""
    with story.step("June and July: the same question in another season") as told:
        sent = _send(story, JUNE, AUGUST)
        told.note(f"{sent.rows:,} flights asked about")
        _monitor(story)
        told.note(f"the drift report: {story.drift_report(version=1)}")
        pull = _open_pull(story, "mlp-ci/retrain")
        told.result = f"monitor: drift; the bot opened #{pull['number']} with data up to August"
        told.where = pull["html_url"]


def retrain(story: Story) -> None:
    """Model CI trains the challenger on newer data and judges it against production on the same held-out rows."""
    with story.step("The retraining is checked, reviewed and merged: version 2") as told:
        pull = _open_pull(story, "mlp-ci/retrain")
        run = story.run_of("model-ci", sha=pull["head"]["sha"], event="pull_request")
        told.note(f"Model CI passed in {_duration(run)}")
        story.bob.approve(REPO, pull["number"], "The summer is different indeed.")
        sha = story.alice.merge(REPO, pull["number"])
        run = story.run_of("model-ci", sha=sha, event="push")
        told.result = f"version 2 beats version 1: {_comparison(story)}"
        told.where = f"{story.home.mlflow_url}/#/models/{MODEL}"


def promote_version_2(story: Story) -> None:
    """The same way again; in production people go on asking, and what they are answered decides each step."""
    with story.step("Version 2 goes to staging and to production; traffic moves as the answers allow") as told:
        _merge_promotion(story, "staging", approve=None)
        story.alice.git(story.tree, "checkout", "-q", "main")
        story.alice.git(story.tree, "pull", "-q", "--ff-only")
        story.mlp(story.alice, "promote", "production")
        with traffic.asking(story.tree, _address(story, "production"), JULY, AUGUST) as asked:
            address = _merge_promotion(story, "production", approve=story.bob)
        for line in _steps_of_rollout(story):
            told.note(line)
        if asked.failed:
            msg = f"{asked.failed} of {asked.answered + asked.failed} requests failed during the rollout"
            raise OutsideError(msg, fix="look at the logs below serve/ in the sandbox's folder")
        told.note(
            f"{asked.answered:,} requests were answered meanwhile, {asked.versions['2']:,} by version 2; none failed"
        )
        told.result = f"version {_version_at(address)} answers in production"
        told.where = address


def direct_push(story: Story) -> None:
    """Somebody with the right to push puts a version live past everybody: the deploy workflow refuses."""
    with story.step("Carol, an admin, pushes promotion.yaml straight to the default branch") as told:
        tree = story.work / "carol"
        organisation.clone(story.carol, REPO, tree)
        file = tree / "promotion.yaml"
        before = file.read_text(encoding="utf-8")
        file.write_text(_with_production_at(story, before), encoding="utf-8")
        story.carol.git(tree, "commit", "-q", "-a", "-m", "Quick fix: back to version 1")
        story.carol.git(tree, "push", "-q", "origin", "main")
        run = story.run_of("deploy", sha=story.carol.git(tree, "rev-parse", "HEAD"), conclusion="failure")
        live = _version_at(_address(story, "production"))
        told.note(f"deploy refused: {run['html_url']}")
        story.carol.git(tree, "revert", "--no-edit", "HEAD")
        story.carol.git(tree, "push", "-q", "origin", "main")
        told.note("Carol reverts her commit; git says again what runs")
        story.run_of("deploy", sha=story.carol.git(tree, "rev-parse", "HEAD"))
        told.result = f"deploy refused the unapproved change; production still runs version {live}"
        told.where = run["html_url"]


def roll_back(story: Story) -> None:
    """Traffic first, then the git record, then the quarantine."""
    with story.step("Alice rolls production back") as told:
        story.alice.git(story.tree, "pull", "-q", "--ff-only")
        address = _address(story, "production")
        printed = story.mlp(
            story.alice, "rollback", "--stage", "production", "--reason", "Too many false alarms", "--format", "json"
        )
        report = json.loads(printed)
        if _version_at(address) != 1:
            msg = f"production runs version {_version_at(address)} after the rollback"
            raise OutsideError(msg)
        told.note(report["headline"])
        told.result = "version 1 serves again; version 2 is quarantined in promotion.yaml"
        told.where = story.page("/blob/main/promotion.yaml")


CHAPTERS = (
    start_model,
    merge_and_register,
    stage_version_1,
    promote_version_1,
    quiet_april,
    calm_summer,
    retrain,
    promote_version_2,
    direct_push,
    roll_back,
)


# ---------------------------------------------------------------- what several steps do


def _commit_and_push(story: Story, branch: str, message: str) -> str:
    story.alice.git(story.tree, "add", "--all")
    story.alice.git(story.tree, "commit", "-q", "-m", message)
    story.alice.git(story.tree, "push", "-q", "-u", "origin", branch)
    return story.alice.git(story.tree, "rev-parse", "HEAD")


def _open_pull(story: Story, branch: str) -> dict[str, Any]:
    pull = story.alice.pull_of(REPO, branch)
    if pull is None:
        msg = f"there is no open pull request of {branch}"
        raise OutsideError(msg, fix=f"read the last runs at {story.page('/actions')}")
    return pull


def _merge_promotion(story: Story, stage: str, approve: Person | None) -> str:
    """Approve (if somebody is to), wait for the green status, merge, wait for the deploy; gives the stage's address."""
    pull = _open_pull(story, f"mlp-ci/promote-{stage}")
    if approve is not None:
        approve.approve(REPO, pull["number"], "The evidence convinces me.")
    _wait_for_status(story, pull, "success")
    sha = story.alice.merge(REPO, pull["number"])
    story.run_of("deploy", sha=sha)
    return _address(story, stage)


def _wait_for_status(story: Story, pull: dict[str, Any], wanted: str) -> tuple[str, str]:
    deadline = time.monotonic() + 60
    found: tuple[str, str] | None = None
    while time.monotonic() < deadline:
        found = story.alice.status(REPO, pull["head"]["sha"], STATUS)
        if found and found[0] == wanted:
            return found
        time.sleep(0.15)
    msg = f"the status {STATUS} of #{pull['number']} is {found}, not {wanted}"
    raise OutsideError(msg, fix=f"read the last runs at {story.page('/actions')}")


def _refused(worker: Person, method: str, pull: dict[str, Any], what: str) -> str:
    """What GitHub answers when ``worker`` tries; raises if it lets them."""
    body = {"merge_method": "merge"} if what == "merge" else {"event": "APPROVE"}
    try:
        worker.api(method, f"/repos/{REPO}/pulls/{pull['number']}/{what}", body)
    except Refused as refused:
        return refused.what
    msg = f"{worker.login} was allowed to {what} #{pull['number']}"
    raise OutsideError(msg)


def _address(story: Story, stage: str) -> str:
    """Where a stage answers, from the deployment that GitHub knows of."""
    for deployment in story.alice.api("GET", f"/repos/{REPO}/deployments", environment=stage):
        for status in story.alice.api("GET", f"/repos/{REPO}/deployments/{deployment['id']}/statuses"):
            if status["state"] == "success" and status["environment_url"]:
                return str(status["environment_url"])
    msg = f"GitHub knows of no deployment to {stage}"
    raise OutsideError(msg, fix=story.page("/actions"))


def _steps_of_rollout(story: Story) -> list[str]:
    """What decided each step of production's last rollout."""
    printed = story.mlp(story.alice, "rollout", "status", "--stage", "production", "--format", "json")
    progress = json.loads(printed)["data"]["stages"][0]["progress"]
    return [
        f"{step['weight']} %: {step['canary']['requests']:,} requests to version {progress['version']} "
        f"({step['canary']['errors']} errors) beside {step['stable']['requests']:,} to version {progress['stable']} "
        f"({step['stable']['errors']}) were enough"
        for step in progress["past"]
    ]


def _version_at(address: str) -> int:
    """The version that all traffic of an address goes to, as its gateway says."""
    import httpx

    arms = httpx.get(f"{address}/version", timeout=10).json()["arms"]
    return int(max(arms, key=lambda arm: arm["weight"])["version"])


def _send(story: Story, since: datetime, until: datetime) -> traffic.Sent:
    return traffic.send_flights(story.home, story.tree, _address(story, "production"), since, until, every=story.every)


def _monitor(story: Story) -> dict[str, Any]:
    """The hour comes; wait for the monitor workflow that it starts."""
    known = {run["id"] for run in story.alice.runs(REPO)}
    organisation.tick(story.home.root, REPO)
    run = story.alice.wait_for_run(
        REPO, lambda r: r["id"] not in known and r["path"].endswith("/monitor.yml") and r["event"] == "schedule"
    )
    if run["conclusion"] != "success":
        msg = f"the monitor workflow ended with {run['conclusion']}"
        raise OutsideError(msg, fix=f"read its log: {run['html_url']}")
    return run


def _comparison(story: Story) -> str:
    """The two versions on the same held-out rows, as the evidence of version 2 has it."""
    evidence = story.evidence(version=2)
    ours, theirs = (
        evidence["metrics"]["roc_auc"]["value"],
        evidence["champion_metrics"]["production"]["roc_auc"]["value"],
    )
    if ours <= theirs:
        msg = f"version 2 does not beat version 1: roc_auc {ours:.3f} against {theirs:.3f}"
        raise OutsideError(msg)
    return f"roc_auc {ours:.3f} against {theirs:.3f} on the same {evidence['rows']:,} held-out flights"


def _with_production_at(story: Story, text: str) -> str:
    """promotion.yaml with version 1 in production, as somebody in a hurry would edit it."""
    from mlp_ci.spec import StageEntry, parse_promotion, render_promotion

    promotion = parse_promotion(text.encode())
    entry = StageEntry(version=1, digest=story.version(1).digest)
    return render_promotion(promotion.model_copy(update={"stages": {**promotion.stages, "production": entry}}))


def _duration(run: dict[str, Any]) -> str:
    """How long a run took, as GitHub says."""
    began, ended = (datetime.fromisoformat(run[k]) for k in ("run_started_at", "updated_at"))
    return f"{(ended - began).total_seconds():.0f} s"


__all__ = ["CHAPTERS", "Chapter"]
