"""The local target with real processes: gateway, servers and supervisor, under load and under kill -9."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import pytest

from mlp_ci.errors import InputError, OutsideError, RolloutAborted
from mlp_ci.process import start_time
from mlp_ci.serve import processes, reach
from mlp_ci.serve import state as states
from mlp_ci.serve.state import CANARY, Arm, Place
from mlp_ci.serve.targets import Release, Settings, target_of
from mlp_ci.serve.targets.local import local
from mlp_ci.spec.serve import Serve
from mlp_ci.tracking import artifact_digest
from tests.serving import LOGGED, ROW, Load, ask, body, save_rule, slowness, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = datetime(2013, 4, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Release]:
    folder = tmp_path_factory.mktemp("models")
    made = {}
    for version in (1, 2):
        artefact = save_rule(folder / str(version), far_is_late=version == 1)
        made[version] = Release(version=version, digest=artifact_digest(artefact), artefact=artefact)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "serve", "flight-delay", "production")
    try:
        yield made
    finally:
        local.stop_all(made.home)
        children = (states.read_json(made.processes_file) or {}).get("children") or {}
        left = [processes.from_json(c["process"]) for c in children.values()]
        assert not [p for p in left if p and p.alive], "a process was left behind"


def logging(place: Place, **serve: object) -> Settings:
    log = {"root": str(place.home / "log"), "columns": LOGGED}
    return Settings(serve=Serve.model_validate(serve), log=log)


def go_live(place: Place, release: Release) -> int:
    """Deploy without a rollout; the gateway's port."""
    local.prepare(place, release, logging(place))
    local.settle(place, release, NOW)
    state = states.read(place)
    assert state
    return state.gateway_port


def process_of(place: Place, name: str) -> processes.Process | None:
    children = (states.read_json(place.processes_file) or {}).get("children") or {}
    return processes.from_json((children.get(name) or {}).get("process"))


def kill(place: Place, name: str) -> None:
    process = process_of(place, name)
    assert process
    os.kill(process.pid, signal.SIGKILL)


def rows(place: Place) -> list[tuple[object, ...]]:
    pattern = f"{place.home}/log/flight-delay/**/part-*.parquet"
    return duckdb.sql(
        f"SELECT * FROM read_parquet('{pattern}', hive_partitioning = true) ORDER BY request_id"
    ).fetchall()


def test_a_version_goes_live_and_says_so(place: Place, releases: dict[int, Release]) -> None:
    assert local.live(place) is None
    port = go_live(place, releases[1])
    status, headers, answer = ask(port, body({**ROW, "distance": 4000}))
    assert (status, answer, headers["x-model-version"]) == (200, {"predictions": [1.0]}, "1")
    fact = local.live(place)
    assert fact
    assert (fact.version, fact.digest, fact.since, fact.previous) == (1, releases[1].digest, NOW, None)
    assert fact.running
    assert fact.address == f"http://127.0.0.1:{port}"
    assert ask(port, path="/health")[0] == 200
    assert ask(port, path="/version")[2]["arms"] == [{"version": 1, "arm": "stable", "weight": 100}]
    metrics = ask(port, path="/metrics")[2]
    assert 'mlp_requests_total{model="flight-delay",stage="production",version="1",arm="stable"} 1' in metrics
    assert ask(port, path="/admin/state")[0] == 404, "admin needs the token"
    assert ask(port, b"", path="/admin/reload", headers={"Authorization": "Bearer x"})[0] == 404
    assert local.status(place.home)[0]["version"] == 1
    assert oct(place.token_file.stat().st_mode)[-3:] == "600"


