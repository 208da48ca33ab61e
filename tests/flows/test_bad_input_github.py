"""Promotions that must not happen, GitHub that does not answer, tokens that may not, and hostile words, as typed.

One forge for all of them: a case opens its own pull requests and leaves the default branch's promotion.yaml to itself.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.flows.served import BETTER, GOOD, UNGATED, Scene, scene
from tests.promotion import DIGESTS, MODEL, MODEL_YAML, World, promotion, register_versions, running_world
from tests.refusals import refused

Cli = Callable[..., subprocess.CompletedProcess[str]]
Call = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "\x1b[31m<script>alert(1)</script> @carol [free](http://evil.test) | `x` ::error::"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[World]:
    tracking = register_versions(mlflow_server)
    with running_world(tmp_path_factory.mktemp("world"), tracking_uri=tracking.uri) as running:
        yield running


@pytest.fixture
def call(world: World, cli: Cli, tmp_path: Path) -> Call:
    """``call("promote", "staging", login="dave", MLFLOW_TRACKING_URI=…)`` in a checkout of the model repository."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "model.yaml").write_text(MODEL_YAML.replace("test: ", "refresh: {command: 'true'}\n  test: "))
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "Start"]):
        subprocess.run(["git", "-C", str(checkout), *command], check=True)

    def run(command: str, *arguments: str, login: str = "alice", **env: str) -> subprocess.CompletedProcess[str]:
        return cli(command, "--path", checkout, *arguments, **{**environment(world, login), **env})

    return run


def environment(world: World, login: str) -> dict[str, str]:
    place = world.place(login)
    return {
        "GITHUB_TOKEN": place.token,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_REPOSITORY": place.full_name,
        "MLFLOW_TRACKING_URI": world.tracking_uri,
    }


def pulls(world: World) -> int:
    return len(world.hub("carol").wire.get(f"/repos/acme/{MODEL}/pulls", "list", state="all"))


# ---------------------------------------------------------------- what may not be promoted


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("staging", "--version", "99"), 2, ("version 99",)),
        (("staging", "--version", "4"), 3, ("did not pass its gate",)),
        (("staging", "--version", "0"), 2, ("version 0",)),
        (("staging", "--version", "-1"), 2, ("version -1",)),
        (("stagin", "--version", "1"), 2, ("there is no stage 'stagin'", "staging, production")),
        (("production", "--version", "2"), 5, ("mlp-ci promote staging --version 2",)),
        (("staging",), 2, ("--version",)),
    ],
)
def test_a_promotion_that_can_never_be(
    world: World, call: Call, arguments: tuple[str, ...], code: int, said: tuple[str, ...]
) -> None:
    before = pulls(world)
    refused(call("promote", *arguments, "--format", "json"), code, *said)
    assert pulls(world) == before, "no pull request is left behind"


def digest_of(version: int, digest: str) -> bytes:
    text = promotion(staging=1).decode().replace("version: 1", f"version: {version}")
    return text.replace(DIGESTS[1], digest).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (digest_of(99, DIGESTS[9]), "version 99 is not in the registry"),
        (digest_of(4, DIGESTS[4]), "version 4 did not pass its gate"),
        (digest_of(2, DIGESTS[7]), "the file names sha256:0000"),
        (b"<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> b\n", "merge conflict"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_pull_request_that_cannot_be_approved(world: World, call: Call, content: bytes, said: str) -> None:
    number = world.open("alice", {"promotion.yaml": content}, f"bad-{pulls(world)}")
    world.review("bob", number)
    done = call("approvals", "--pr", str(number))
    assert done.returncode == 5, done.stdout + done.stderr
    assert said in done.stdout
    assert "→" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    answer = json.loads(call("approvals", "--pr", str(number), "--format", "json").stdout)
    assert answer["outputs"]["approved"] == "false"


# ---------------------------------------------------------------- GitHub and MLflow away, tokens that may not


@pytest.mark.slow
def test_github_out_of_reach(call: Call) -> None:
    gone = {"GITHUB_API_URL": f"http://127.0.0.1:{free_port()}/api/v3"}
    for command in (["promote", "staging"], ["approvals", "--pr", "1"], ["deploy"], ["retrain", "--force"]):
        done = call(*command, "--format", "json", **gone)
        refused(done, 7, gone["GITHUB_API_URL"], "the connection was refused", "GITHUB_API_URL")
        assert "alice-token" not in done.stdout + done.stderr


def test_mlflow_out_of_reach(world: World, call: Call) -> None:
    gone = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    number = str(world.open("alice", {"promotion.yaml": promotion(staging=2)}, f"mlflow-{pulls(world)}"))
    for command in (["promote", "staging", "--version", "2"], ["approvals", "--pr", number], ["retrain", "--force"]):
        refused(call(*command, "--format", "json", **gone), 7, "MLflow at", "cannot be reached")


def test_a_token_without_permission(world: World, call: Call) -> None:
    before = pulls(world)
    for login, said in [("nonsense", "does not accept the token"), ("", "GITHUB_TOKEN")]:
        for command in (["promote", "staging", "--version", "3"], ["approvals", "--pr", "1"], ["deploy"], ["retrain"]):
            done = call(*command, login=login)
            refused(done, 2, said)
            assert "nonsense" not in done.stderr
    refused(call("promote", "staging", "--version", "3", login="dave"), 2, "may not", "contents: write", "403")
    refused(call("promote", "staging", "--version", "3", GITHUB_REPOSITORY="acme/nowhere"), 2, "acme/nowhere")
    assert pulls(world) == before
    number = str(world.open("alice", {"promotion.yaml": promotion(staging=3)}, f"dave-{pulls(world)}"))
    refused(call("approvals", "--pr", number, login="dave", GITHUB_ACTIONS="true"), 2, "statuses: write")
    assert call("approvals", "--pr", number, login="dave").returncode == 0, "looking needs no right to write"


# ---------------------------------------------------------------- hostile words


def test_a_hostile_title_and_a_hostile_file_name(world: World, call: Call, tmp_path: Path) -> None:
    files: dict[str, bytes | None] = {"promotion.yaml": promotion(staging=2), "a|b`c](http:evil)<b>.md": b"x"}
    number = world.open("alice", files, f"hostile-{pulls(world)}", title=HOSTILE)
    job = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    done = call("approvals", "--pr", str(number), login="app", **job)
    assert done.returncode in (0, 5), done.stderr
    summary = (tmp_path / "summary").read_text()
    comments = world.hub().wire.get(f"/repos/acme/{MODEL}/issues/{number}/comments", "read")
    for text in (done.stdout + done.stderr, summary, *(c["body"] for c in comments)):
        assert "\x1b" not in text
    for text in (summary, *(c["body"] for c in comments)):
        assert "<script" not in text
        assert "<b>" not in text
        assert "](http:evil" not in text
        assert "](http://evil" not in text
        assert "@carol" not in text


# ---------------------------------------------------------------- deploy: nothing wrong goes live


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory, mlflow_server: str) -> Iterator[Scene]:
    with scene(tmp_path_factory.mktemp("flights"), mlflow_server) as made:
        yield made


