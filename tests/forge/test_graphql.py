"""GraphQL: all authors of a commit with their accounts, and GitHub's words for what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.sandbox.forge import events, runs

if TYPE_CHECKING:
    from tests.forge.conftest import World

AUTHORS = """
query ($owner: String!, $name: String!, $oid: GitObjectID!, $first: Int = 100, $after: String) {
  repository(owner: $owner, name: $name) {
    object(oid: $oid) {
      ... on Commit {
        oid
        message
        author { user { login } }
        committer { user { login } }
        authors(first: $first, after: $after) {
          nodes { name email user { login } }
          pageInfo { hasNextPage endCursor }
        }
      }
    }
  }
}
"""


def ask(world: World, query: str, login: str | None = "alice", **variables: Any) -> dict[str, Any]:
    body = {"query": query, "variables": {"owner": "acme", "name": "flight-delay", **variables}}
    with world.http(login) as client:
        answer = client.post(world.server.url + "/api/graphql", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def commit_of(answer: dict[str, Any]) -> dict[str, Any]:
    assert "errors" not in answer, answer["errors"]
    return dict(answer["data"]["repository"]["object"])


def people(answer: dict[str, Any]) -> list[tuple[str, str | None]]:
    nodes = commit_of(answer)["authors"]["nodes"]
    return [(node["email"], node["user"] and node["user"]["login"]) for node in nodes]


def commit(world: World, message: str) -> str:
    folder = world.clone("alice")
    sha = world.commit(folder, {"a": message}, message)
    world.push(folder)
    return sha


def test_co_authors_are_those_of_the_trailers_once_each_and_with_their_accounts(world: World) -> None:
    carol = world.forge.store.user("carol")
    assert carol
    lines = [
        "Co-authored-by: Bob <BOB@acme.test>",
        "co-AUTHORED-by: Bob again <bob@acme.test>",
        "Co-authored-by: Alice <alice@acme.test>",
        f"Co-authored-by: Carol <{carol.id}+carol@users.noreply.github.com>",
        "Co-authored-by: Dave <dave@users.noreply.github.com>",
        f"Co-authored-by: Not Bob <{carol.id + 900}+bob@users.noreply.github.com>",
        "Co-authored-by: Nobody <nobody@elsewhere.test>",
        "Co-authored-by: without an address",
        "Signed-off-by: Eve <eve@outside.test>",
    ]
    sha = commit(world, "Change\n\nCo-authored-by: Eve <eve@outside.test>\nis no trailer here.\n\n" + "\n".join(lines))
    answer = ask(world, AUTHORS, oid=sha)
    assert people(answer) == [
        ("alice@acme.test", "alice"),
        ("BOB@acme.test", "bob"),
        (f"{carol.id}+carol@users.noreply.github.com", "carol"),
        ("dave@users.noreply.github.com", "dave"),
        (f"{carol.id + 900}+bob@users.noreply.github.com", None),
        ("nobody@elsewhere.test", None),
    ]
    found = commit_of(answer)
    assert (found["oid"], found["message"].splitlines()[0]) == (sha, "Change")
    assert found["author"]["user"]["login"] == found["committer"]["user"]["login"] == "alice"


def test_authors_are_paged(world: World) -> None:
    lines = "\n".join(f"Co-authored-by: P{n} <p{n}@acme.test>" for n in range(120))
    sha = commit(world, f"Change\n\n{lines}")
    first = ask(world, AUTHORS, oid=sha)
    info = commit_of(first)["authors"]["pageInfo"]
    assert (len(people(first)), info["hasNextPage"]) == (100, True)
    second = ask(world, AUTHORS, oid=sha, after=info["endCursor"])
    assert len({*people(first), *people(second)}) == 121
    assert not commit_of(second)["authors"]["pageInfo"]["hasNextPage"]


def test_several_commits_can_be_asked_for_at_once(world: World) -> None:
    sha = commit(world, "One")
    fields = f'a: object(oid: "{sha}") {{ oid }} b: object(oid: "{"0" * 40}") {{ oid }}'
    answer = ask(world, f'{{ repository(owner: "acme", name: "flight-delay") {{ {fields} }} }}')
    assert answer == {"data": {"repository": {"a": {"oid": sha}, "b": None}}}


@pytest.mark.parametrize("login", ["eve", "dave"])
def test_what_cannot_be_seen_is_not_found(world: World, login: str) -> None:
    sha = commit(world, "One")
    answer = ask(world, AUTHORS, login, oid=sha)
    if login == "dave":
        assert commit_of(answer)["oid"] == sha
        return
    assert answer["data"] == {"repository": None}
    assert (answer["errors"][0]["type"], answer["errors"][0]["path"]) == ("NOT_FOUND", ["repository"])


def test_a_run_needs_the_permission_to_read_contents(world: World) -> None:
    sha = commit(world, "One")
    event = events.take_events(world.forge.store)[-1]
    run = runs.create_run(world.forge, event, ".github/workflows/ci.yml", "CI")
    for permissions, kind in (({"issues": "write"}, "FORBIDDEN"), ({"contents": "read"}, None)):
        world.tokens["run"] = runs.mint_run_token(world.forge, run, permissions)
        errors = ask(world, AUTHORS, "run", oid=sha).get("errors", [{"type": None}])
        assert errors[0]["type"] == kind


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{", "Syntax Error"),
        ("{ secrets }", "Cannot query field 'secrets'"),
        ("mutation { mergePullRequest }", "not configured"),
        ("{" + " viewer { login }" * 10_000 + "}", "tokens"),
        ('{ repository(owner: "acme") { name } }', "'name'"),
    ],
)
def test_queries_that_are_refused_whole(world: World, query: str, said: str) -> None:
    answer = ask(world, query)
    assert said in answer["errors"][0]["message"]
    assert not answer.get("data")


@pytest.mark.parametrize(
    ("variables", "kind"),
    [
        ({"first": 101}, "EXCESSIVE_PAGINATION"),
        ({"first": None}, "MISSING_PAGINATION_BOUNDARIES"),
        ({"after": "%%"}, "INVALID_CURSOR_ARGUMENTS"),
        ({"after": "eA=="}, "INVALID_CURSOR_ARGUMENTS"),
    ],
)
def test_pages_have_bounds(world: World, variables: dict[str, Any], kind: str) -> None:
    sha = commit(world, "One")
    assert [e["type"] for e in ask(world, AUTHORS, oid=sha, **variables)["errors"]] == [kind]


def test_doors_and_bodies(world: World) -> None:
    url = world.server.url + "/api/graphql"
    with world.http(None) as nobody, world.http() as client:
        assert nobody.post(url, json={"query": "{ viewer { login } }"}).status_code == 401
        assert nobody.post(url, headers={"Authorization": "Bearer nonsense"}).json()["message"] == "Bad credentials"
        bearer = {"Authorization": "Bearer bob-token"}
        answer = nobody.post(url, json={"query": "{ viewer { login } }"}, headers=bearer)
        assert answer.json() == {"data": {"viewer": {"login": "bob"}}}
        for body in (b"", b"{}", b'{"query": 1}', b"[]", b'{"query": "{viewer{login}}", "variables": 3}'):
            assert client.post(url, content=body).status_code == 400
        assert client.post(url, content=b"x" * 300_000).status_code == 413
        assert client.get(url).status_code in (404, 405)
