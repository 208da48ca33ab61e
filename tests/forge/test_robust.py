"""Many at once, a server that dies in the middle, and input nobody should send."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from github import GithubException

from mlp_ci.sandbox.forge import git_http, pulls, seed
from mlp_ci.sandbox.forge.access import Actor, open_forge
from mlp_ci.sandbox.forge.records import Event, Pull, Repo
from mlp_ci.sandbox.forge.server import ForgeServer
from tests.forge.conftest import API, WORLD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"


def test_of_two_pushes_to_one_branch_one_wins_and_both_branches_of_two_arrive(world: World) -> None:
    folders = [world.clone(login) for login in ("alice", "bob")]
    for number, folder in enumerate(folders):
        world.commit(folder, {f"{number}": "x"})
    with ThreadPoolExecutor() as pool:
        codes = [r.returncode for r in pool.map(lambda f: world.push(f, "HEAD:main", ok=False), folders)]
    assert sorted(bool(code) for code in codes) == [False, True]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda f: world.push(f, f"HEAD:refs/heads/{f.name}"), folders))
    pushed = [e.ref for e in world.events("push") if e.repo_id == world.repo_row().id][1:]
    assert sorted(pushed) == sorted(["refs/heads/main", *(f"refs/heads/{f.name}" for f in folders)])


def test_of_two_merges_of_one_pull_request_one_wins(world: World) -> None:
    folder = world.clone("alice")
    world.commit(folder, {"a": "x"}, branch="topic")
    world.push(folder)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")

    def merge(login: str) -> int:
        try:
            world.repo(login).get_pull(1).merge()
        except GithubException as error:
            return int(error.status)
        return 200

    with ThreadPoolExecutor() as pool:
        assert sorted(pool.map(merge, ("alice", "bob", "carol"))) == [200, 405, 405]
    closed = [e for e in world.events("pull_request") if e.action == "closed"]
    assert len(closed) == 1
    log = world.git(folder, "fetch", "-q", "origin") and world.git(folder, "log", "--oneline", "origin/main")
    assert len(log.stdout.splitlines()) == 3


def test_issue_numbers_are_given_once(world: World) -> None:
    with ThreadPoolExecutor(8) as pool, world.http() as client:
        answers = list(pool.map(lambda n: client.post(REPO + "/issues", json={"title": str(n)}), range(24)))
    assert sorted(a.json()["number"] for a in answers) == list(range(1, 25))


def test_everything_is_still_there_after_a_restart(world: World, tmp_path: Path) -> None:
    folder = world.clone("alice")
    sha = world.commit(folder, {"a": "x"}, branch="topic")
    world.push(folder)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    world.server.stop()
    with ForgeServer(tmp_path / "forge") as server:
        assert seed.apply(server.forge, WORLD) == world.tokens
        client = httpx.Client(base_url=server.url + API, headers={"Authorization": "token bob-token"})
        with client:
            assert client.get(REPO + "/pulls/1").json()["head"]["sha"] == sha
            assert client.put(REPO + "/pulls/1/merge").json()["merged"]


@pytest.mark.parametrize("where", ["before the ref moved", "after the ref moved"])
def test_a_merge_interrupted_by_death_is_finished_or_never_was(world: World, tmp_path: Path, where: str) -> None:
    folder = world.clone("alice")
    world.commit(folder, {"a": "x"}, branch="topic")
    world.push(folder)
    world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    world.server.stop()
    # What a killed server leaves: the intent is written, and the ref has or has not moved.
    forge = open_forge(tmp_path / "forge")
    row = seed.repo_of(forge, "acme/flight-delay")
    pull = forge.store.find(Pull)[0]
    bob = forge.store.user("bob")
    assert bob
    tip = forge.git.refs(row)["refs/heads/main"]
    tree = forge.git.merge_tree(row, tip, pull.head_sha)
    assert tree
    new = forge.git.commit_tree(row, tree, [tip], "squashed", (pulls.WEB_FLOW, pulls.WEB_FLOW))
    forge.store.update(pull, intent_sha=new, intent_user=bob.id)
    forge.store.update(row, writer_id=bob.id, writer_quiet=False)
    if where == "after the ref moved":
        assert forge.git.update_ref(row, "refs/heads/main", new, tip)
    before = forge.store.count(Event)
    forge.store.close()
    with ForgeServer(tmp_path / "forge") as server:
        pull = server.forge.store.find(Pull)[0]
        told = [(e.event, e.action, e.actor) for e in server.forge.store.find(Event, "1")][before:]
        if where == "after the ref moved":
            assert (pull.merged, pull.merge_sha, pull.merged_by) == (True, new, bob.id)
            assert told == [("push", None, "bob"), ("pull_request", "closed", "bob")]
        else:
            assert not pull.merged
            assert told == []
        assert server.forge.store.count(Repo, "writer_id IS NOT NULL") == 0


def test_a_server_killed_while_it_is_written_to_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "forge"
    forge = open_forge(root)
    seed.apply(forge, WORLD)
    forge.store.close()
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")}
    command = [sys.executable, "-m", "mlp_ci.sandbox.forge.server", "--root", str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    written = 0
    try:
        assert process.stdout
        base = process.stdout.readline().strip() + API
        headers = {"Authorization": "token alice-token"}
        with httpx.Client(base_url=base, headers=headers, transport=httpx.HTTPTransport(retries=0)) as client:
            killer_at = time.monotonic() + 1.0
            while True:
                if time.monotonic() > killer_at and written > 3:
                    process.send_signal(signal.SIGKILL)
                try:
                    body = {"message": "m", "content": "eA=="}
                    client.put(f"{REPO}/contents/f{written}", json=body).raise_for_status()
                except httpx.HTTPError:
                    break
                written += 1
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()
    assert written > 3
    with ForgeServer(root) as server:
        row = seed.repo_of(server.forge, "acme/flight-delay")
        tip = server.forge.git.refs(row)["refs/heads/main"]
        commits = server.forge.git.count(row, f"{tip}~{written}", tip)
        told = [e.payload["after"] for e in server.forge.store.find(Event, "repo_id = ? AND event = 'push'", row.id)]
        assert commits == written
        assert told[-1] == tip
        assert len(set(told)) == len(told)
        assert server.forge.git.run(row, "fsck", "--no-dangling").returncode == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/repos/../../etc/passwd", 404),
        ("GET", "/repos/acme/%2e%2e%2f%2e%2e", 404),
        ("GET", "/repos/acme/flight-delay%00", 404),
        ("GET", REPO + "/contents/..%2f..%2fforge.db", 404),
        ("GET", REPO + "/contents/.git/config", 404),
        ("GET", REPO + "/contents/README.md?ref=--output=x", 404),
        ("GET", REPO + "/contents/README.md?ref=main:README.md", 404),
        ("GET", REPO + "/contents/README.md%0a", 404),
        ("GET", REPO + "/commits/--all", 422),
        ("GET", REPO + "/commits/main..main", 422),
        ("GET", REPO + "/commits?sha=nope", 404),
        ("GET", REPO + "/commits?since=yesterday", 422),
        ("GET", REPO + "/compare/main...nope", 404),
        ("GET", REPO + "/compare/main", 404),
        ("GET", REPO + "/git/trees/nope", 404),
        ("GET", REPO + "/git/blobs/" + "0" * 40, 404),
        ("GET", REPO + "/git/ref/heads/../../HEAD", 404),
        ("GET", REPO + "/pulls/99999999999999999999", 404),
        ("GET", REPO + "/pulls/-1", 404),
        ("GET", REPO + "/issues/1e9", 404),
        ("GET", REPO + "/actions/workflows/..%2f..%2fx", 404),
        ("GET", REPO + "/nothing/here", 404),
        ("DELETE", REPO, 404),
    ],
)
def test_paths_nobody_should_ask_for(world: World, method: str, path: str, status: int) -> None:
    with world.http() as client:
        answer = client.request(method, path)
    assert (answer.status_code, "root:" in answer.text) == (status, False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b'{"title": "\\ud800"}', 400),
        (b"[" * 100_000, 400),
        (b"{}", 422),
        (b'{"title": 5}', 422),
        (b'{"title": "t", "labels": [5]}', 422),
        (b'{"title": "t", "labels": {}}', 422),
        (b'{"title": "t", "assignees": ["nobody"]}', 422),
        (b'{"title": "' + b"x" * (33 * 1024 * 1024) + b'"}', 413),
    ],
)
def test_bodies_nobody_should_send(world: World, body: bytes, status: int) -> None:
    with world.http() as client:
        answer = client.post(REPO + "/issues", content=body)
        assert answer.status_code == status
        assert client.get(REPO + "/issues?state=all").json() == []


@pytest.mark.parametrize("path", ["../up", "a/../../up", ".git/config", "a//b", "a\0b", ".GIT/x", "/"])
def test_files_cannot_be_written_outside_the_tree(world: World, path: str) -> None:
    entry = {"path": path, "mode": "100644", "type": "blob", "content": "x"}
    with world.http() as client:
        answer = client.post(REPO + "/git/trees", json={"tree": [entry]})
        assert answer.status_code == 422, answer.text
        for name in ("x\0y", 'a"b'):
            body: dict[str, Any] = {"message": name, "content": "eA=="}
            assert client.put(REPO + "/contents/new", content=json.dumps(body)).status_code in (201, 422)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a b", "x.git", "", "é", "a\nb", "-" * 101, "a\0"])
def test_repositories_cannot_be_named_like_paths(world: World, name: str) -> None:
    with world.http("carol") as client:
        assert client.post("/orgs/acme/repos", json={"name": name}).status_code == 422
    assert sorted(p.name for p in (world.forge.git.root / "acme").iterdir()) == ["flight-delay.git", "open-data.git"]


def test_git_serves_the_two_services_and_nothing_else(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    auth = ("alice", "alice-token")
    with httpx.Client(base_url=world.server.url, auth=auth) as client:
        base = "/acme/flight-delay.git"
        for path in (
            "/HEAD",
            "/config",
            "/objects/info/packs",
            "/info/refs",
            "/info/refs?service=git-x",
            "/forge.lock",
        ):
            assert client.get(base + path).status_code in (404, 405), path
        assert client.post(base + "/git-shell").status_code in (404, 405)
        assert client.get("/acme/..%2f..%2f.git/info/refs?service=git-upload-pack").status_code == 404
        assert client.post(base + "/git-upload-pack", content=b"garbage").status_code == 415
        assert client.get("/nothing").status_code == 404
        monkeypatch.setattr(git_http, "MAX_PUSH", 1000)
        assert client.post(base + "/git-receive-pack", content=b"x" * 2000).status_code == 413


def test_an_actor_inside_the_forge_is_loud(world: World) -> None:
    alice = world.forge.store.user("alice")
    assert alice
    assert not Actor(alice).quiet
