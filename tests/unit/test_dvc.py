"""mlp_ci.dvc against real DVC repositories with a folder as the remote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mlp_ci import dvc
from mlp_ci.dvc import places
from mlp_ci.errors import InputError, OutsideError

if TYPE_CHECKING:
    from pathlib import Path


def run(repo: Path, *command: str) -> None:
    if command[0] == "dvc":
        command = (sys.executable, "-m", *command)
    # Also used before the guards of a single test are up, so the environment is given whole.
    env = {
        **os.environ,
        **{f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": os.environ.get("DVC_SITE_CACHE_DIR", str(repo.parent / "site")),
        "CI": "1",
    }
    subprocess.run(command, cwd=repo, check=True, capture_output=True, stdin=subprocess.DEVNULL, env=env)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a repository `repo` (data/x.csv, data/y.csv and the folder data/many pushed) and its `remote`."""
    root = tmp_path_factory.mktemp("pushed")
    repo = root / "repo"
    (repo / "data" / "many").mkdir(parents=True)
    (root / "remote").mkdir()
    run(repo, "git", "init", "-q")
    run(repo, "dvc", "init", "-q")
    run(repo, "dvc", "remote", "add", "-q", "-d", "store", "../remote")
    (repo / "data" / "x.csv").write_text("a,b\n1,2\n")
    (repo / "data" / "y.csv").write_text("a,b\n3,4\n")
    for name in ("one.csv", "two.csv", "a b.csv"):
        (repo / "data" / "many" / name).write_text(f"a\n{name}\n")
    run(repo, "dvc", "add", "-q", "data/x.csv", "data/y.csv", "data/many")
    run(repo, "dvc", "push", "-q")
    run(repo, "git", "add", ".")
    run(repo, "git", "commit", "-q", "-m", "Data")
    return root


@pytest.fixture
def repo(pushed: Path, tmp_path: Path) -> Path:
    """A fresh copy of the pushed repository as a runner checks it out: pointers, no data, no cache."""
    shutil.copytree(pushed / "remote", tmp_path / "remote")
    run(tmp_path, "git", "clone", "-q", str(pushed / "repo"), str(tmp_path / "repo"))
    return tmp_path / "repo"


def test_digest_is_what_the_pointer_says(repo: Path) -> None:
    assert dvc.tracked_digest(repo, "data/x.csv").startswith("md5:")
    assert dvc.tracked_digest(repo, "data/many").endswith(".dir")
    assert dvc.tracked_digest(repo, "data/many/one.csv") == dvc.tracked_digest(repo, "data/many")


def test_pull_fetches_only_what_is_named(repo: Path) -> None:
    found = dvc.pull(repo, ["data/x.csv"])
    assert found["data/x.csv"].read_text() == "a,b\n1,2\n"
    assert not (repo / "data" / "y.csv").exists()


def test_pull_fetches_a_folder_and_knows_it_next_time(repo: Path) -> None:
    assert dvc.pull(repo, ["data/many/a b.csv"])["data/many/a b.csv"].read_text() == "a\na b.csv\n"
    assert places.is_here(repo, dvc.tracked(repo, "data/many"))


def test_pull_of_what_is_here_needs_neither_dvc_nor_its_remote(repo: Path, tmp_path: Path) -> None:
    dvc.pull(repo, ["data/x.csv"])
    (tmp_path / "remote").rename(tmp_path / "gone")
    (repo / ".dvc" / "config").write_text("nonsense that DVC would refuse")
    assert dvc.pull(repo, ["data/x.csv"])["data/x.csv"].is_file()


def test_pull_moves_to_the_version_that_git_asks_for(repo: Path) -> None:
    dvc.pull(repo, ["data/x.csv"])
    old = (repo / "data" / "x.csv.dvc").read_text()
    (repo / "data" / "x.csv").write_text("a,b\n9,9\n")
    assert dvc.add_and_push(repo, ["data/x.csv"]) == ["data/x.csv.dvc"]
    (repo / "data" / "x.csv.dvc").write_text(old)
    assert dvc.pull(repo, ["data/x.csv"])["data/x.csv"].read_text() == "a,b\n1,2\n"


def test_add_and_push_twice_changes_nothing_the_second_time(repo: Path, tmp_path: Path) -> None:
    (repo / "data" / "z.csv").write_text("a\n1\n")
    assert dvc.add_and_push(repo, ["data/z.csv"]) == ["data/z.csv.dvc"]
    assert dvc.add_and_push(repo, ["data/z.csv"]) == []
    md5 = dvc.tracked_digest(repo, "data/z.csv").removeprefix("md5:")
    assert (tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]).read_text() == "a\n1\n"


