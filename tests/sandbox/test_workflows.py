"""Which workflow an event starts: GitHub's rules for branches, tags, paths and types, by its reference's examples."""

from __future__ import annotations

from typing import Any

import pytest

from mlp_ci.errors import InputError
from mlp_ci.sandbox.workflows import Trigger, labels, matches, parse, starts

JOB = "jobs: {a: {runs-on: ubuntu-latest, steps: [{run: 'true'}]}}"


def started(on: str, event: str = "push", ref: str = "refs/heads/main", **facts: Any) -> bool:
    trigger = Trigger(event, facts.pop("action", ""), ref, facts.pop("paths", ["a.txt"]), **facts)
    return starts(parse(".github/workflows/w.yml", f"on: {on}\n{JOB}"), trigger)


@pytest.mark.parametrize(
    ("pattern", "value", "yes"),
    [
        ("main", "main", True),
        ("main", "maine", False),
        ("*", "main", True),
        ("*", "feature/a", False),
        ("**", "feature/a", True),
        ("feature/*", "feature/a", True),
        ("feature/*", "feature/a/b", False),
        ("feature/**", "feature/a/b", True),
        ("v[12].[0-9]+.[0-9]+", "v1.10.2", True),
        ("v[12].[0-9]+.[0-9]+", "v3.0.0", False),
        ("*.jsx?", "page.js", True),
        ("*.jsx?", "page.jsx", True),
        ("**.js", "src/js/app.js", True),
        ("docs/**/*.md", "docs/hello.md", True),
        ("docs/**/*.md", "docs/a/b/hello.md", True),
        ("**/docs/**", "dir/docs/my-file.txt", True),
        ("**/docs/**", "docs/hello.md", True),
        ("**/*-post.md", "my-post.md", True),
        ("**/*src/**", "a/src/app.js", True),
        ("*.md", "docs/a.md", False),
        ("a.b", "axb", False),
        ("releases/mona-*", "releases/mona-the-octocat", True),
    ],
)
def test_patterns(pattern: str, value: str, *, yes: bool) -> None:
    assert matches([pattern], value) is yes


def test_the_last_pattern_that_matches_decides() -> None:
    assert not matches(["releases/**", "!releases/**-alpha"], "releases/beta/3-alpha")
    assert matches(["releases/**", "!releases/**-alpha"], "releases/10")
    assert matches(["*", "!x", "x"], "x")


@pytest.mark.parametrize("on", ["push", "[push, pull_request]", "{push: null}", "{push: {branches: [main]}}"])
def test_all_ways_to_write_a_trigger(on: str) -> None:
    assert started(on)
    assert not started(on, "workflow_dispatch")


def test_branches_and_tags() -> None:
    assert not started("{push: {branches: [main]}}", ref="refs/heads/topic")
    assert not started("{push: {branches-ignore: [main]}}")
    assert started("{push: {branches-ignore: ['topic/**']}}")
    assert started("{push: {tags: ['v*']}}", ref="refs/tags/v1")
    assert not started("{push: {tags: ['v*']}}"), "a filter of tags alone starts for no branch"
    assert not started("{push: {branches: ['**']}}", ref="refs/tags/v1"), "and the other way round"
    assert started("push", ref="refs/tags/v1")
    assert started("{push: {tags: ['v*'], paths: [x]}}", ref="refs/tags/v1"), "tags know no paths"


def test_paths() -> None:
    assert started("{push: {paths: ['**.txt']}}", paths=["docs/a.txt"])
    assert not started("{push: {paths: [promotion.yaml]}}", paths=["a", "deep/promotion.yaml"])
    assert started("{push: {paths: ['src/**', '!src/docs/**']}}", paths=["src/a"])
    assert not started("{push: {paths: ['src/**', '!src/docs/**']}}", paths=["src/docs/a"])
    assert not started("{push: {paths-ignore: ['**.md']}}", paths=["a.md", "b/c.md"])
    assert started("{push: {paths-ignore: ['**.md']}}", paths=["a.md", "b.py"])
    assert not started("{push: {branches: [main], paths: [a.txt]}}", ref="refs/heads/x")


def test_types_of_pull_requests() -> None:
    for event in ("pull_request", "pull_request_target"):
        for action in ("opened", "synchronize", "reopened"):
            assert started(event, event, action=action)
        assert not started(event, event, action="closed")
        assert started(f"{{{event}: {{types: [closed]}}}}", event, action="closed")
        assert not started(f"{{{event}: {{types: closed}}}}", event, action="opened")
    assert started("pull_request_review", "pull_request_review", action="dismissed")
    assert not started("{pull_request: {branches: [next]}}", "pull_request", action="opened")


def test_schedules_and_dispatches() -> None:
    on = "{schedule: [{cron: '23 * * * *'}, {cron: '0 1 * * *'}], workflow_dispatch: null}"
    assert started(on, "schedule", cron="0 1 * * *")
    assert not started(on, "schedule", cron="5 5 * * *")
    assert started(on, "workflow_dispatch", workflow=".github/workflows/w.yml")
    assert started(on, "workflow_dispatch", workflow="w.yml")
    assert not started(on, "workflow_dispatch", workflow=".github/workflows/other.yml")


@pytest.mark.parametrize("message", ["Fix [skip ci]", "x\n\nskip-checks: true", "[no ci] y"])
def test_a_commit_can_skip(message: str) -> None:
    assert not started("push", message=message)
    assert started("{pull_request_target: null}", "pull_request_target", action="opened", message=message)


def test_the_permissions_of_a_run_are_the_union_of_its_jobs() -> None:
    steps = "runs-on: x, steps: [{run: 'true'}]"
    text = f"""
on: push
permissions: {{contents: read}}
jobs:
  a: {{permissions: {{contents: write, issues: read}}, {steps}}}
  b: {{{steps}}}
"""
    assert parse("w.yml", text).permissions == {"contents": "write", "issues": "read"}
    assert parse("w.yml", f"on: push\n{JOB}").permissions is None
    assert parse("w.yml", f"on: push\npermissions: {{}}\n{JOB}").permissions == {}
    everything = parse("w.yml", f"on: push\npermissions: read-all\n{JOB}").permissions
    assert everything is not None
    assert set(everything.values()) == {"read"}
    assert "pull-requests" in everything


def test_labels_from_lists_groups_and_expressions() -> None:
    text = """
on: push
jobs:
  a: {runs-on: ['${{ vars.ONE }}', two], steps: []}
  b: {runs-on: '${{ fromJSON(vars.MORE) }}', steps: []}
  c: {runs-on: {group: big, labels: [three]}, steps: []}
  d: {runs-on: '${{ matrix.os }}', steps: []}
"""
    found = labels(parse("w.yml", text), {"vars": {"ONE": "one", "MORE": '["four", "five"]'}})
    assert {"one", "two", "three", "four", "five", "ubuntu-latest", "self-hosted"} <= set(found)


@pytest.mark.parametrize("text", ["", "- a", "on: push", "jobs: {}", "on: push\njobs: [", "on: push\njobs: []", "\t"])
def test_what_is_no_workflow_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(".github/workflows/w.yml", text)
    assert ".github/workflows/w.yml" in str(caught.value)


def test_yes_and_on_are_words() -> None:
    workflow = parse("w.yml", f"on: push\nname: yes\n{JOB}")
    assert (workflow.name, list(workflow.on)) == ("yes", ["push"])