def test_swaps_and_canaries_under_load_fail_no_request(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    with Load(port) as load:
        local.prepare(place, releases[2], logging(place))
        local.shift(place, [Arm(version=1, weight=50), Arm(version=2, weight=50, arm=CANARY)])
        time.sleep(0.5)
        local.settle(place, releases[2], NOW)
        moved = time.monotonic()
        time.sleep(1.0)
        fact = local.live(place)
        assert fact
        assert fact.previous == 1
        local.withdraw(place, 1)
    assert load.failed == 0
    assert load.versions["1"] > 20
    assert load.versions["2"] > 20
    assert load.last["1"] < moved + 0.5, "an old version answered after the swap had returned"
    seen = local.measured(place).versions
    assert seen[1].requests == load.versions["1"]
    assert [i.version for i in local.history(place.home, "flight-delay")] == [1, 2]


def test_a_killed_server_is_restarted_and_its_clients_wait(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    with Load(port, clients=2) as load:
        time.sleep(0.2)
        kill(place, "v1")
        time.sleep(0.3)
        wait_until(lambda: local.healthy(place, 1))
        time.sleep(0.2)
    assert load.failed == 0


def test_a_dead_arm_is_answered_by_the_other(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    local.prepare(place, releases[2], logging(place))
    local.shift(place, [Arm(version=1, weight=50), Arm(version=2, weight=50, arm=CANARY)])
    kill(place, "v2")
    answered = [ask(port, body())[0] for _ in range(20)]
    assert answered == [200] * 20
    assert local.measured(place).versions[2].errors > 0, "the dead arm's failures count against it"


def test_a_killed_gateway_comes_back_on_its_port_without_refusing(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    kill(place, "gateway")
    assert ask(port, body())[0] == 200, "the supervisor holds the socket, so this client waited"


@pytest.mark.slow
def test_all_killed_the_next_call_finds_out_and_mends(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    told = states.read_json(place.processes_file)
    supervisor = processes.from_json(told["supervisor"])
    assert supervisor
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not supervisor.alive)
    assert ask(port, body())[0] == 200, "a dead supervisor takes nothing with it"
    before = process_of(place, "v1")
    reach.ensure(place)
    wait_until(lambda: (states.read_json(place.processes_file) or {})["supervisor"] != told["supervisor"])
    assert process_of(place, "v1") == before, "the new supervisor adopted what ran"
    kill(place, "v1")
    wait_until(lambda: process_of(place, "v1") not in (before, None))
    kill(place, "gateway")
    wait_until(lambda: local.healthy(place, 1))
    assert ask(port, body())[0] == 200


def test_stop_ends_everything_and_the_address_survives(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    assert local.stop_all(place.home) == ["flight-delay in production"]
    with pytest.raises(ConnectionRefusedError):
        ask(port, body())
    fact = local.live(place)
    assert fact
    assert not fact.running
    assert go_live(place, releases[1]) == port
    assert ask(port, body())[0] == 200
    assert len(local.history(place.home, "flight-delay")) == 1


def test_a_version_that_does_not_start_moves_nothing(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    wrong = Release(version=2, digest=releases[1].digest, artefact=releases[2].artefact)
    with pytest.raises(InputError, match="has the digest"):
        local.prepare(place, wrong, logging(place))
    assert ask(port, body())[1]["x-model-version"] == "1"
    state = states.read(place)
    assert state
    assert list(state.servers) == [1]


def test_a_start_that_another_command_ends_is_given_up_at_once(place: Place, releases: dict[int, Release]) -> None:
    go_live(place, releases[1])
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(local.prepare, place, releases[2], logging(place))
        wait_until(lambda: 2 in state_of(place).servers)
        local.tidy(place)  # the end of a rollback
        began = time.monotonic()
        with pytest.raises(RolloutAborted, match="another command ended version 2"):
            starting.result(timeout=50)
        assert time.monotonic() - began < 2 * slowness()
    assert local.live(place)
    assert ask(state_of(place).gateway_port, body())[0] == 200


def state_of(place: Place) -> states.State:
    state = states.read(place)
    assert state
    return state


def test_a_version_can_be_asked_before_it_has_traffic(place: Place, releases: dict[int, Release]) -> None:
    go_live(place, releases[1])
    assert json.loads(local.ask(place, 1, body()).body) == json.loads(local.ask(place, None, body()).body)
    assert b"missing column" in local.ask(place, 1, body({"hour": 1})).body
    with pytest.raises(OutsideError, match=r"version 9 of .* does not run"):
        local.ask(place, 9, body())
    with pytest.raises(OutsideError, match="version 9 does not run"):
        local.shift(place, [Arm(version=9, weight=100)])


def test_the_log_has_every_answer_and_only_the_agreed_columns(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    near, far = {**ROW, "flight_id": "A", "ssn": "x"}, {**ROW, "distance": 4000, "flight_id": "B"}
    ask(port, body(near, far), headers={"X-Request-Id": "batch-1"})
    ask(port, body(near), headers={"X-Request-Id": "one"})
    ask(port, body({"hour": 1}))
    own = ask(port, body(far), headers={"X-Request-Id": "no/../good"})[1]["x-request-id"]
    assert len(own) == 36
    local.stop(place)  # SIGTERM writes what was not yet written
    found = rows(place)
    assert len(found) == 4
    names = [d[0] for d in duckdb.sql(f"SELECT * FROM '{place.home}/log/**/part-*.parquet'").description]
    assert names[:5] == ["ts", "request_id", "version", "arm", "latency_ms"]
    assert "ssn" not in names
    by_id = {r[names.index("request_id")]: dict(zip(names, r, strict=False)) for r in found}
    assert set(by_id) == {"batch-1-0", "batch-1-1", "one", own}
    assert by_id["batch-1-1"]["prediction"] == 1.0
    assert by_id["batch-1-1"]["flight_id"] == "B"
    assert by_id["one"]["arm"] == "stable"
    folders = {p.parent.relative_to(place.home / "log").as_posix() for p in place.home.rglob("part-*.parquet")}
    assert all(f.startswith("flight-delay/stage=production/date=") for f in folders)


def test_nothing_that_was_handed_over_is_lost_at_kill_minus_nine(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    for _ in range(20):
        ask(port, body())
    time.sleep(0.2)  # what the gateway keeps for itself is at most 20 ms old
    kill(place, "gateway")
    wait_until(lambda: bool(list(place.home.rglob("part-*.parquet"))))  # written by the recorder, which outlives it
    wait_until(lambda: len(rows(place)) == 20)


def test_the_log_follows_the_projects_clock(
    place: Place, releases: dict[int, Release], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instant = tmp_path / "now"
    instant.write_text("2013-07-04T23:30:00+00:00")
    monkeypatch.setenv("MLP_CLOCK_FILE", str(instant))
    port = go_live(place, releases[1])
    ask(port, body())
    instant.write_text("2013-07-05T00:30:00+00:00")
    ask(port, body())
    local.stop(place)
    found = sorted(p.parent.relative_to(place.home / "log").as_posix() for p in place.home.rglob("part-*.parquet"))
    assert found == [
        "flight-delay/stage=production/date=2013-07-04/hour=23",
        "flight-delay/stage=production/date=2013-07-05/hour=00",
    ]


def test_a_full_disk_costs_rows_but_no_answer(place: Place, releases: dict[int, Release]) -> None:
    (place.home).mkdir(parents=True)
    (place.home / "log").write_text("in the way")
    port = go_live(place, releases[1])
    assert ask(port, body())[0] == 200
    wait_until(lambda: "mlp_log_lost_total" in ask(port, path="/metrics")[2])
    lost = 'mlp_log_lost_total{model="flight-delay",stage="production"} 1'
    wait_until(lambda: lost in ask(port, path="/metrics")[2])


def test_a_reused_pid_is_nobody() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        mine = processes.Process(other.pid, start_time(other.pid) or "")
        assert mine.alive
        stranger = processes.Process(other.pid, "1")
        assert not stranger.alive
        stranger.end(patience=0)
        assert other.poll() is None
        mine.end(patience=5)
        assert other.wait(5) == -signal.SIGTERM


def test_targets_that_this_version_lacks_are_named() -> None:
    assert target_of(Serve.model_validate({}), None) is local
    with pytest.raises(InputError, match=r"serve\.target is nowhere") as refusal:
        target_of(Serve.model_construct(target="nowhere"), None)  # type: ignore[arg-type]
    assert refusal.value.exit_code == 2
    assert "local" in refusal.value.fix


def test_a_job_that_throws_its_python_away_cannot_serve(
    place: Place, releases: dict[int, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_TEMP", str(Path(sys.prefix).parent))
    with pytest.raises(InputError, match="installed for this job only"):
        local.prepare(place, releases[1], logging(place))
    assert not place.folder.exists()


def test_a_version_whose_files_were_cleared_away_is_named(place: Place) -> None:
    gone = Release(version=9, digest=f"sha256:{9:064x}", artefact=place.home / "artifacts" / "none")
    with pytest.raises(InputError, match="the files of version 9 are not on this machine any more"):
        local.prepare(place, gone, logging(place))
    assert not place.folder.exists()


def test_a_python_that_is_gone_stops_no_other_process(place: Place, releases: dict[int, Release]) -> None:
    port = go_live(place, releases[1])
    with states.changing(place) as state:
        state.servers[2] = replace(state.servers[1], version=2, python="/gone/python")
    log = place.folder / "logs" / "supervisor.log"
    wait_until(lambda: "v2 cannot be started" in log.read_text())
    kill(place, "v1")
    assert ask(port, body())[0] == 200
    with states.changing(place) as state:
        del state.servers[2]


def test_what_a_newer_mlp_ci_adds_to_the_state_is_passed_over(place: Place, releases: dict[int, Release]) -> None:
    go_live(place, releases[1])
    text = json.loads(place.state_file.read_text())
    text["servers"]["2"] = {**text["servers"]["1"], "version": 2, "python": "/gone/python", "colour": "blue"}
    states.write_json(place.state_file, {**text, "moon": {"phase": "full"}})
    log = place.folder / "logs" / "supervisor.log"
    wait_until(lambda: "v2 cannot be started" in log.read_text())
    fact = local.live(place)
    assert fact
    assert (fact.version, fact.running) == (1, True)
    with states.changing(place) as state:
        del state.servers[2]


@pytest.mark.slow
def test_a_state_that_nobody_can_read_stops_nothing_and_all_of_it_can_be_stopped(
    place: Place, releases: dict[int, Release]
) -> None:
    port = go_live(place, releases[1])
    text = place.state_file.read_text()
    place.state_file.write_text("{")
    log = place.folder / "logs" / "supervisor.log"
    wait_until(lambda: "trying again" in log.read_text())
    kill(place, "v1")
    assert ask(port, body())[0] == 200, "restarted all the same"
    reach.stop(place)
    assert [name for name in ("v1", "gateway") if reach.runs(place, name)] == []
    place.state_file.write_text(text)


def test_before_anything_is_deployed_the_gateway_says_so(place: Place, releases: dict[int, Release]) -> None:
    local.prepare(place, releases[1], logging(place))
    state = states.read(place)
    assert state
    began = time.monotonic()
    status, headers, answer = ask(state.gateway_port, body())
    assert (status, answer["error_code"], headers["retry-after"]) == (503, "UNAVAILABLE", "1")
    assert time.monotonic() - began < 2
    assert ask(state.gateway_port, path="/health")[0] == 503
    assert ask(state.gateway_port, path="/invocations")[0] == 405
    assert ask(state.gateway_port, b" " * (16 * 2**20 + 1))[0] == 413


def test_served_processes_see_no_secret(
    place: Place, releases: dict[int, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cret-of-the-job")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret-of-mlflow")
    go_live(place, releases[1])
    told = states.read_json(place.processes_file)
    for process in [told["supervisor"], *(c["process"] for c in told["children"].values())]:
        assert b"s3cret" not in Path(f"/proc/{process['pid']}/environ").read_bytes()
        assert place.token_file.read_text() not in Path(f"/proc/{process['pid']}/cmdline").read_text()