@pytest.mark.parametrize(
    ("version", "digest", "said"),
    [
        (99, "", "version 99 is not in the registry"),
        (UNGATED, "", "did not pass its gate"),
        (BETTER, f"sha256:{7:064x}", "the file names sha256:0000"),
    ],
)
def test_deploy_refuses_what_was_merged_all_the_same(
    flights: Scene, cli: Cli, version: int, digest: str, said: str
) -> None:
    known = flights.digests[GOOD]
    text = flights.entries(staging=GOOD).decode().replace("version: 1", f"version: {version}")
    content = text.replace(known, digest or flights.digests.get(version, known)).encode()
    number = flights.world.open("alice", {"promotion.yaml": content}, f"bad-{version}")
    flights.world.review("bob", number)
    flights.world.merge("carol", number)
    env = {**environment(flights.world, "app"), "MLP_SERVE_HOME": str(flights.ctx.serve_home)}
    done = cli("deploy", "--path", flights.ctx.repo, **env)
    assert done.returncode == 5, done.stdout + done.stderr
    assert said in done.stdout
    assert "→" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert flights.live("staging") is None
    answer = json.loads(cli("deploy", "--path", flights.ctx.repo, "--format", "json", **env).stdout)
    assert answer["outcome"] == "fail"
    assert answer["outputs"]["deployed"] == "[]"


@pytest.mark.slow
def test_deploy_without_mlflow_or_with_a_broken_file_or_a_weak_token_loses_nothing(flights: Scene, cli: Cli) -> None:
    env = {**environment(flights.world, "app"), "MLP_SERVE_HOME": str(flights.ctx.serve_home)}
    repo = flights.ctx.repo
    flights.world.push("carol", {"promotion.yaml": b"<<<<<<< HEAD\nstages: {}\n=======\n>>>>>>> b\n"})
    refused(cli("deploy", "--path", repo, **env), 2, "promotion.yaml:1:1", "merge conflict")
    flights.world.push("carol", {"promotion.yaml": flights.entries()})
    flights.promote(staging=GOOD)
    gone = f"http://127.0.0.1:{free_port()}"
    done = cli("deploy", "--path", repo, **{**env, "MLFLOW_TRACKING_URI": gone})
    assert done.returncode == 7, done.stdout + done.stderr
    assert "cannot be reached" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert flights.live("staging") is None
    weak = {**env, "GITHUB_TOKEN": "dave-token"}
    done = cli("deploy", "--path", repo, **weak)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "may not" in done.stdout
    assert "run `mlp-ci deploy` again" in done.stdout
    done = cli("deploy", "--path", repo, **env)
    assert done.returncode == 0, done.stdout + done.stderr
    assert flights.live("staging") == GOOD
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    assert len(flights.world.hub().deployments("staging")) == 1
    gone_again = cli("deploy", "--path", repo, **{**env, "GITHUB_API_URL": f"{gone}/api/v3"})
    refused(gone_again, 7, "the connection was refused")
    assert flights.live("staging") == GOOD, "what is served is served on"
