"""`mlp-ci retrain`: an alarm becomes one pull request with newer data. Real DVC, git, forge and MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from mlp_ci.data.drift.compare import ColumnDrift
from mlp_ci.data.drift.decision import Decision
from mlp_ci.data.profiles.statistics import Distances
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.monitor.comment import BRANCH, tell_pull
from mlp_ci.monitor.retrain import retrain
from mlp_ci.report import Outcome
from mlp_ci.spec import PromotionSpec, Quarantined, load_model, render_promotion
from mlp_ci.tracking import Tracking
from mlp_ci.train.command import stop_left_over
from mlp_ci.train.key import train_key
from tests.promotion import MODEL_YAML, World, running_world
from tests.training import ModelRepo, begin_dvc, track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.report import Report

REFRESH = """\
import os, sys
now = os.environ["MLP_NOW"]
if os.path.exists("broken"):
    sys.exit("the warehouse is closed")
leaked = [k for k, v in os.environ.items() if v in ("secret-github", "secret-mlflow")]
print("leaked:", leaked)
rows = 3 if now < "2013-05" else 7
for name in ("train", "test"):
    with open(f"data/{name}.csv", "w") as file:
        file.write("distance,delayed\\n" + "".join(f"{i},{i % 2}\\n" for i in range(rows)))
open("scratch.txt", "w").close()
with open("params.yaml", "w") as file:
    file.write(f"until: {now[:7]}\\n")
