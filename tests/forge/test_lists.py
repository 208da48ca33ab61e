"""Lists longer than a page, and lists that are not for everybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.sandbox.forge import checks, events, runs, seed
from mlp_ci.sandbox.forge.seed import Seed, SeedTeam, SeedUser

if TYPE_CHECKING:
    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"
TEAM = "/orgs/acme/teams/crowd"
MANY = 130


def all_of(world: World, path: str, login: str = "carol", key: str = "") -> list[Any]:
    """Every item of a list, page by page, and that no page is longer than a hundred."""
    found: list[Any] = []
    with world.http(login) as client:
        url: str | None = f"{path}{'&' if '?' in path else '?'}per_page=500"
        while url:
            answer = client.get(url)
            assert answer.status_code == 200, answer.text
            data = answer.json()[key] if key else answer.json()
            assert len(data) <= 100
            found += data
            url = answer.links.get("next", {}).get("url")
    return found


def test_people_beyond_a_hundred(world: World) -> None:
    logins = tuple(f"u{n:03}" for n in range(MANY))
    teams = (SeedTeam("crowd", logins, {"flight-delay": "read"}), *(SeedTeam(f"t{n:03}") for n in range(MANY)))
    with world.forge.store.tx():
        seed.apply(world.forge, Seed("acme", tuple(SeedUser(login, token=login) for login in logins), teams))
    assert [u["login"] for u in all_of(world, f"{TEAM}/members")] == list(logins)
    assert len(all_of(world, "/orgs/acme/members")) == MANY + 4
    assert len(all_of(world, "/orgs/acme/teams")) == MANY + 3
    assert len(all_of(world, f"{REPO}/collaborators")) == MANY + 4


def test_statuses_beyond_a_hundred(world: World) -> None:
    row, bob = world.repo_row(), world.forge.store.user("bob")
    assert bob
    tip = world.forge.git.refs(row)["refs/heads/main"]
    with world.forge.store.tx():
        for number in range(101):
            checks.set_status(world.forge, row, tip, bob, state="success", context=f"c{number}")
    assert len(all_of(world, f"{REPO}/commits/{tip}/status", key="statuses")) == 101
    assert len(all_of(world, f"{REPO}/commits/{tip}/statuses")) == 101


def test_a_pull_request_lists_no_more_than_250_commits_and_says_how_many_it_has(world: World) -> None:
    folder = world.clone("alice")
    head = world.git(folder, "rev-parse", "HEAD").stdout.strip()
    lines = []
    for number in range(260):
        who = f"alice <alice@acme.test> {1_700_000_000 + number} +0000"
        lines += ["commit refs/heads/topic", f"mark :{number + 1}", f"author {who}", f"committer {who}"]
        lines += [f"data {len(str(number))}", str(number), f"from {f':{number}' if number else head}"]
        lines += [f"M 100644 inline f{number:03}", f"data {len(str(number))}", str(number), ""]
    (folder / "stream").write_text("\n".join(lines), encoding="utf-8")
    world.git(folder, "-c", f"alias.load=!git fast-import --quiet < '{folder}/stream'", "load")
    world.push(folder, "topic")
    pull = world.repo("alice").create_pull(title="T", body="", head="topic", base="main")
    assert (pull.commits, pull.changed_files) == (260, 260)
    assert [c["commit"]["message"] for c in all_of(world, f"{REPO}/pulls/1/commits")] == [str(n) for n in range(250)]
    assert len(all_of(world, f"{REPO}/pulls/1/files")) == 260


@pytest.mark.parametrize("path", ["/teams", "/teams/platform", "/teams/platform/members", "/memberships/bob"])
def test_what_an_organisation_tells_to_its_own_only(world: World, path: str) -> None:
    event = events.take_events(world.forge.store)[-1]
    run = runs.create_run(world.forge, event, ".github/workflows/ci.yml", "CI")
    everything = dict.fromkeys(("contents", "pull-requests", "actions", "members", "administration"), "write")
    world.tokens["run"] = runs.mint_run_token(world.forge, run, everything)
    status = {}
    for login in ("alice", "mlp-ci[bot]", "eve", "run"):
        with world.http(login) as client:
            status[login] = client.get(f"/orgs/acme{path}").status_code
    assert status == {"alice": 200, "mlp-ci[bot]": 200, "eve": 404, "run": 403}


def test_members_are_nobodys_business_outside(world: World) -> None:
    with world.http("eve") as eve, world.http("alice") as alice:
        assert eve.get("/orgs/acme/members").json() == []
        assert eve.get("/orgs/acme/members/bob").status_code == 404
        assert alice.get("/orgs/acme/members/bob").status_code == 204


def test_an_app_of_somebody_else_is_an_outsider(world: World) -> None:
    stranger = SeedUser("stranger[bot]", kind="Bot", token="stranger-token")
    world.tokens |= seed.apply(world.forge, Seed("other", (stranger,)))
    with world.http("stranger[bot]") as client:
        assert client.get("/orgs/acme/teams/platform/members").status_code == 404
