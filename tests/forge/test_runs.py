"""The runner's side: events with real payloads, runs and jobs that pull requests see, logs, schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.sandbox.forge import events, runs
from mlp_ci.sandbox.forge.records import Event, Run
from tests.forge.openapi import event_problem

if TYPE_CHECKING:
    from tests.forge.conftest import World

FLOW = ".github/workflows/ci.yml"


def test_a_push_carries_its_commits_and_a_run_shows_on_the_pull_request(world: World) -> None:
    forge = world.forge
    events.take_events(forge.store)
    folder = world.clone("alice")
    world.commit(folder, {FLOW: "name: CI\non: push\njobs: {}\n"}, "One", "topic")
    sha = world.commit(folder, {"train.py": "1\n", "README.md": "# more\n"}, "Two")
    world.push(folder)
    (push,) = events.take_events(forge.store)
    assert events.take_events(forge.store) == []
    payload = push.payload
    assert (payload["ref"], payload["after"], payload["created"], payload["pusher"]["name"]) == (
        "refs/heads/topic",
        sha,
        True,
        "alice",
    )
    two = payload["commits"][1]
    assert (two["message"], two["added"], two["modified"]) == ("Two", ["train.py"], ["README.md"])
    pull = world.repo("alice").create_pull(title="T", body="", head="topic", base="main")

    row = world.repo_row()
    assert list(runs.workflow_files(forge, row, push.sha)) == [FLOW]
    assert runs.changed_files(forge, row, push) is None
    run = runs.create_run(forge, push, FLOW, "CI")
    assert runs.create_run(forge, push, FLOW, "CI") == run
    assert (run.title, run.run_number, run.head_branch) == ("Two", 1, "topic")
    job = runs.create_job(forge, run, "build", ["self-hosted"])
    assert world.repo("alice").get_pull(pull.number).mergeable_state == "unstable"
    runs.update_run(forge, run, "in_progress")
    job = runs.update_job(forge, job, "in_progress")
    runs.append_log(forge, run, "a\n", job)
    runs.append_log(forge, run, "b\n")
    job = runs.update_job(forge, job, "completed", "success")
    runs.create_job(forge, run, "deploy")
    runs.update_run(forge, run, "completed", "success")
    events.finish_event(forge.store, push)
    assert runs.read_log(forge, run) == "a\nb\n"
    assert runs.read_log(forge, run, job) == "a\n"
    shown = {c.name: (c.status, c.conclusion) for c in world.repo("bob").get_commit(sha).get_check_runs()}
    assert shown == {"build": ("completed", "success"), "deploy": ("completed", "skipped")}
    assert world.repo("alice").get_pull(pull.number).mergeable_state == "clean"
    seen = world.repo("alice").get_workflow_run(run.id)
    assert (seen.conclusion, [j.name for j in seen.jobs()]) == ("success", ["build", "deploy"])


def test_a_run_that_falls_over_before_its_first_job_is_seen(world: World) -> None:
    event = next(e for e in events.take_events(world.forge.store) if e.repo_id == world.repo_row().id)
    run = runs.create_run(world.forge, event, FLOW, "CI")
    runs.update_run(world.forge, run, "completed", "failure")
    checks = world.repo("alice").get_commit("main").get_check_runs()
    assert [(c.name, c.conclusion) for c in checks] == [("CI", "failure")]


def test_changed_files_of_pushes_and_pull_requests(world: World) -> None:
    folder = world.clone("alice")
    world.commit(folder, {"a/x": "1"})
    world.push(folder)
    row = world.repo_row()
    assert runs.changed_files(world.forge, row, world.events("push")[-1]) == ["a/x"]
    world.commit(folder, {"b": "1"}, branch="topic")
    world.push(folder)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    assert runs.changed_files(world.forge, row, world.events("pull_request")[-1]) == ["b"]


def test_a_schedule_runs_on_the_default_branch(world: World) -> None:
    row = world.repo_row()
    event = events.scheduled(world.forge, row, "7 * * * *")
    tip = world.repo("alice").get_branch("main").commit.sha
    assert (event.ref, event.sha, event.actor) == ("refs/heads/main", tip, "github-actions[bot]")
    assert event.payload["schedule"] == "7 * * * *"
    assert not event.suppressed


def test_payloads_are_as_githubs_webhooks_carry_them(world: World) -> None:
    repo = world.repo("alice")
    issue = repo.create_issue("Bug")
    issue.create_comment("hello")
    issue.edit(state="closed")
    repo.create_file("f", "m", b"1", branch="main")
    repo.create_git_ref("refs/heads/topic", repo.get_branch("main").commit.sha)
    repo.create_file("g", "m", b"1", branch="topic")
    pull = repo.create_pull(title="T", body="b", head="topic", base="main")
    world.repo("bob").get_pull(pull.number).create_review(event="APPROVE")
    next(iter(pull.get_reviews())).dismiss("no")
    repo.get_git_ref("heads/topic").delete()
    kinds = {(e.event, e.action) for e in world.events()}
    assert {
        ("issues", "opened"),
        ("issues", "closed"),
        ("issue_comment", "created"),
        ("pull_request", "closed"),
        ("pull_request_review", "submitted"),
        ("pull_request_review", "dismissed"),
    } <= kinds
    assert [p for e in world.events() if (p := event_problem(e.event, e.action, e.payload))] == []
    deleted = world.events("push")[-1].payload
    assert (deleted["deleted"], deleted["head_commit"]) == (True, None)


def test_taken_events_come_again_when_the_runner_starts_anew(world: World) -> None:
    store = world.forge.store
    taken = events.take_events(store, limit=1)
    assert len(taken) == 1
    assert events.release_events(store) == 1
    again = events.take_events(store)
    assert again[0].id == taken[0].id
    for event in again:
        events.finish_event(store, event)
    assert events.release_events(store) == 0
    assert store.count(Event, "state != 'done'") == 0
    assert store.count(Run) == 0