"""


def drift(column: str, decision: str, psi: float, segment: str = "") -> dict[str, Any]:
    """One column as the monitor writes it."""
    apart = Distances(psi=psi, kl=psi / 2, js=0.1, hellinger=0.2, chi_square=0.0, ks=0.31, ks_p=0.0, wasserstein=2.0)
    found = ColumnDrift(
        column=column, segment=segment, kind="number", decision=Decision(decision), psi=psi, scale=1,
        pooled=psi, p_value=0.0, p_adjusted=0.0, usual=0.012, limit=0.1, windows=12, before=(0.4,),
        distances=apart, importance=0.25, rows_then=3, rows_now=900, nulls_then=0.0, nulls_now=0.02, reason="calm",
    )  # fmt: skip
    return {**asdict(found), "name": found.name}


ALARM: dict[str, Any] = {
    "verdict": "alarm",
    "drifted": True,
    "stage": "production",
    "created": "2013-08-01T00:05:09+00:00",
    "sentence": "wind_speed drifted in 900 rows",
    "window": {"since": "2013-07-01T00:00:00+00:00", "until": "2013-08-01T00:00:00+00:00"},
    "columns": [
        drift("wind_speed", "drifted", 0.48),
        drift("wind_speed", "drifted", 0.5, "origin=JFK"),
        drift("distance", "stable", 0.01),
    ],
    "decision": {"psi": 0.2},
    "report": "monitor/production-20130801T000000Z.html",
}
QUIET = {**ALARM, "verdict": "pass", "drifted": False, "columns": []}


@dataclass
class Repo:
    """A clone of the model repository on the forge, with data in DVC and version 1 live in production."""

    world: World
    tracking: Tracking
    folder: Path
    name: str
    run_id: str

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.folder), *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    def write_look(self, look: dict[str, Any]) -> None:
        file = self.world.folder / "production-latest.json"
        file.write_text(json.dumps(look))
        self.tracking.log_file(self.run_id, file, "monitor")

    @property
    def ctx(self) -> Context:
        return replace(self.world.ctx(), repo=self.folder, work=self.world.folder / "work")

    def retrain(self, *, force: bool = False, reason: str = "") -> Report:
        return retrain(self.ctx, "production", force=force, reason=reason)


def set_clock(monkeypatch: pytest.MonkeyPatch, world: World, instant: str) -> None:
    file = world.folder / "clock"
    file.write_text(instant)
    monkeypatch.setenv("MLP_CLOCK_FILE", str(file))


@pytest.fixture
def repo(tmp_path: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repo]:
    name = f"retrained-{uuid.uuid4().hex[:8]}"
    tracking = Tracking(mlflow_server)
    with running_world(tmp_path, tracking_uri=mlflow_server) as world:
        set_clock(monkeypatch, world, "2013-08-01T00:00:00+00:00")
        folder = tmp_path / "clone"
        address = world.server.url.replace("://", "://alice:alice-token@")
        subprocess.run(["git", "clone", "-q", f"{address}/acme/{world.repo.name}.git", str(folder)], check=True)
        text = MODEL_YAML.replace("arrival-delay", name).replace(".parquet", ".csv")
        text = text.replace(
            "  target: delayed", f"  target: delayed\n  refresh: {{command: {sys.executable} refresh.py}}"
        )
        (folder / "model.yaml").write_text(text)
        (folder / "refresh.py").write_text(REFRESH)
        (folder / ".gitignore").write_text("/broken\n")
        (folder / "data").mkdir()
        subprocess.run(
            [sys.executable, "refresh.py"], cwd=folder, check=True, env={**os.environ, "MLP_NOW": "2013-04-01"}
        )
        tracked = ModelRepo(path=folder, name=name)
        begin_dvc(tracked, tmp_path / "remote")
        track(tracked, "data/train.csv")
        track(tracked, "data/test.csv")
        made = Repo(world, tracking, folder, name, "")
        (folder / "scratch.txt").unlink()
        made.git("add", "-A")
        made.git("-c", "user.name=Alice", "-c", "user.email=alice@acme.test", "commit", "-q", "-m", "Start")
        made.git("push", "-q", "origin", "HEAD:main")
        experiment = tracking.experiment(name, create=True)
        assert experiment is not None
        made.run_id = tracking.start_run(experiment, "one", {}, datetime(2013, 4, 1, tzinfo=UTC))
        tracking.register_model(name, "", {})
        tags = {"mlp.gate": "pass", "mlp.data": json.dumps({"data/train.csv": "md5:1"})}
        tracking.create_version(name, made.run_id, tags, "")
        tracking.set_alias(name, "production", 1)
        yield made


def test_an_alarm_becomes_one_pull_request_with_newer_data(repo: Repo) -> None:
    repo.write_look(ALARM)
    report = repo.retrain()
    hub = repo.world.hub()
    pull = hub.pull(int(report.outputs["pull-request"]))
    assert pull.title == f"Retrain {repo.name}: wind_speed drifted"
    assert pull.head_ref == BRANCH
    assert pull.author == "mlp-ci[bot]"
    assert pull.files == ("data/test.csv.dvc", "data/train.csv.dvc", "params.yaml")
    assert "raised an alarm on version 1 in production (2013-07-01 00:00 to 2013-08-01 00:00)" in pull.body
    assert "| column | PSI | usual | limit | importance | missing then → now |" in pull.body
    assert "| wind_speed | 0.480 | 0.012 | 0.100 | 25 % | 0 % → 2 % |" in pull.body
    assert "| wind_speed where origin=JFK | 0.500 |" in pull.body
    assert "| distance |" not in pull.body
    assert "/artifacts/monitor/production-20130801T000000Z.html)" in pull.body
    assert "| data/train.csv | 3 | 7 |" in pull.body
    assert hub.read_file("params.yaml", pull.head_sha) == b"until: 2013-08\n"
    # What the pull request names is in the remote, for whoever trains.
    stored = [p for p in (repo.world.folder / "remote").rglob("*") if p.is_file()]
    assert len(stored) == 1  # train and test hold the same rows in this test

    again = repo.retrain()
    assert again.outputs == report.outputs
    assert "up to date" in again.headline
    assert len(hub.pulls_of_branch(BRANCH, "all")) == 1


@pytest.mark.slow
def test_each_look_renews_the_one_comment_on_the_open_pull_request(repo: Repo) -> None:
    repo.write_look(ALARM)
    context = replace(repo.ctx, in_job=True)
    assert tell_pull(context, ALARM, "") is None  # nobody proposed anything yet
    number = int(repo.retrain().outputs["pull-request"])
    address = "https://mlflow.acme.test/artifacts/monitor/production.html"
    told = tell_pull(
        context, {**ALARM, "columns": [drift(f"x{i} @all", "drifted", 1 / (i + 1)) for i in range(7)]}, address
    )
    assert told is not None
    assert (told.outcome, told.message) == (Outcome.PASS, f"#{number} says what this look found")
    body = comments(repo, number)[0]
    assert "✗ wind_speed drifted in 900 rows" in body
    assert "The worst 5 of 7" in body
    assert "x4" in body
    assert "x5" not in body
    assert "@all" not in body
    assert f"looked at 2013-08-01 00:05 UTC · [report]({address})" in body

    tell_pull(context, {**QUIET, "sentence": "no drift in 800 rows"}, address)
    (body,) = comments(repo, number)
    assert "✓ no drift in 800 rows" in body
    assert "wind_speed" not in body


def test_a_token_that_may_not_comment_costs_the_look_nothing(repo: Repo) -> None:
    repo.write_look(ALARM)
    number = int(repo.retrain().outputs["pull-request"])
    reader = replace(repo.ctx, github=repo.world.place("dave"))
    repo.world.faults.fail("POST /api/v3/repos", 403)
    told = tell_pull(reader, ALARM, "")
    assert told is not None
    assert told.outcome is Outcome.INCONCLUSIVE
    assert "was not told of this look" in told.message
    assert comments(repo, number) == []


def comments(repo: Repo, number: int) -> list[str]:
    hub = repo.world.hub()
    path = f"/repos/acme/{repo.world.repo.name}/issues/{number}/comments"
    return [str(c["body"]) for c in hub.wire.pages(path, "read the comments")]


def test_the_team_sees_no_secret_of_the_job(
    repo: Repo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    repo.write_look(ALARM)
    monkeypatch.setenv("GITHUB_TOKEN", "secret-github")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret-mlflow")
    repo.retrain()
    assert "leaked: []" in capfd.readouterr().err


def test_no_alarm_is_nothing_to_do_and_force_is_stronger(repo: Repo) -> None:
    for look, says in [(None, "has not looked at version 1 yet"), (QUIET, "as it should be")]:
        if look:
            repo.write_look(look)
        with pytest.raises(NothingToDo, match=says):
            repo.retrain()
    assert repo.world.hub().pulls_of_branch(BRANCH) == []
    report = repo.retrain(force=True, reason="new airport | @everyone")
    pull = repo.world.hub().pull(int(report.outputs["pull-request"]))
    assert pull.title == f"Retrain {repo.name} on newer data"
    assert "Asked for by hand:** new airport" in pull.body
    assert "@everyone" not in pull.body


def test_nothing_live_and_never_are_nothing_to_do(repo: Repo) -> None:
    with pytest.raises(NothingToDo, match="nothing is live in staging"):
        retrain(repo.ctx, "staging", force=False, reason="")
    file = repo.folder / "model.yaml"
    file.write_text(file.read_text() + "monitor: {retrain: never}\n")
    with pytest.raises(NothingToDo, match="retrain: never"):
        repo.retrain()


def test_data_that_did_not_change_is_nothing_to_do(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.write_look(ALARM)
    set_clock(monkeypatch, repo.world, "2013-04-01T00:00:00+00:00")
    with pytest.raises(NothingToDo, match="data did not change"):
        repo.retrain()


def test_a_version_that_waits_for_promotion_is_not_trained_again(repo: Repo) -> None:
    repo.write_look(ALARM)
    tags = {"mlp.gate": "pass", "mlp.data": json.dumps({"data/train.csv": "md5:2"})}
    repo.tracking.create_version(repo.name, repo.run_id, tags, "")
    with pytest.raises(NothingToDo, match="version 2, trained on other data, already waits"):
        repo.retrain()


def quarantine(repo: Repo, version: int, digest: str) -> None:
    """A rollback, as it stands in git."""
    since = datetime(2013, 7, 1, tzinfo=UTC)
    held = Quarantined(version=version, digest=digest, reason="July is too calm", since=since)
    spec = PromotionSpec(apiVersion="mlp-ci/v1", model=repo.name, quarantine=(held,))
    repo.world.push("carol", {"promotion.yaml": render_promotion(spec).encode()}, "Roll back")


@pytest.mark.slow
def test_what_was_rolled_back_is_not_trained_again(repo: Repo) -> None:
    """Same data, code and parameters give the same bytes, and those may not be promoted: say so, propose nothing."""
    repo.write_look(ALARM)
    number = int(repo.retrain().outputs["pull-request"])  # the working tree has the newer data from here on
    key = train_key(repo.ctx, load_model(repo.folder)).digest
    tags = {"mlp.gate": "pass", "mlp.data": json.dumps({"data/train.csv": "md5:2"}), "mlp.train_key": key}
    tags["mlp.digest"] = f"sha256:{2:064x}"
    repo.tracking.create_version(repo.name, repo.run_id, tags, "")
    with pytest.raises(NothingToDo, match="version 2, trained on other data, already waits"):
        repo.retrain()
    quarantine(repo, 2, tags["mlp.digest"])
    for force in (False, True):
        with pytest.raises(NothingToDo, match="gives version 2 again, which was rolled back: July is too calm") as no:
            repo.retrain(force=force)
        assert "lift the quarantine" in no.value.fix
    hub = repo.world.hub()
    assert [p["number"] for p in hub.pulls_of_branch(BRANCH, "all")] == [number]
    # Other code makes another model of the same data, and that may try.
    repo.git("checkout", "-q", "--", "data", "params.yaml")
    (repo.folder / "train.py").write_text("print('better')\n")
    repo.git("-c", "user.name=Alice", "-c", "user.email=alice@acme.test", "commit", "-q", "-m", "Better", "train.py")
    assert repo.retrain().outputs["pull-request"] == str(number)


def test_a_version_that_was_rolled_back_waits_for_nothing(repo: Repo) -> None:
    repo.write_look(ALARM)
    tags = {"mlp.gate": "pass", "mlp.data": json.dumps({"data/train.csv": "md5:2"}), "mlp.digest": f"sha256:{2:064x}"}
    repo.tracking.create_version(repo.name, repo.run_id, tags, "")
    quarantine(repo, 2, tags["mlp.digest"])
    assert repo.retrain().outputs["pull-request"] == "1"


@pytest.mark.slow
def test_a_closed_proposal_is_not_made_again_until_the_data_differs(repo: Repo) -> None:
    repo.write_look(ALARM)
    number = int(repo.retrain().outputs["pull-request"])
    path = f"/repos/acme/{repo.world.repo.name}/pulls/{number}"
    repo.world.hub("alice").wire.send("PATCH", path, "close", {"state": "closed"})
    with pytest.raises(NothingToDo, match=f"#{number} proposed the same data and was closed"):
        repo.retrain()
    assert int(repo.retrain(force=True).outputs["pull-request"]) > number


@pytest.mark.slow
def test_a_refresh_that_fails_says_what_it_said(repo: Repo) -> None:
    repo.write_look(ALARM)
    (repo.folder / "broken").touch()
    with pytest.raises(InputError, match="the warehouse is closed") as caught:
        repo.retrain()
    assert "MLP_NOW=2013-08-01" in caught.value.fix
    (repo.folder / "broken").unlink()
    assert repo.retrain().outputs["pull-request"]


@pytest.mark.slow
def test_a_refresh_that_hangs_is_stopped(repo: Repo) -> None:
    repo.write_look(ALARM)
    file = repo.folder / "model.yaml"
    file.write_text(file.read_text().replace(f"{sys.executable} refresh.py", "sleep 60, timeout: 1s"))
    repo.git("-c", "user.name=Alice", "-c", "user.email=alice@acme.test", "commit", "-q", "-a", "-m", "Hang")
    with pytest.raises(InputError, match="`sleep 60` ran into its timeout"):
        repo.retrain()


@pytest.mark.slow
def test_a_checkout_without_data_counts_train_and_test_together(repo: Repo) -> None:
    """A job's checkout has no data before the refresh, and the profile of a version knows only the sum."""
    file = repo.world.folder / "profile.json"
    file.write_text(json.dumps({"rows": 6}))
    repo.tracking.log_file(repo.run_id, file)
    repo.write_look(ALARM)
    for name in ("train", "test"):
        (repo.folder / f"data/{name}.csv").unlink()
    body = repo.world.hub().pull(int(repo.retrain().outputs["pull-request"])).body
    assert "| train and test together | 6 | 14 |" in body
    assert "data/train.csv |" not in body


