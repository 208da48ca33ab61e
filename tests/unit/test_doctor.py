"""`mlp-ci doctor` on real repositories, with a real forge, DVC remote and a stand-in for MLflow's two health pages."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from mlp_ci import scaffold
from mlp_ci.context import Context, GitHubPlace
from mlp_ci.doctor import examine
from mlp_ci.report import Finding, Outcome
from mlp_ci.sandbox.forge import seed
from mlp_ci.sandbox.forge.seed import Seed, SeedRepo, SeedTeam, SeedUser
from mlp_ci.sandbox.forge.server import ForgeServer
from tests.conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

PLATFORM = """\
apiVersion: mlp-ci/v1
runners:
  default: {labels: [ubuntu-latest]}
  gpu-small: {labels: [self-hosted, gpu]}
"""
WORLD = Seed(
    org="acme",
    users=(
        SeedUser("alice", "Alice", "alice@acme.test", token="alice-token"),
        SeedUser("carol", "Carol", "carol@acme.test", role="admin", token="carol-token"),
        SeedUser("dave", "Dave", "dave@acme.test", token="dave-token"),
    ),
    repos=(
        SeedRepo("flight-delay", private=False, secrets={"MLP_CI_TOKEN": "x"}, files={"README.md": b"#\n"}),
        SeedRepo(".github", private=False, files={"platform.yaml": PLATFORM.encode()}),
    ),
    teams=(SeedTeam("growth-ml", ("alice",), {"flight-delay": "write"}),),
)
Answers = dict[str, tuple[int, Any]]


@contextmanager
def server(answers: Mapping[str, tuple[int, Any]], *, delay: float = 0.0) -> Iterator[str]:
    """A loopback server with fixed answers by path; 404 for any other. Text is sent as it is, the rest as JSON."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(delay)
            status, value = answers.get(self.path.partition("?")[0], (404, {"message": "Not Found"}))
            body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def mlflow() -> Iterator[str]:
    with server({"/health": (200, "OK"), "/version": (200, "3.17.2")}) as address:
        yield address


