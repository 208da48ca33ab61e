"""Links, submodules and modes: what the contents API makes of them, and what only the trees API tells."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.forge.conftest import World

REPO = "/repos/acme/flight-delay"
OTHER = "5ca1ab1e" * 5
GITMODULES = """[submodule "the name"]
\tpath = deep/vendored
\turl = https://elsewhere.test/vendored.git
"""


@pytest.fixture
def tip(world: World) -> str:
    """A commit with links of all sorts and two submodules, pushed by alice."""
    folder = world.clone("alice")
    (folder / "deep").mkdir()
    links = {
        "link": "deep/real.yaml",
        "deep/up": "../README.md",
        "deep/second": "../link",
        "folder": "deep",
        "dangling": "nowhere",
        "outside": "../../../etc/passwd",
        "absolute": "/etc/passwd",
        "here": ".",
        "round": "deep/../deep/./real.yaml",
        "into": "deep/vendored",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "deep" / "real.yaml").write_text("a: 1\n", encoding="utf-8")
    (folder / ".gitmodules").write_text(GITMODULES, encoding="utf-8")
    world.git(folder, "add", "-A")
    for path in ("deep/vendored", "bare"):
        world.git(folder, "update-index", "--add", "--cacheinfo", f"160000,{OTHER},{path}")
    world.git(folder, "commit", "-q", "-m", "Links")
    world.push(folder)
    return world.git(folder, "rev-parse", "HEAD").stdout.strip()


def read(world: World, path: str, ref: str) -> Any:
    with world.http() as client:
        answer = client.get(f"{REPO}/contents/{path}", params={"ref": ref})
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.mark.parametrize(
    ("path", "real"), [("link", "deep/real.yaml"), ("round", "deep/real.yaml"), ("deep/up", "README.md")]
)
def test_a_link_to_a_file_answers_as_that_file_under_the_links_name(
    world: World, tip: str, path: str, real: str
) -> None:
    found, other = read(world, path, tip), read(world, real, tip)
    assert found["type"] == "file"
    assert (found["name"], found["path"]) == (path.rpartition("/")[2], path)
    assert {key: found[key] for key in ("sha", "size", "content")} == {
        key: other[key] for key in ("sha", "size", "content")
    }
    with world.http() as client:
        raw = client.get(f"{REPO}/contents/{path}", headers={"Accept": "application/vnd.github.raw+json"})
    assert raw.content == base64.b64decode(other["content"])


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("deep/second", "../link"),
        ("folder", "deep"),
        ("dangling", "nowhere"),
        ("outside", "../../../etc/passwd"),
        ("absolute", "/etc/passwd"),
        ("here", "."),
        ("into", "deep/vendored"),
    ],
)
def test_any_other_link_answers_as_the_link(world: World, tip: str, path: str, target: str) -> None:
    found = read(world, path, tip)
    assert (found["type"], found["target"], found["size"]) == ("symlink", target, len(target))
    assert "content" not in found


def test_a_path_through_a_link_is_no_path(world: World, tip: str) -> None:
    with world.http() as client:
        assert client.get(f"{REPO}/contents/folder/real.yaml", params={"ref": tip}).status_code == 404


@pytest.mark.parametrize(("path", "url"), [("deep/vendored", "https://elsewhere.test/vendored.git"), ("bare", "")])
def test_a_submodule_says_which_commit_of_which_repository(world: World, tip: str, path: str, url: str) -> None:
    found = read(world, path, tip)
    assert (found["type"], found["sha"], found["submodule_git_url"]) == ("submodule", OTHER, url)
    assert "content" not in found


def test_a_folder_calls_links_links_and_submodules_files(world: World, tip: str) -> None:
    kinds = {e["path"]: e["type"] for e in read(world, "deep", tip)}
    assert kinds == {
        "deep/real.yaml": "file",
        "deep/second": "symlink",
        "deep/up": "symlink",
        "deep/vendored": "file",
    }


def test_the_trees_api_tells_the_modes(world: World, tip: str) -> None:
    with world.http() as client:
        tree = client.get(f"{REPO}/git/trees/{tip}", params={"recursive": "1"}).json()["tree"]
    modes = {e["path"]: (e["mode"], e["type"]) for e in tree}
    assert modes["link"] == ("120000", "blob")
    assert modes["deep/vendored"] == ("160000", "commit")
    assert modes["deep/real.yaml"] == ("100644", "blob")
    assert modes["deep"] == ("040000", "tree")


def test_links_and_submodules_can_be_made_by_the_trees_api(world: World) -> None:
    entries = [
        {"path": "promotion.yaml", "mode": "120000", "type": "blob", "content": "README.md"},
        {"path": "sub", "mode": "160000", "type": "commit", "sha": OTHER},
    ]
    with world.http() as client:
        made = client.post(REPO + "/git/trees", json={"tree": entries})
        assert made.status_code == 201, made.text
    assert {e["path"]: e["mode"] for e in made.json()["tree"]} == {"promotion.yaml": "120000", "sub": "160000"}