@pytest.mark.slow
def test_two_at_once_propose_one_thing_and_training_ends_neither(repo: Repo) -> None:
    repo.write_look(ALARM)
    slow = (repo.folder / "refresh.py").read_text() + "import time; time.sleep(1)\n"
    (repo.folder / "refresh.py").write_text(slow)
    repo.git("-c", "user.name=Alice", "-c", "user.email=alice@acme.test", "commit", "-q", "-a", "-m", "Take time")
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(repo.retrain) for _ in range(2)]
        while not all(b.done() for b in both):
            # What `mlp-ci train` does first: end what an earlier training left running.
            assert not any(stop_left_over(notes) for notes in repo.ctx.work.glob("*") if notes.is_dir())
            time.sleep(0.05)
    assert both[0].result().outputs == both[1].result().outputs
    assert len(repo.world.hub().pulls_of_branch(BRANCH, "all")) == 1


def test_uncommitted_work_does_not_slip_in(repo: Repo) -> None:
    repo.write_look(ALARM)
    (repo.folder / "train.py").write_text("print('mine')\n")
    with pytest.raises(InputError, match=r"uncommitted changes: train\.py"):
        repo.retrain()


def test_without_a_command_and_without_imports_it_says_what_to_write(repo: Repo) -> None:
    repo.write_look(ALARM)
    file = repo.folder / "model.yaml"
    lines = [line for line in file.read_text().splitlines() if "refresh:" not in line]
    file.write_text("\n".join(lines) + "\n")
    repo.git("-c", "user.name=Alice", "-c", "user.email=alice@acme.test", "commit", "-q", "-a", "-m", "No refresh")
    with pytest.raises(NothingToDo, match="nothing says how to get newer data"):
        repo.retrain()


def test_from_the_command_line_nothing_to_do_is_exit_4(
    repo: Repo, cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    place = repo.world.place()
    env = {
        "GITHUB_TOKEN": place.token,
        "GITHUB_API_URL": place.api_url,
        "GITHUB_SERVER_URL": place.server_url,
        "GITHUB_REPOSITORY": place.full_name,
        "MLFLOW_TRACKING_URI": repo.tracking.uri,
    }
    done = cli("retrain", "--path", repo.folder, **env)
    assert done.returncode == 4
    assert "no alarm" in done.stderr
    repo.write_look(ALARM)
    done = cli("retrain", "--path", repo.folder, "--format", "json", **env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"]["pull-request"] == "1"