def test_push_is_finished_after_being_killed_between_add_and_push(repo: Path, tmp_path: Path) -> None:
    (repo / "data" / "z.csv").write_text("a\n1\n")
    run(repo, "dvc", "add", "-q", "data/z.csv")
    assert dvc.add_and_push(repo, ["data/z.csv"]) == []
    md5 = dvc.tracked_digest(repo, "data/z.csv").removeprefix("md5:")
    assert (tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]).is_file()


def test_large_files_are_hashed_once(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc.pull(repo, ["data/x.csv"])
    (repo / ".dvc" / "tmp").mkdir(exist_ok=True)
    monkeypatch.setattr(places, "NOTE_FROM_BYTES", 1)
    file = repo / "data" / "x.csv"
    first = places.md5_of_file(repo, file)
    assert places.md5_of_file(repo, file) == first
    file.write_text("something else")
    assert places.md5_of_file(repo, file) != first


def test_not_tracked_says_how_to_track(repo: Path) -> None:
    (repo / "data" / "new.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match=r"data/new\.csv is not tracked by DVC") as caught:
        dvc.tracked_digest(repo, "data/new.csv")
    assert "dvc add data/new.csv" in caught.value.fix
    with pytest.raises(InputError, match=r"not here and data/never\.csv\.dvc does not exist"):
        dvc.pull(repo, ["data/never.csv"])


def test_data_that_was_not_pushed(repo: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "remote" / "files")
    with pytest.raises(InputError, match=r"^data/x\.csv: the DVC remote .* does not have the data") as caught:
        dvc.pull(repo, ["data/x.csv"])
    assert "dvc push" in caught.value.fix


def test_only_the_file_that_lacks_is_named(repo: Path, tmp_path: Path) -> None:
    md5 = dvc.tracked_digest(repo, "data/y.csv").removeprefix("md5:")
    (tmp_path / "remote" / "files" / "md5" / md5[:2] / md5[2:]).unlink()
    with pytest.raises(InputError, match=r"^data/y\.csv: the DVC remote"):
        dvc.pull(repo, ["data/x.csv", "data/y.csv"])


def test_no_remote(repo: Path) -> None:
    (repo / ".dvc" / "config").write_text("")
    with pytest.raises(InputError, match="no default remote") as caught:
        dvc.pull(repo, ["data/x.csv"])
    assert "dvc remote add" in caught.value.fix


def test_remote_folder_that_is_gone_may_come_back(repo: Path, tmp_path: Path) -> None:
    (tmp_path / "remote").rename(tmp_path / "elsewhere")
    with pytest.raises(OutsideError, match="cannot be reached: the folder does not exist"):
        dvc.pull(repo, ["data/x.csv"])


def test_remote_that_does_not_answer_shows_no_password(repo: Path) -> None:
    (repo / ".dvc" / "config").write_text(
        "[core]\n remote = web\n['remote \"web\"']\n url = http://bob:secret@127.0.0.1:9/d\n"
    )
    with pytest.raises(OutsideError, match="cannot be reached") as caught:
        dvc.pull(repo, ["data/x.csv"])
    assert "secret" not in caught.value.what


def test_a_changed_file_is_never_overwritten(repo: Path) -> None:
    dvc.pull(repo, ["data/x.csv"])
    (repo / "data" / "x.csv").write_text("my own work\n")
    with pytest.raises(InputError, match=r"data/x\.csv was changed since `dvc add`") as caught:
        dvc.pull(repo, ["data/x.csv"])
    assert "dvc add data/x.csv" in caught.value.fix
    assert (repo / "data" / "x.csv").read_text() == "my own work\n"


def test_empty_file(repo: Path) -> None:
    (repo / "data" / "z.csv").write_text("")
    dvc.add_and_push(repo, ["data/z.csv"])
    with pytest.raises(InputError, match=r"data/z\.csv is an empty file"):
        dvc.pull(repo, ["data/z.csv"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outs: [", "is not valid YAML"),
        ("<<<<<<< HEAD\nouts:\n=======\n>>>>>>> other\n", "merge-conflict markers"),
        ("just text", "is not a file of DVC"),
        ("outs: []\n", "does not speak of"),
        ("outs:\n- path: x.csv\n  md5: zz\n", "has no md5"),
        ("outs: 7\n", "is not a file of DVC|does not speak of"),
    ],
)
def test_broken_pointer(repo: Path, text: str, message: str) -> None:
    (repo / "data" / "x.csv.dvc").write_text(text)
    with pytest.raises(InputError, match=message):
        dvc.tracked_digest(repo, "data/x.csv")


def test_output_of_a_pipeline(repo: Path) -> None:
    (repo / "dvc.yaml").write_text("stages:\n  make:\n    cmd: echo a > made.csv\n    outs: [made.csv]\n")
    run(repo, "dvc", "repro", "-q")
    assert dvc.tracked_digest(repo, "made.csv") == "md5:" + places.hash_of(repo / "made.csv")
