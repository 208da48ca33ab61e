"""`mlp-ci init` and `mlp-ci init --update`, as processes, from this checkout, from a clone of it, and from a wheel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from mlp_ci import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    Cli = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[2]
WHO = ("--team", "growth-ml", "--owner", "acme")
ANSWERS = ".copier-answers.yml"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, check=True).stdout.rstrip(
        "\n"
    )


def commit(folder: Path, message: str = "Change") -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def files_of(folder: Path) -> dict[str, bytes]:
    found = [f for f in folder.rglob("*") if f.is_file() and ".git" not in f.relative_to(folder).parts]
    return {str(f.relative_to(folder)): f.read_bytes() for f in found}


# ---------------------------------------------------------------- init


def test_init_makes_a_repository_that_is_ready_to_be_filled(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "flight-delay"
    done = cli("init", repo, *WHO, "--format", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["data"]["answers"]["name"] == "flight-delay"
    assert [f["fix"] for f in report["findings"] if f["outcome"] == "skip"] == [
        f"cd {repo} && python data/refresh.py",
        "dvc remote add --default storage ADDRESS",
        "dvc add data/train.parquet data/test.parquet && dvc push",
        "git add -A && git commit -m 'Add the first data' && git push",
    ]
    assert git(repo, "log", "--format=%s", "--", ".") == "Start the model"
    assert git(repo, "branch", "--show-current") == "main"
    assert git(repo, "status", "--porcelain") == ""
    assert cli("lint", "--path", repo).returncode == 0
    recorded = yaml.safe_load((repo / ANSWERS).read_text())
    assert recorded["_src_path"] == "https://github.com/acme/mlp-ci"
    assert recorded["platform_ref"] == "acme/mlp-ci@v1"


@pytest.mark.parametrize("example", ["flights", "blank"])
def test_what_init_makes_passes_its_own_validation_with_data(cli: Cli, tmp_path: Path, example: str) -> None:
    repo, store = tmp_path / "model", tmp_path / "store"
    store.mkdir()
    assert cli("init", repo, *WHO, "--example", example, "--remote", str(store)).returncode == 0
    subprocess.run([sys.executable, "data/refresh.py"], cwd=repo, check=True, capture_output=True)
    suffix = "parquet" if example == "flights" else "csv"
    data = [f"data/train.{suffix}", f"data/test.{suffix}"]
    for command in (["add", *data], ["push"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=repo, check=True, capture_output=True)
    assert set(git(repo, "status", "--porcelain", "-uall").split()) == {"??", *(f"{path}.dvc" for path in data)}
    commit(repo, "Add the first data")
    for path in data:
        (repo / path).unlink()
    done = cli("validate", "--path", repo)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all((repo / path).is_file() for path in data), "fetched from the remote"


def test_init_again_changes_nothing_and_says_what_to_do(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "model"
    assert cli("init", repo, *WHO).returncode == 0
    (repo / "train.py").write_text("print('mine')\n")
    before = files_of(repo)
    for team in ("growth-ml", "another"):
        done = cli("init", repo, "--owner", "acme", "--team", team)
        assert done.returncode == 4
        assert "mlp-ci init --update" in done.stderr
    assert files_of(repo) == before
    assert git(repo, "rev-list", "--count", "HEAD") == "1"


def test_a_folder_with_other_files_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = cli("init", tmp_path, "--name", "a", *WHO)
    assert done.returncode == 2
    assert "notes.txt" in done.stderr
    assert os.listdir(tmp_path) == ["notes.txt"]  # noqa: PTH208
    done = cli("init", tmp_path / "notes.txt", "--name", "a", *WHO)
    assert done.returncode == 2
    assert "is a file" in done.stderr


def test_an_empty_clone_is_filled_and_gets_its_first_commit(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "model"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "trunk")
    assert cli("init", repo, *WHO).returncode == 0
    assert git(repo, "log", "--format=%s", "trunk") == "Start the model"


def test_what_github_puts_into_a_new_repository_is_replaced_once_git_has_it(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "model"
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    (repo / "README.md").write_text("# model\n")
    refused = cli("init", repo, *WHO)
    assert refused.returncode == 2
    assert (repo / "README.md").read_text() == "# model\n"
    git(repo, "add", "README.md")
    git(repo, "commit", "-q", "-m", "Initial commit")
    done = cli("init", repo, *WHO)
    assert done.returncode == 0, done.stderr
    assert "Roll back" in (repo / "README.md").read_text()
    assert git(repo, "log", "--format=%s") == "Initial commit", "the first pull request is the team's to make"


def test_an_init_that_was_cut_off_is_finished_by_the_next(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "model"
    assert cli("init", repo, *WHO).returncode == 0
    whole = files_of(repo)
    shutil.rmtree(repo / ".git")
    for name in (ANSWERS, "train.py", ".github/workflows/monitor.yml"):
        (repo / name).unlink()
    (repo / "train.py.mlp-ci-part").write_text("half of")
    done = cli("init", repo, *WHO)
    assert done.returncode == 0, done.stderr
    assert files_of(repo) == whole
    assert git(repo, "status", "--porcelain") == ""


def test_inside_another_repository_nothing_is_committed(cli: Cli, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    assert cli("init", tmp_path / "models" / "a", *WHO).returncode == 0
    assert not (tmp_path / "models" / "a" / ".git").exists()
    assert git(tmp_path, "status", "--porcelain") == "?? models/"


def test_without_git_there_is_none(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", tmp_path / "a", *WHO, "--no-git").returncode == 0
    assert not (tmp_path / "a" / ".git").exists()


def test_an_unknown_author_gets_everything_but_the_commit(cli: Cli, tmp_path: Path) -> None:
    repo = tmp_path / "a"
    done = cli("init", repo, *WHO, GIT_CONFIG_GLOBAL=os.devnull, HOME=str(tmp_path), EMAIL="")
    assert done.returncode == 0
    assert "git config --global user.name" in done.stdout
    assert (repo / ANSWERS).is_file()
    again = cli("init", repo, *WHO)
    assert again.returncode == 0, "the next run commits"
    assert git(repo, "log", "--format=%s") == "Start the model"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--name", "Flight Delay"], "lower-case letters, digits and hyphens"),
        (["--team", "a/b"], "such as growth-ml"),
        (["--owner", "-x-"], "a GitHub organisation"),
        (["--example", "cats"], "flights"),
        (["--platform-ref", "acme/mlp-ci"], "acme/mlp-ci@v1"),
        (["--runner", "GPU"], "a runner class"),
        (["--remote", "ssh://me:secret@host/x"], "dvc remote modify --local"),
        (["--remote", "x\n[core]"], "without spaces"),
        (["--name", "<@ 7*7 @>"], "lower-case letters"),
    ],
)
def test_a_bad_answer_is_refused_and_nothing_written(cli: Cli, tmp_path: Path, options: list[str], says: str) -> None:
    done = cli("init", tmp_path / "a", *WHO, *options)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()


# ---------------------------------------------------------------- update


class Installation:
    """mlp-ci somewhere else than this checkout: a clone (with .git) or what a wheel unpacks to."""

    def __init__(self, root: Path, cli: Cli, *, wheel: bool) -> None:
        self.root, self.cli, self.wheel = root, cli, wheel
        ignore = shutil.ignore_patterns("__pycache__", "_data")
        shutil.copytree(ROOT / "mlp_ci", root / "mlp_ci", ignore=ignore)
        build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
        for source, place in build["force-include"].items():
            target = root / (place if wheel else source)
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, target)
        self.data = root / "mlp_ci" / "_data" if wheel else root
        if not wheel:
            git(root, "init", "-q")
            commit(root, "mlp-ci as it is")

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return self.cli(*arguments, PYTHONPATH=str(self.root), PYTHONSAFEPATH="1")

    def edit(self, name: str, before: str, after: str) -> None:
        text = (self.data / name).read_text()
        assert before in text
        (self.data / name).write_text(text.replace(before, after))


@pytest.fixture
def clone(cli: Cli, tmp_path: Path) -> Installation:
    return Installation(tmp_path / "clone", cli, wheel=False)


@pytest.fixture
def wheel(cli: Cli, tmp_path: Path) -> Installation:
    return Installation(tmp_path / "site", cli, wheel=True)


def started(installation: Installation, folder: Path) -> Path:
    done = installation("init", folder, *WHO)
    assert done.returncode == 0, done.stderr
    return folder


def report_of(done: subprocess.CompletedProcess[str]) -> Any:
    return json.loads(done.stdout)


def test_an_update_brings_the_template_and_keeps_what_the_team_did(clone: Installation, tmp_path: Path) -> None:
    repo = started(clone, tmp_path / "model")
    (repo / "model.yaml").write_text((repo / "model.yaml").read_text().replace("seed: 17", "seed: 18"))
    (repo / "train.py").unlink()
    (repo / "README.md").write_text((repo / "README.md").read_text() + "\n## Ours\n")
    (repo / "CODEOWNERS").unlink()
    (repo / "notes.md").write_text("ours\n")
    commit(repo, "Make it ours")

    clone.edit("workflow-templates/monitor.yml", "Watch drift", "Look at drift")
    clone.edit("model-repos-template/repo/README.md.jinja", "## Roll back", "## Take back")
    clone.edit("model-repos-template/repo/CODEOWNERS.jinja", "# Who is asked", "# Who will be asked")
    clone.edit("model-repos-template/examples/flights/model.yaml", "timeout: 30m", "timeout: 40m")
    (clone.data / "model-repos-template/repo/.editorconfig").write_text("root = true\n")
    (clone.data / "model-repos-template/repo/.dvcignore").unlink()
    commit(clone.root, "A newer template")

    done = clone("init", "--update", repo, "--format", "json")
    assert done.returncode == 0, done.stderr
    assert report_of(done)["data"]["files"] == {
        ".dvcignore": "removed",
        ".editorconfig": "added",
        ".github/workflows/monitor.yml": "changed",
        "README.md": "changed",
    }
    readme = (repo / "README.md").read_text()
    assert "## Take back" in readme
    assert readme.endswith("## Ours\n")
    assert "seed: 18" in (repo / "model.yaml").read_text()
    assert "timeout: 30m" in (repo / "model.yaml").read_text(), "model.yaml is the team's from the first day"
    assert not (repo / "train.py").exists()
    assert not (repo / "CODEOWNERS").exists()
    assert yaml.safe_load((repo / ANSWERS).read_text())["_commit"] == git(clone.root, "rev-parse", "HEAD")
    assert git(repo, "rev-list", "--count", "HEAD") == "2", "the team looks before it commits"
    commit(repo, "Take the newest template")
    again = clone("init", "--update", repo)
    assert again.returncode == 4, again.stdout
    assert git(repo, "status", "--porcelain") == ""


@pytest.mark.slow
def test_a_repository_that_copier_itself_made_can_be_updated(clone: Installation, tmp_path: Path) -> None:
    repo = tmp_path / "model"
    command = [Path(sys.executable).with_name("copier"), "copy", "--quiet", "--defaults", "--vcs-ref", "HEAD"]
    answers = [f"--data={name}=a" for name in ("name", "team", "owner")]
    subprocess.run([*command, *answers, clone.root, repo], check=True)
    git(repo, "init", "-q")
    commit(repo)
    clone.edit("workflow-templates/monitor.yml", "Watch drift", "Look at drift")
    commit(clone.root)
    assert clone("init", "--update", repo).returncode == 0
    assert set(git(repo, "status", "--porcelain").split()) == {"M", ANSWERS, ".github/workflows/monitor.yml"}


@pytest.mark.slow
def test_a_conflict_is_marked_and_reported(clone: Installation, tmp_path: Path) -> None:
    repo = started(clone, tmp_path / "model")
    codeowners = repo / "CODEOWNERS"
    codeowners.write_text(codeowners.read_text().replace("# Who is asked to review.", "# Ask Alice."))
    commit(repo)
    clone.edit("model-repos-template/repo/CODEOWNERS.jinja", "# Who is asked to review.", "# Reviewers.")
    clone.edit("workflow-templates/monitor.yml", "Watch drift", "Look at drift")
    commit(clone.root)
    done = clone("init", "--update", repo, "--format", "json")
    assert done.returncode == 3
    finding = next(f for f in report_of(done)["findings"] if f["outcome"] == "fail")
    assert (finding["file"], "<<<<<<<" in finding["fix"]) == ("CODEOWNERS", True)
    text = codeowners.read_text()
    assert "<<<<<<< yours\n# Ask Alice." in text
    assert "# Reviewers." in text
    assert ">>>>>>> template now" in text
    assert "Look at drift" in (repo / ".github/workflows/monitor.yml").read_text()


def test_an_update_needs_a_clean_tree(clone: Installation, tmp_path: Path) -> None:
    repo = started(clone, tmp_path / "model")
    clone.edit("workflow-templates/monitor.yml", "Watch drift", "Look at drift")
    (repo / "params.yaml").write_text("a: 1\n")
    before = files_of(repo)
    done = clone("init", "--update", repo)
    assert done.returncode == 2
    assert "params.yaml" in done.stderr
    assert files_of(repo) == before


def test_only_what_init_made_can_be_updated(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", "--update", tmp_path)
    assert done.returncode == 2
    assert "was not made by `mlp-ci init`" in done.stderr
    assert cli("init", tmp_path / "a", *WHO, "--no-git").returncode == 0
    done = cli("init", "--update", tmp_path / "a")
    assert done.returncode == 2
    assert "not in a git repository" in done.stderr


@pytest.mark.parametrize("text", ["[]\n", "a: [\n", "", "_commit: --upload-pack=touch x\n", "_commit: 7\n"])
def test_answers_that_make_no_sense_are_refused(cli: Cli, tmp_path: Path, text: str) -> None:
    repo = tmp_path / "a"
    assert cli("init", repo, *WHO).returncode == 0
    (repo / ANSWERS).write_text(text)
    commit(repo)
    done = cli("init", "--update", repo)
    assert done.returncode == 2, done.stderr
    assert ANSWERS in done.stderr
    assert "Traceback" not in done.stderr
    assert git(repo, "status", "--porcelain") == ""


def test_an_address_in_the_answers_runs_nothing(wheel: Installation, tmp_path: Path) -> None:
    repo = started(wheel, tmp_path / "model")
    recorded = yaml.safe_load((repo / ANSWERS).read_text())
    recorded |= {"_commit": "0" * 40, "_src_path": f"ext::sh -c touch% {tmp_path}/owned"}
    (repo / ANSWERS).write_text(yaml.safe_dump(recorded))
    commit(repo)
    done = wheel("init", "--update", repo)
    assert done.returncode == 7
    assert not (tmp_path / "owned").exists()


@pytest.mark.slow
def test_a_wheel_has_all_it_needs(wheel: Installation, tmp_path: Path) -> None:
    repo = started(wheel, tmp_path / "model")
    assert yaml.safe_load((repo / ANSWERS).read_text())["_commit"] == f"v{__version__}"
    assert wheel("init", "--update", repo).returncode == 4
    doctor = wheel("doctor", "--path", repo, "--format", "json")
    checks = {(f["check"], f["outcome"]) for f in report_of(doctor)["findings"]}
    assert ("workflow", "pass") in checks
    assert ("workflow", "fail") not in checks


@pytest.mark.slow
def test_a_wheel_takes_the_older_template_from_the_platforms_repository(wheel: Installation, tmp_path: Path) -> None:
    repo = started(wheel, tmp_path / "model")
    (repo / "README.md").write_text((repo / "README.md").read_text() + "\nOurs.\n")
    commit(repo)
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    for part in ("copier.yml", "model-repos-template", "workflow-templates"):
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, upstream / part)
    git(upstream, "init", "-q")
    commit(upstream)
    init = wheel.root / "mlp_ci" / "__init__.py"
    init.write_text(init.read_text().replace(__version__, "99.0.0"))
    wheel.edit("model-repos-template/repo/README.md.jinja", "## Roll back", "## Take back")
    # The network of this test: github.com is a folder.
    git(repo, "config", "--global", f"url.file://{upstream}.insteadOf", "https://github.com/acme/mlp-ci")
    before = files_of(repo)

    done = wheel("init", "--update", repo)
    assert done.returncode == 7, "there is no tag of that version yet"
    assert f"v{__version__}" in done.stderr
    assert "https://github.com/acme/mlp-ci" in done.stderr
    assert files_of(repo) == before

    git(upstream, "tag", f"v{__version__}")
    done = wheel("init", "--update", repo)
    assert done.returncode == 0, done.stderr
    readme = (repo / "README.md").read_text()
    assert "## Take back" in readme
    assert readme.endswith("Ours.\n")
    assert yaml.safe_load((repo / ANSWERS).read_text())["_commit"] == "v99.0.0"
