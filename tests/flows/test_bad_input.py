"""Bad files, odd places and a garbled environment at the command line: each is refused in words that mend it.

Training, MLflow and the forge have their own: ``test_bad_input_training.py`` and ``test_bad_input_github.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.refusals import refused
from tests.training import ModelRepo, make_repo, track

Cli = Callable[..., subprocess.CompletedProcess[str]]
NEEDING_MODEL = ("validate", "train", "evaluate", "register", "rollback", "monitor", "cost", "retrain")


@pytest.fixture
def repo(tmp_path: Path) -> ModelRepo:
    return make_repo(tmp_path)


def dead() -> str:
    """An address where nobody answers."""
    return f"http://127.0.0.1:{free_port()}"


# ---------------------------------------------------------------- files that people write

BROKEN = {
    "broken YAML": ("team: growth", "team: [growth", "model.yaml:", "not valid YAML"),
    "a tab": ("team: growth", "team:\tgrowth\n\tx: 1", "model.yaml:", "not valid YAML"),
    "a wrong type": ("seed: 17", "seed: seventeen", "train.seed", "valid integer", "without quotes"),
    "a list for a mapping": ("params: params.yaml", "params: [a]", "train.params", "a path inside the repository"),
    "an unknown key": ("team: growth", "taem: growth", "unknown key 'taem'", "did you mean `team`?"),
    "a key twice": ("team: growth", "team: growth\nteam: other", "model.yaml:", "team"),
    "merge-conflict markers": (
        "team: growth",
        "<<<<<<< HEAD\nteam: growth\n=======\nteam: other\n>>>>>>> other",
        "a merge conflict is left in the file",
        "git add",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_yaml(repo: ModelRepo, cli: Cli, case: str) -> None:
    good, bad, *said = BROKEN[case]
    before = (repo.path / "model.yaml").read_text()
    repo.write("model.yaml", before.replace(good, bad, 1))
    for command in ("lint", "validate", "train"):
        stderr = refused(cli(command, "--path", repo.path, MLFLOW_TRACKING_URI=dead()), 2, *said)
        assert " | " in stderr, "the offending line is shown"
    refused(cli("train", "--path", repo.path, "--format", "json", MLFLOW_TRACKING_URI=dead()), 2, *said)
    repo.write("model.yaml", before)
    assert cli("lint", "--path", repo.path).returncode == 0


def test_all_problems_of_all_files_at_once(repo: ModelRepo, cli: Cli) -> None:
    repo.spec(train={"seed": "x", "tiemout": "1h"}, team=5)
    repo.write("promotion.yaml", "apiVersion: mlp-ci/v1\nmodel: other\nstages: {staging: {version: one}}\n")
    repo.write("platform.yaml", "apiVersion: mlp-ci/v1\nstages: []\nx")
    stderr = refused(
        cli("lint", "--path", repo.path), 2, "tiemout", "train.seed", "team", "promotion.yaml:3", "platform.yaml"
    )
    assert int(stderr.strip().splitlines()[-1].split()[0]) >= 5


@pytest.mark.parametrize(
    "content", [b"", b"\x00\x01", b"\xff\xfe", b"- 1\n", b"x: &a [*a]\n", b"{" * 5000, b"a: !!python/object:os.x 1\n"]
)
def test_a_model_yaml_that_is_no_such_thing(repo: ModelRepo, cli: Cli, content: bytes) -> None:
    (repo.path / "model.yaml").write_bytes(content)
    refused(cli("lint", "--path", repo.path), 2, "model.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stages: [\n", "not valid YAML"),
        ("apiVersion: mlp-ci/v1\nstagse: []\n", "did you mean `stages`?"),
        (None, "--platform"),
    ],
)
def test_a_broken_platform_file(repo: ModelRepo, cli: Cli, tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "platform.yaml"
    if content is not None:
        file.write_text(content)
    for command in ("cost", "deploy"):
        refused(cli(command, "--path", repo.path, "--platform", file, MLFLOW_TRACKING_URI=dead()), 2, said, str(file))


# ---------------------------------------------------------------- data


def test_data_that_is_missing(repo: ModelRepo, cli: Cli) -> None:
    for file in ("data/train.csv", "data/train.csv.dvc"):
        (repo.path / file).unlink()
    for command in ("validate", "train"):
        done = cli(command, "--path", repo.path, MLFLOW_TRACKING_URI=dead())
        refused(done, 2, "data/train.csv", "DVC does not track it", "dvc add data/train.csv")


@pytest.mark.slow
def test_data_that_was_never_pushed_and_comes_later(tmp_path: Path, cli: Cli) -> None:
    repo = make_repo(tmp_path, remote=True)
    shutil.move(tmp_path / "storage", tmp_path / "kept")
    (tmp_path / "storage").mkdir()
    for name in ("train", "test"):
        (repo.path / f"data/{name}.csv").unlink()
    shutil.rmtree(repo.path / ".dvc/cache")
    refused(cli("validate", "--path", repo.path), 2, "data/train.csv", "dvc push")
    shutil.rmtree(tmp_path / "storage")
    refused(cli("validate", "--path", repo.path), 7, "cannot be reached", "storage")
    shutil.move(tmp_path / "kept", tmp_path / "storage")
    assert cli("validate", "--path", repo.path).returncode == 0, "nothing had to be cleared away"


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        ("", 2, "data/train.csv is an empty file"),
        ("id,x,noise,kind,y\n", 3, "rows"),
        ("\x00\x01\x02", 3, "the file has no such column"),
    ],
)
def test_data_without_rows(repo: ModelRepo, cli: Cli, content: str, code: int, said: str) -> None:
    repo.write("data/train.csv", content)
    track(repo, "data/train.csv")
    done = cli("validate", "--path", repo.path)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
    assert "→" in done.stdout or "fix:" in done.stderr


@pytest.mark.slow
def test_data_that_was_changed_since_it_was_tracked(tmp_path: Path, cli: Cli) -> None:
    repo = make_repo(tmp_path, remote=True)
    changed = "id,x,noise,kind,y\n1,1,1,a,1\n"
    repo.write("data/train.csv", changed)
    refused(cli("validate", "--path", repo.path), 2, "was changed since `dvc add`", "dvc add data/train.csv")
    assert (repo.path / "data/train.csv").read_text() == changed, "the change is the person's, and stays"


def test_a_pointer_with_conflict_markers(repo: ModelRepo, cli: Cli) -> None:
    repo.write("data/train.csv.dvc", "<<<<<<< HEAD\nouts: []\n=======\n>>>>>>> other\n")
    refused(cli("validate", "--path", repo.path), 2, "data/train.csv.dvc", "merge-conflict markers", "--theirs")


# ---------------------------------------------------------------- places


def test_a_folder_without_anything(tmp_path: Path, cli: Cli) -> None:
    for command in NEEDING_MODEL:
        refused(cli(command, "--path", tmp_path), 2, "model.yaml", "does not exist", "mlp-ci init", "--path")
    refused(cli("lint", "--path", tmp_path), 2, "there is no model.yaml", "mlp-ci init")
    refused(cli("deploy", "--path", tmp_path), 2, "is not in a git repository", "--path")
    assert list(tmp_path.iterdir()) == [], "a refused command leaves nothing behind"


def test_not_a_git_repository_and_one_without_commits(repo: ModelRepo, cli: Cli, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(repo.path, bare, ignore=shutil.ignore_patterns(".git"))
    uri = dead()
    for command in ("train", "evaluate", "deploy"):
        refused(cli(command, "--path", bare, MLFLOW_TRACKING_URI=uri), 2, "is not in a git repository", "git init")
    subprocess.run(["git", "init", "-q", str(bare)], check=True)
    for command in ("train", "evaluate", "deploy"):
        done = cli(command, "--path", bare, MLFLOW_TRACKING_URI=uri)
        stderr = refused(done, 2, "has no commit yet", "git commit -m")
        assert "git init" not in stderr
    committed = ModelRepo(path=bare, name=repo.name)
    committed.commit()
    refused(cli("train", "--path", bare, MLFLOW_TRACKING_URI=uri), 7, "cannot be reached")


def test_a_model_yaml_that_is_not_committed_cannot_be_deployed(tmp_path: Path, cli: Cli) -> None:
    repo = make_repo(tmp_path)
    repo.git("rm", "-q", "--cached", "model.yaml")
    repo.git("commit", "-q", "-m", "Forget the model")
    refused(cli("deploy", "--path", repo.path), 2, "has no model.yaml", "git add model.yaml")


def test_a_path_that_is_a_file_or_nothing(repo: ModelRepo, cli: Cli) -> None:
    for wrong in (repo.path / "model.yaml", repo.path / "nowhere"):
        refused(cli("train", "--path", wrong), 2, "is not a folder", "--path")


def test_a_file_where_the_work_folder_has_to_be(repo: ModelRepo, cli: Cli) -> None:
    repo.write(".mlp", "mine")
    refused(cli("train", "--path", repo.path, MLFLOW_TRACKING_URI=dead()), 7, ".mlp", "move away the file")
    refused(
        cli("train", "--path", repo.path, MLP_WORK="/dev/null/work"), 7, "/dev/null/work", "run the same command again"
    )
    assert (repo.path / ".mlp").read_text() == "mine"


def test_a_folder_that_may_not_be_written(repo: ModelRepo) -> None:
    if os.geteuid() == 0:  # root writes everywhere, unless it gives that power up
        before = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
        assert shutil.which("setpriv"), "util-linux is needed to be a user without rights"
    else:
        before = []
    command = [*before, sys.executable, "-m", "mlp_ci", "train", "--path", str(repo.path)]
    repo.path.chmod(0o555)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "MLFLOW_TRACKING_URI": dead()}
        )
    finally:
        repo.path.chmod(0o755)
    refused(done, 7, "Permission denied", str(repo.path / ".mlp"), "MLP_WORK")


def test_a_report_that_has_no_folder_to_go_to(repo: ModelRepo, cli: Cli) -> None:
    done = cli("lint", "--path", repo.path, "--output", repo.path / "nowhere" / "report.json")
    assert done.returncode == 2
    assert "there is no folder" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# ---------------------------------------------------------------- environment


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("GITHUB_REPOSITORY", "garbage", "it must be owner/name"),
        ("GITHUB_REPOSITORY", "acme/a/b", "it must be owner/name"),
        ("GITHUB_REPOSITORY", "acme/\x1b[31mred", "it must be owner/name"),
        ("GITHUB_API_URL", "garbage", "GITHUB_API_URL is 'garbage'"),
        ("GITHUB_API_URL", "http://", "GITHUB_API_URL"),
        ("GITHUB_API_URL", "http://host:notaport/", "GITHUB_API_URL"),
        ("GITHUB_SERVER_URL", "file:///etc", "GITHUB_SERVER_URL"),
        ("MLP_CLOCK_FILE", "/nowhere/clock", "MLP_CLOCK_FILE"),
        ("MLFLOW_TRACKING_URI", "nonsense://x", "nonsense"),
        ("MLFLOW_TRACKING_URI", "http://", "MLFLOW_TRACKING_URI"),
    ],
)
def test_a_garbled_environment(repo: ModelRepo, cli: Cli, name: str, value: str, said: str) -> None:
    api = f"{dead()}/api/v3"
    good = {"GITHUB_REPOSITORY": "acme/x", "GITHUB_API_URL": api, "MLFLOW_TRACKING_URI": dead()}
    done = cli("cost", "--path", repo.path, "--format", "json", **{**good, name: value})
    refused(done, 2, said)
    assert json.loads(done.stdout)["error"]["fix"]


def test_an_event_that_is_none(repo: ModelRepo, cli: Cli, tmp_path: Path) -> None:
    event = tmp_path / "event.json"
    env = {"GITHUB_REPOSITORY": "acme/x", "GITHUB_TOKEN": "t0ken-of-alice", "GITHUB_API_URL": f"{dead()}/api/v3"}
    for content, code in [("{", 7), ("[1]", 2), ('{"pull_request": 5}', 2), ('{"number": "one"}', 2)]:
        event.write_text(content)
        stderr = refused(cli("approvals", "--path", repo.path, **env, GITHUB_EVENT_PATH=str(event)), code)
        assert "which pull request?" in stderr or str(event) in stderr
        assert "t0ken" not in stderr


def test_files_of_the_job_that_cannot_be_written(repo: ModelRepo, cli: Cli) -> None:
    nowhere = str(repo.path / "nowhere" / "file")
    job = {"GITHUB_ACTIONS": "true"}
    done = cli("lint", "--path", repo.path, **job, GITHUB_STEP_SUMMARY=nowhere)
    assert done.returncode == 0, "a summary only repeats the log"
    assert "GITHUB_STEP_SUMMARY" in done.stderr
    done = cli("lint", "--path", repo.path, "--format", "json", **job, GITHUB_OUTPUT=nowhere)
    assert done.returncode == 7, "steps that follow would read outputs that are not there"
    assert json.loads(done.stdout)["outcome"] == "pass"
    assert "GITHUB_OUTPUT" in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------- a newcomer's slips


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vaildate",), "validate"),
        (("sandbox", "upp"), "up"),
        (("lint", "--fromat", "json"), "--format"),
        (("lint", "--format", "yaml"), "text or json"),
        (("schema", "modle"), "model, promotion, platform"),
        (("promote",), "stage"),
        (("promote", "staging", "--version", "one"), "--version"),
        (("lint", "notes.txt"), "it knows model.yaml"),
        (("lint", "nowhere/model.yaml"), "No such file"),
    ],
)
def test_slips_of_the_keyboard(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    done = cli(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_reader_that_goes_away_is_no_failure(repo: ModelRepo) -> None:
    command = f'"{sys.executable}" -m mlp_ci lint --path "{repo.path}" | true; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""
