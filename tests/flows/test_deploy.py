"""Deploy, whole: a forge, a real MLflow, real processes. What a team sees after a merge, and what an intruder sees."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from mlp_ci import serve
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.promote import records
from mlp_ci.report import Outcome
from mlp_ci.serve import state as states
from mlp_ci.serve.targets.local import local
from mlp_ci.spec import PromotionSpec, StageEntry, load_model, render_promotion
from tests.flows.served import BETTER, BROKEN, DECIDED, GOOD, UNGATED, Scene, messages, scene
from tests.serving import Load, ask, body, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def flights(tmp_path: Path, mlflow_server: str) -> Iterator[Scene]:
    with scene(tmp_path, mlflow_server) as made:
        yield made


def test_a_merged_promotion_goes_live_with_alias_and_record(flights: Scene) -> None:
    with pytest.raises(NothingToDo) as nothing:
        serve.deploy(flights.ctx, None)
    assert nothing.value.exit_code == 4
    merged = flights.promote(staging=GOOD)
    report = serve.deploy(flights.ctx, None)
    assert report.outcome is Outcome.PASS, messages(report)
    (deployed,) = json.loads(report.outputs["deployed"])
    assert (deployed["stage"], deployed["version"], deployed["digest"]) == ("staging", 1, flights.digests[1])
    assert report.outputs["address"] == deployed["address"]
    assert ask(flights.port("staging"), body())[1]["x-model-version"] == "1"
    assert flights.tracking.alias(flights.name, "staging") == GOOD
    (record,) = flights.world.hub().deployments("staging")
    assert (record.sha, record.state, record.payload["version"]) == (merged, "success", 1)
    (chained,) = records.read(flights.world.hub())
    assert record.payload["record"] == chained.digest_of_record
    assert (chained.model, chained.stage, chained.version, chained.kind) == (flights.name, "staging", GOOD, "promotion")
    assert (chained.digest, chained.commit, chained.pull) == (flights.digests[GOOD], merged, 1)
    assert (chained.asked_by, chained.approved_by, chained.merged_by) == ("alice", ("bob",), "alice")
    assert chained.evidence == flights.tracking.version(flights.name, GOOD).evidence
    assert chained.address == deployed["address"]
    fact = serve.live(flights.ctx, load_model(flights.ctx.repo), "staging")
    assert fact
    assert fact.version == 1
    assert [i.version for i in serve.history(flights.ctx, load_model(flights.ctx.repo))] == [1]
    assert flights.live("production") is None

    writes = len(flights.world.faults.writes())
    again = serve.deploy(flights.ctx, None)
    assert (again.outcome, again.outputs["deployed"], again.exit_code) == (Outcome.PASS, "[]", None)
    assert "nothing to do" in messages(again)
    assert len(flights.world.faults.writes()) == writes, "the second run wrote nothing"


def test_a_canary_under_load_fails_no_request_and_keeps_the_version_before(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    flights.promote(staging=BETTER)
    with Load(flights.port("staging"), clients=2) as load:
        report = serve.deploy(flights.ctx, "staging")
        time.sleep(0.2)
    assert report.outcome is Outcome.PASS, messages(report)
    assert load.failed == 0
    assert load.versions["1"]
    assert load.versions["2"]
    steps = [f.message for f in report.findings if f.check == "step"]
    assert [s.split()[0] for s in steps] == ["10", "50", "100"]
    state = states.read(flights.place("staging"))
    assert state
    assert sorted(state.servers) == [1, 2], "the version before stays warm"
    assert state.log["columns"] == {"distance": "float", "carrier": "string", "flight_id": "string"}


def test_a_broken_version_is_aborted_and_git_says_so(tmp_path: Path, mlflow_server: str) -> None:
    with scene(tmp_path, mlflow_server, rollout=DECIDED) as flights:
        flights.promote(staging=GOOD)
        assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
        flights.promote(staging=BROKEN)
        with Load(flights.port("staging"), clients=2) as load:  # its rows have hour 7, where version 3 fails
            report = serve.deploy(flights.ctx, None, watch=timedelta(seconds=60))
            over = time.monotonic()
            time.sleep(1.5)
        assert report.exit_code == 6, messages(report)
        assert load.last["3"] < over + 1, "the broken version still answered after the abort"
        assert load.last["1"] > over
        said = messages(report)
        assert "the rollout of version 3 was aborted at 10 %: error_rate" in said
        assert report.outputs["rollout"] == "aborted"
        assert [f.message for f in report.findings if f.check == "analysis" and f.outcome is Outcome.FAIL]
        assert (flights.live("staging"), flights.tracking.alias(flights.name, "staging")) == (GOOD, GOOD)
        state = states.read(flights.place("staging"))
        assert state
        assert sorted(state.servers) == [GOOD]
        asked = flights.asked()
        assert asked.stages["staging"].version == GOOD
        (held,) = asked.quarantine
        assert (held.version, held.digest) == (BROKEN, flights.digests[BROKEN])
        assert "aborted at 10 %" in held.reason
        # The commit that makes git say so carries what was seen: which metric, both values, by how much, on how many.
        commits = flights.world.hub().commits_touching("promotion.yaml", "main")
        (written,) = [c.message for c in commits if c.message.startswith("Roll back")]
        assert "| errors | ✗ fail |" in written
        assert f"staging: canary, version {BROKEN} beside version {GOOD}" in written
        assert "mlp-ci rollout retry --stage staging" in written
        assert flights.records()[-1] == ("staging", GOOD, "rollback")
        again = serve.deploy(flights.ctx, None, watch=timedelta(seconds=60))
        assert (again.outcome, again.outputs["deployed"]) == (Outcome.PASS, "[]"), "the schedule tries it no more"


@pytest.mark.slow
def test_production_needs_the_approval_that_staging_does_not(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    flights.promote(staging=GOOD, production=GOOD, approve=False)
    report = serve.deploy(flights.ctx, None)
    assert report.exit_code == 5
    assert flights.live("staging") == GOOD, "the other stage was handled all the same"
    assert flights.live("production") is None
    assert "approval" in messages(report)
    assert not flights.place("production").gateway_file.exists()


def test_a_direct_push_is_refused_and_touches_nothing(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    flights.promote(staging=GOOD, production=GOOD)
    assert serve.deploy(flights.ctx, None).outcome is Outcome.PASS
    flights.world.push("carol", {"promotion.yaml": flights.entries(staging=GOOD, production=BETTER)}, "Quick fix")
    report = serve.deploy(flights.ctx, "production")
    assert report.exit_code == 5
    assert "without a merged pull request" in messages(report)
    assert flights.live("production") == GOOD
    assert flights.tracking.alias(flights.name, "production") == GOOD


@pytest.mark.slow
def test_a_moved_alias_is_reported_and_left_as_it_is(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    flights.tracking.set_alias(flights.name, "staging", BETTER)
    report = serve.deploy(flights.ctx, None)
    assert report.outcome is Outcome.PASS
    (finding,) = [f for f in report.findings if f.check == "alias"]
    assert finding.severity == "warning"
    assert "points to version 2, and git asks for version 1; MLflow does not say who did it" in finding.message
    assert "`mlp-ci audit --repair`" in finding.fix
    assert flights.tracking.alias(flights.name, "staging") == BETTER


def low_tier(flights: Scene, folder: Path, entries: dict[str, StageEntry]) -> object:
    """A repository on no GitHub at all, of a tier that needs no approval."""
    repo = folder / "alone"
    if not repo.exists():
        shutil.copytree(flights.ctx.repo, repo)
        subprocess.run(["git", "-C", str(repo), "init", "-q"], check=True)
    text = (repo / "model.yaml").read_text().replace("tier: standard", "tier: low")
    (repo / "model.yaml").write_text(text)
    promotion = PromotionSpec(apiVersion="mlp-ci/v1", model=flights.name, stages=entries)
    (repo / "promotion.yaml").write_text(render_promotion(promotion))
    subprocess.run(["git", "-C", str(repo), "add", "-A"], check=True)
    subprocess.run(["git", "-C", str(repo), "commit", "-q", "-m", "Change"], check=True)
    return replace(flights.alone, repo=repo)


def entry(flights: Scene, version: int, digest: str = "") -> StageEntry:
    return StageEntry(version=version, digest=digest or flights.digests.get(version, f"sha256:{0:064x}"))


@pytest.mark.parametrize(
    ("version", "digest", "code", "said"),
    [
        (99, "", 2, "there is no version 99"),
        (UNGATED, "", 3, "did not pass its gate"),
        (GOOD, f"sha256:{7:064x}", 2, "asks for sha256:0000"),
    ],
)
def test_a_version_that_must_not_go_live_does_not(
    flights: Scene, tmp_path: Path, version: int, digest: str, code: int, said: str
) -> None:
    ctx = low_tier(flights, tmp_path, {"staging": entry(flights, version, digest)})
    report = serve.deploy(ctx, None)  # type: ignore[arg-type]
    assert report.exit_code == code
    assert said in messages(report)
    assert flights.live("staging") is None


def test_changed_bytes_and_changed_evidence_are_refused(flights: Scene, tmp_path: Path) -> None:
    run = flights.tracking.version(flights.name, BETTER).run_id
    digest = f"sha256:{5:064x}"
    tags = {"mlp.digest": digest, "mlp.gate": "pass", "mlp.evidence": "sha256:" + "0" * 64}
    forged = flights.tracking.create_version(flights.name, run, tags, "").number
    ctx = low_tier(flights, tmp_path, {"staging": entry(flights, forged, digest)})
    report = serve.deploy(ctx, None)  # type: ignore[arg-type]
    assert report.exit_code == 3
    assert "not the evidence that it was registered with" in messages(report)
    evidence = flights.tracking.version(flights.name, BETTER).evidence
    flights.tracking.set_version_tags(flights.name, forged, {"mlp.evidence": evidence})
    report = serve.deploy(ctx, None)  # type: ignore[arg-type]
    assert report.exit_code == 2
    assert f"promotion.yaml asks for {digest}" in messages(report)
    assert flights.live("staging") is None
    assert not list((flights.ctx.serve_home / "artifacts").glob("**/model.pkl")), "the wrong bytes were not kept"


def test_without_github_only_what_needs_no_approval_goes_live(flights: Scene, tmp_path: Path) -> None:
    ctx = low_tier(flights, tmp_path, {"staging": entry(flights, GOOD)})
    assert serve.deploy(ctx, None).outcome is Outcome.PASS  # type: ignore[arg-type]
    model = ctx.repo / "model.yaml"  # type: ignore[attr-defined]
    model.write_text(model.read_text().replace("tier: low", "tier: critical"))
    subprocess.run(["git", "-C", str(model.parent), "commit", "-q", "-am", "Stricter"], check=True)
    promotion = PromotionSpec(apiVersion="mlp-ci/v1", model=flights.name, stages={"staging": entry(flights, BETTER)})
    (model.parent / "promotion.yaml").write_text(render_promotion(promotion))
    subprocess.run(["git", "-C", str(model.parent), "commit", "-q", "-am", "Promote"], check=True)
    report = serve.deploy(ctx, None)  # type: ignore[arg-type]
    assert report.exit_code == 5
    assert "needs 1 approvals for tier critical, and this repository is on no GitHub" in messages(report)
    assert flights.live("staging") == GOOD


def test_an_unknown_stage_and_an_unknown_target_are_named(flights: Scene, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no stage 'prod'"):
        serve.deploy(flights.ctx, "prod")
    ctx = low_tier(flights, tmp_path, {"staging": entry(flights, GOOD)})
    model = ctx.repo / "model.yaml"  # type: ignore[attr-defined]
    model.write_text(model.read_text().replace("serve:\n", "serve:\n  target: moon\n"))
    subprocess.run(["git", "-C", str(model.parent), "commit", "-q", "-am", "Moon"], check=True)
    with pytest.raises(InputError, match=r"target"):
        serve.deploy(ctx, None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_machine_that_was_rebooted_is_brought_back(flights: Scene) -> None:
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    port = flights.port("staging")
    told = states.read_json(flights.place("staging").processes_file)
    for pid in [told["supervisor"]["pid"], *(c["process"]["pid"] for c in told["children"].values())]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not local.live(flights.place("staging")).running)  # type: ignore[union-attr]
    report = serve.deploy(flights.ctx, None)
    assert "was down and runs again" in messages(report)
    assert ask(port, body())[0] == 200


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "step", "settled"])
def test_killed_at_any_moment_the_same_command_finishes(flights: Scene, moment: str) -> None:
    flights.promote(staging=GOOD)
    serve.deploy(flights.ctx, None)
    flights.promote(staging=BETTER)
    place = flights.place("staging")
    env = {
        **os.environ,
        "GITHUB_REPOSITORY": flights.ctx.require_github("a test").full_name,
        "GITHUB_API_URL": flights.ctx.require_github("a test").api_url,
        "GITHUB_SERVER_URL": flights.ctx.require_github("a test").server_url,
        "GITHUB_TOKEN": "app-token",
        "MLFLOW_TRACKING_URI": flights.ctx.tracking_uri,
        "MLP_SERVE_HOME": str(flights.ctx.serve_home),
    }
    command = [sys.executable, "-m", "mlp_ci", "deploy", "--path", str(flights.ctx.repo)]

    def reached() -> bool:
        state = states.read(place)
        assert state
        return {
            "start": 2 in state.servers,
            "step": state.canary() == 2,
            "settled": state.live == 2,
        }[moment]

    with Load(flights.port("staging"), clients=2) as load:
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as deploy:
            wait_until(lambda: reached() or deploy.poll() is not None)
            deploy.kill()
        finished = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        time.sleep(0.2)
    assert load.failed == 0
    assert flights.live("staging") == BETTER
    assert flights.tracking.alias(flights.name, "staging") == BETTER
    assert [d.payload["version"] for d in flights.world.hub().deployments("staging")] == [2, 1]
    assert flights.records() == [("staging", 1, "promotion"), ("staging", 2, "promotion")]
    assert [i.version for i in serve.history(flights.ctx, load_model(flights.ctx.repo))] == [1, 2]