@pytest.fixture
def forge(tmp_path: Path) -> Iterator[str]:
    with ForgeServer(tmp_path / "forge") as running:
        seed.apply(running.forge, WORLD)
        yield f"{running.url}/api/v3"


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with its data tracked and pushed to a folder beside it, made once."""
    root = tmp_path_factory.mktemp("pristine")
    (root / "store").mkdir()
    choices = scaffold.Choices(example="blank", remote="../../store", commit=False)  # relative to .dvc/
    scaffold.init(root / "model", name="flight-delay", team="growth-ml", owner="acme", choices=choices)
    author = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    # Before any test's own environment: nothing of this machine's settings may matter.
    env = {**os.environ, "HOME": str(root), "GIT_CONFIG_GLOBAL": os.devnull, "DVC_SITE_CACHE_DIR": str(root / "site")}
    for command in (
        ("git", "init", "-q", "-b", "main"),
        ("git", "add", "-A"),
        ("git", *author, "commit", "-q", "-m", "Start"),
        (sys.executable, "data/refresh.py"),
        (sys.executable, "-m", "dvc", "-q", "add", "data/train.csv", "data/test.csv"),
        (sys.executable, "-m", "dvc", "-q", "push"),
    ):
        subprocess.run(command, cwd=root / "model", env=env, check=True)
    return root


@pytest.fixture
def repo(pristine: Path, tmp_path: Path) -> Path:
    shutil.copytree(pristine, tmp_path / "world")
    return tmp_path / "world" / "model"


def context(folder: Path, **more: Any) -> Context:
    return Context(repo=folder, work=folder / ".mlp", serve_home=folder, prediction_log=folder, **more)


def place(api: str, token: str) -> GitHubPlace:
    return GitHubPlace(owner="acme", repo="flight-delay", api_url=api, server_url=api, token=token)


def of(findings: list[Finding], check: str) -> list[Finding]:
    return [f for f in findings if f.check == check]


def one(findings: list[Finding], check: str) -> Finding:
    found = of(findings, check)
    assert len(found) == 1, found
    return found[0]


def test_a_machine_without_a_model_is_examined_alone(tmp_path: Path) -> None:
    report = examine(context(tmp_path))
    assert report.outcome is Outcome.PASS
    assert {"python", "git", "disk", "act", "node", "model"} == {f.check for f in report.findings}
    assert "mlp-ci init" in one(report.findings, "model").fix


def test_a_repository_with_everything_passes_quickly(repo: Path, forge: str, mlflow: str) -> None:
    with httpx.Client(base_url=forge, headers={"Authorization": "token carol-token"}) as carol:
        rules = {
            "required_status_checks": {"strict": False, "contexts": ["mlp-ci/approvals"]},
            "enforce_admins": True,
            "required_pull_request_reviews": None,
            "restrictions": None,
        }
        answer = carol.put("/repos/acme/flight-delay/branches/main/protection", json=rules)
        assert answer.status_code == 200, answer.text
    started = time.monotonic()
    report = examine(context(repo, tracking_uri=mlflow, github=place(forge, "carol-token")))
    spent = time.monotonic() - started
    assert [f for f in report.findings if f.outcome is not Outcome.PASS and f.check != "act"] == []
    assert report.outcome is Outcome.PASS
    assert "carol may write to acme/flight-delay" in one(report.findings, "github").message
    assert "ubuntu-latest" in one(report.findings, "runner").message
    assert "staging, production" in one(report.findings, "platform").message
    assert "3.17.2" in one(report.findings, "mlflow").message
    assert spent < 8


def test_what_a_writer_cannot_see_is_skipped_and_a_reader_is_told(repo: Path, forge: str, mlflow: str) -> None:
    report = examine(context(repo, tracking_uri=mlflow, github=place(forge, "alice-token")))
    assert one(report.findings, "github").outcome is Outcome.PASS
    assert one(report.findings, "ci token").outcome is Outcome.SKIP
    assert "only an admin" in one(report.findings, "protection").message
    assert report.outcome is Outcome.PASS
    report = examine(context(repo, tracking_uri=mlflow, github=place(forge, "dave-token")))
    assert "dave may read acme/flight-delay but not write" in one(report.findings, "github").message
    assert report.outcome is Outcome.FAIL


def test_a_bad_token_and_a_missing_one(repo: Path, forge: str, mlflow: str) -> None:
    report = examine(context(repo, tracking_uri=mlflow, github=place(forge, "wrong")))
    refusal = one(report.findings, "github")
    assert refusal.outcome is Outcome.FAIL
    assert "GITHUB_TOKEN" in refusal.fix
    assert "wrong" not in str(report.as_dict())
    report = examine(context(repo, tracking_uri=mlflow, github=place(forge, "")))
    assert one(report.findings, "github").outcome is Outcome.SKIP
    assert one(report.findings, "platform").outcome is Outcome.SKIP
    assert one(examine(context(repo)).findings, "github").outcome is Outcome.FAIL, "no remote at all"


@pytest.mark.parametrize(
    ("answers", "check", "outcome", "says"),
    [
        (
            {"/actions/permissions/workflow": (200, {"can_approve_pull_request_reviews": False})},
            "ci token",
            "fail",
            "MLP_CI",
        ),
        (
            {"/actions/permissions/workflow": (200, {"can_approve_pull_request_reviews": True})},
            "ci token",
            "skip",
            "App",
        ),
        ({"/actions/secrets": (403, {"message": "Forbidden"})}, "ci token", "skip", ""),
        ({}, "protection", "fail", "mlp-ci/approvals"),
        ({"/branches/main/protection": (403, {"message": "Forbidden"})}, "protection", "skip", "mlp-ci/approvals"),
        (
            {
                "/branches/main/protection": (403, {"message": "Forbidden"}),
                "/rules/branches/main": (
                    200,
                    [
                        {
                            "type": "required_status_checks",
                            "parameters": {"required_status_checks": [{"context": "mlp-ci/approvals"}]},
                        }
                    ],
                ),
            },
            "protection",
            "pass",
            "",
        ),
        (
            {"/branches/main/protection": (200, {"required_status_checks": {"contexts": ["x"]}})},
            "protection",
            "fail",
            "app",
        ),
        ({"": (200, {"default_branch": "main"})}, "github", "skip", ""),
        ({"": (500, {"message": "Server Error"})}, "github", "skip", "run the same command again"),
    ],
)
def test_the_settings_that_github_tells(
    repo: Path, mlflow: str, answers: Answers, check: str, outcome: str, says: str
) -> None:
    about = {"default_branch": "main", "permissions": {"push": True}}
    base: Answers = {"": (200, about), "/actions/secrets": (200, {"total_count": 0, "secrets": []})}
    prefix = "/repos/acme/flight-delay"
    with server({f"{prefix}{path}": value for path, value in {**base, **answers}.items()}) as api:
        report = examine(context(repo, tracking_uri=mlflow, github=place(api, "t")))
    finding = one(report.findings, check)
    assert finding.outcome == outcome, finding
    assert says in finding.fix


def lose(path: str) -> Callable[[Path], None]:
    return lambda repo: (repo / path).unlink()


def edit(path: str, before: str, after: str) -> Callable[[Path], None]:
    def change(repo: Path) -> None:
        text = (repo / path).read_text()
        assert before in text
        (repo / path).write_text(text.replace(before, after))

    return change


def forget_remote(repo: Path) -> None:
    (repo / ".dvc" / "config").write_text("")


def empty_store(repo: Path) -> None:
    for file in (repo.parent / "store").rglob("*"):
        if file.is_file():
            file.unlink()


MONITOR = ".github/workflows/monitor.yml"


@pytest.mark.parametrize(
    ("damage", "check", "message", "fix"),
    [
        (edit("model.yaml", "tier: standard", "teir: standard"), "spec", "unknown key 'teir'", "did you mean `tier`?"),
        (lose("promotion.yaml"), "spec", "does not exist", "promotion.yaml"),
        (lose(MONITOR), "workflow", "does not exist", "mlp-ci init --update ."),
        (edit(MONITOR, "actions/cost@", "actions/costs@"), "workflow", "costs", "cost"),
        (lose("data/train.csv.dvc"), "data", "not tracked by DVC", "dvc add data/train.csv"),
        (forget_remote, "dvc remote", "no default remote", "dvc remote add --default"),
        (edit(".dvc/config", "/store", "/stores"), "dvc remote", "the folder does not exist", "dvc remote modify"),
        (empty_store, "pushed data", "data/train.csv, data/test.csv", "dvc push"),
        (edit("model.yaml", "runner: default", "runner: gpu-smal"), "runner", "gpu-smal", "did you mean `gpu-small`?"),
        (edit("model.yaml", "{inherit: true}", "{conda: params.yaml}"), "environment", "conda", "conda"),
    ],
)
def test_each_thing_missing_is_named_with_its_cure(
    repo: Path, tmp_path: Path, damage: Callable[[Path], None], check: str, message: str, fix: str
) -> None:
    platform = tmp_path / "platform.yaml"
    platform.write_text(PLATFORM)
    damage(repo)
    report = examine(context(repo, platform_file=platform, tracking_uri="sqlite:///x.db"))
    assert report.outcome is Outcome.FAIL
    missing = [f for f in of(report.findings, check) if f.outcome is Outcome.FAIL]
    assert len(missing) == 1, report.findings
    assert message in missing[0].message
    assert fix in missing[0].fix


def test_data_that_can_be_written_anew_says_how(repo: Path) -> None:
    for name in ("train.csv", "test.csv"):
        (repo / "data" / name).unlink()
        (repo / "data" / f"{name}.dvc").unlink()
    fixes = [f.fix for f in of(examine(context(repo)).findings, "data")]
    assert len(fixes) == 2
    assert all(fix.startswith("python data/refresh.py && dvc add data/") for fix in fixes)


@pytest.mark.slow
def test_mlflow_that_is_gone_or_too_old_or_silent(repo: Path) -> None:
    def finding(uri: str) -> Finding:
        return one(examine(context(repo, tracking_uri=uri)).findings, "mlflow")

    gone = finding(f"http://user:secret@127.0.0.1:{free_port()}")
    assert gone.outcome is Outcome.FAIL
    assert "cannot be reached" in gone.message
    assert "secret" not in gone.message + gone.fix
    with server({"/health": (200, "OK"), "/version": (200, "2.9.1")}) as old:
        assert "2.9.1" in finding(old).message
        assert finding(old).outcome is Outcome.FAIL
    with server({"/health": (200, "OK"), "/version": (200, "<html>")}) as odd:
        assert finding(odd).outcome is Outcome.SKIP
    assert "MLFLOW_TRACKING_URI" in finding("").fix


def test_what_does_not_answer_in_time_is_not_waited_for(repo: Path) -> None:
    with server({"/health": (200, "OK")}, delay=3.0) as slow:
        started = time.monotonic()
        report = examine(context(repo, tracking_uri=slow), patience=0.5)
        assert time.monotonic() - started < 2.5
    late = one(report.findings, "platform")
    assert (late.outcome, late.message) == (Outcome.SKIP, "no answer within 0.5 s")


def test_the_command_line_says_it_as_json_and_by_its_exit_code(cli: Any, repo: Path) -> None:
    done = cli("doctor", "--path", repo, "--format", "json")
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["data"]["missing"] == sum(f["outcome"] == "fail" for f in report["findings"]) == 2
    assert {f["check"] for f in report["findings"] if f["outcome"] == "fail"} == {"mlflow", "github"}
    folder = replace(context(repo)).repo.parent
    assert cli("doctor", "--path", folder).returncode == 0
