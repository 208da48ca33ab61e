"""What git says about a working tree, for files of any name and models in any folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mlp_ci import git
from mlp_ci.errors import InputError

ODD = (
    "plain.py",
    "with space.py",
    'quo"te.py',
    "new\nline.py",
    "ünï.py",
    "\x1b[31m.py",
    "-rf",
    ":top.py",
    "byte\udcff.py",
)


def run(repo: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, check=True)
    return os.fsdecode(done.stdout)


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a model in ``models/a b`` and another beside it, all with odd names."""
    for folder in ("models/a b", "models/other", "."):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for name in ODD:
            (tmp_path / folder / name).write_text(f"{folder}\n")
    run(tmp_path, "init", "-q")
    run(tmp_path, "add", "-A")
    run(tmp_path, "commit", "-q", "-m", "Start")
    return tmp_path


@pytest.mark.parametrize("folder", [".", "models/a b"])
def test_paths_are_relative_to_the_models_folder_whatever_they_are_called(repo: Path, folder: str) -> None:
    here = repo / folder
    inside = set(ODD) if folder != "." else {f"{f}{n}" for f in ("", "models/a b/", "models/other/") for n in ODD}
    assert git.changed_files(here) == []
    assert set(git.tracked_blobs(here)) == git.tracked_files(here) == inside
    for name in ODD:
        (here / name).write_text("changed\n")
    (here / "new one.py").write_text("new\n")
    (repo / "models/other/plain.py").write_text("another model's change\n")
    elsewhere = {"models/other/plain.py"} if folder == "." else set()
    assert set(git.changed_files(here)) == {*ODD, "new one.py", *elsewhere}
    before = git.tracked_blobs(here)
    assert before.keys() == inside | {"new one.py"}
    run(repo, "add", "-A")
    assert git.tracked_blobs(here) == before, "staging changes nothing"
    run(repo, "commit", "-q", "-m", "Change")
    assert git.tracked_blobs(here) == before, "a commit of the same content is the same content"
    assert git.changed_files(here) == []


def test_moved_deleted_and_linked_files(repo: Path) -> None:
    here = repo / "models/a b"
    run(here, "mv", "plain.py", "moved.py")
    (here / "with space.py").unlink()
    (here / "link.py").symlink_to("moved.py")
    (here / "dangling").symlink_to("nowhere")
    assert {"plain.py", "moved.py", "with space.py", "link.py", "dangling"} <= set(git.changed_files(here))
    before = git.tracked_blobs(here)
    assert not {"plain.py", "with space.py"} & before.keys()
    run(repo, "add", "-A")
    run(repo, "commit", "-q", "-m", "Move")
    assert git.tracked_blobs(here) == before


def test_a_file_of_a_commit(repo: Path) -> None:
    here = repo / "models/a b"
    (here / "plain.py").write_bytes(b"\xff\x00\n\n")
    run(repo, "commit", "-q", "-a", "-m", "Bytes")
    assert git.file_at(here, "HEAD", "plain.py") == b"\xff\x00\n\n"
    assert git.file_at(here, "HEAD~1", "plain.py") == b"models/a b\n"
    assert git.file_at(here, "HEAD", "nowhere.py") is None


def test_a_repository_of_somebody_else_is_told_apart(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(InputError, match="git does not trust") as refused:
        git.require_repository(repo)
    assert refused.value.fix == f"git config --global --add safe.directory {repo}"


def test_history_is_read_whatever_people_are_called_and_however_git_is_set_up(repo: Path) -> None:
    run(repo, "config", "log.showSignature", "true")
    run(repo, "config", "log.follow", "true")
    run(repo, "mv", "new\nline.py", ":odd\n:name.py")
    run(repo, "commit", "-q", "-m", ":100644 looks like a change", "--author=\x01A : B <a@b.c>")
    run(repo, "commit", "-q", "--allow-empty", "--allow-empty-message", "-m", "")
    run(repo, "checkout", "-q", "-b", "side", "HEAD~1")
    (repo / "side.py").write_text("side\n")
    run(repo, "add", "side.py")
    run(repo, "commit", "-q", "-m", "Side")
    run(repo, "checkout", "-q", "main")
    run(repo, "merge", "-q", "--no-ff", "-m", "Merge", "side")
    found = git.commits(repo, "HEAD")
    assert [c.subject for c in found] == ["Start", ":100644 looks like a change", "", "Side", "Merge"]
    assert {(c.status, c.path) for c in found[1].changes} == {("D", "new\nline.py"), ("A", ":odd\n:name.py")}
    assert [len(c.parents) for c in found] == [0, 1, 1, 1, 2]
    assert found[2].changes == ()
    assert [c.path for c in found[4].changes] == ["side.py"], "what a merge brings, against its first parent"
    assert [c.subject for c in git.commits(repo, "HEAD", "side.py", first_parent=True)] == ["Merge"]


def test_contents_are_read_by_name_and_what_is_large_or_missing_is_left_out(repo: Path) -> None:
    files = git.files_in(repo, "HEAD")
    assert set(ODD) <= set(files)
    contents = git.blobs(repo, [*files.values(), "0" * 40, "HEAD", "nonsense"], largest=100)
    assert contents[files["plain.py"]] == b".\n"
    assert set(contents) == set(files.values())
    assert git.blobs(repo, files.values(), largest=3) == {files["plain.py"]: b".\n"}
    assert git.blobs(repo, [], largest=3) == {}
    assert git.commit_of(repo, "refs/heads/none", "HEAD") == git.head(repo)
    assert git.commit_of(repo, "--all") is None
