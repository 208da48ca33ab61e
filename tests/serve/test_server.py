"""One version's server, as a real process: verified before loaded, honest about bad input, drained on SIGTERM."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from mlp_ci.tracking import artifact_digest
from tests.conftest import free_port
from tests.serving import Load, ask, body, save_model, slowness, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.serve.servers import Running


pytestmark = pytest.mark.xdist_group("model-server")


@pytest.fixture
def model(flights: Path) -> Path:
    return flights


@pytest.fixture
def server(flights_server: Running) -> int:
    return flights_server.port


def start(model: Path, digest: str, port: int, log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "mlp_ci.serve.server", "--model", str(model), "--digest", digest]
    with log.open("wb") as stream:
        return subprocess.Popen([*command, "--port", str(port), "--version", "3"], stdout=stream, stderr=stream)


def is_up(port: int) -> bool:
    try:
        return ask(port, path="/health")[0] == 200
    except OSError:
        return False


def test_it_answers_with_the_probability_in_mlflows_shape(server: int) -> None:
    near, far = {"distance": 10.0, "hour": 1, "carrier": "UA"}, {"distance": 4000, "hour": 1, "carrier": "new"}
    status, _, answer = ask(server, body(near, far))
    assert status == 200
    assert answer == {"predictions": [0.0, 1.0]}


def test_the_other_formats_and_extra_columns(server: int) -> None:
    split = {"columns": ["flight_id", "carrier", "hour", "distance"], "data": [["x", "UA", 1, 4000.0]]}
    for content in (
        {"dataframe_split": split},
        {"inputs": {"carrier": ["UA"], "hour": [1], "distance": [4000]}},
        {"instances": [{"carrier": "UA", "hour": 1, "distance": 4000}]},
    ):
        assert ask(server, json.dumps(content).encode())[2] == {"predictions": [1.0]}


def test_health_and_version_say_what_runs(server: int, model: Path) -> None:
    assert ask(server, path="/health")[2]["status"] == "ok"
    facts = ask(server, path="/version")[2]
    assert (facts["version"], facts["digest"]) == (3, artifact_digest(model))


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"{", 400, "the body is not JSON"),
        (b"[" * 100_000, 400, "nested too deeply"),
        (body({"hour": 1, "carrier": "UA"}), 400, "missing column distance"),
        (body({"distance": "far", "hour": 1, "carrier": "UA"}), 400, "column distance, row 0"),
        (body({"distance": 1e999, "hour": 1, "carrier": "UA"}), 400, "finite"),
        (b'{"inputs": [[1, 2, 3]]}', 400, "the model needs named columns"),
        (b" " * (16 * 2**20 + 1), 413, "larger than 16 MiB"),
    ],
)
def test_bad_input_is_the_clients_fault_and_is_named(server: int, content: bytes, status: int, message: str) -> None:
    try:
        code, _, answer = ask(server, content)
    except ConnectionError:
        assert status == 413  # the server may close before all of a huge body was sent
        return
    assert code == status
    assert message in answer["message"]
    assert "Traceback" not in str(answer)


def test_another_content_type_is_refused(server: int) -> None:
    assert ask(server, b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})[0] == 415


def test_one_bad_request_does_not_spoil_those_that_came_with_it(server: int) -> None:
    results: list[tuple[int, object]] = []

    def client(index: int) -> None:
        for _ in range(20):
            hour: object = "late" if index == 0 else 1
            code, _, answer = ask(server, body({"distance": 4000, "hour": hour, "carrier": "UA"}))
            results.append((code, None if index == 0 else answer["predictions"][0]))

    threads = [threading.Thread(target=client, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(results), key=str) == [(200, 1.0), (400, None)]


def test_a_digest_that_differs_is_refused_before_a_byte_is_loaded(tmp_path: Path, model: Path) -> None:
    evil = tmp_path / "evil"
    evil.mkdir()
    (evil / "MLmodel").write_text((model / "MLmodel").read_text())
    marker = tmp_path / "loaded"
    (evil / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntR.")
    refused = start(evil, artifact_digest(model), free_port(), tmp_path / "log")
    assert refused.wait(30) == 2
    assert "has the digest" in (tmp_path / "log").read_text()
    assert not marker.exists()
    # the same artefact with its own digest is loaded: the marker shows that the test could have seen it
    start(evil, artifact_digest(evil), free_port(), tmp_path / "log").wait(30)
    assert marker.exists()


def test_a_taken_port_and_a_broken_model_have_their_own_exit_codes(server: int, model: Path, tmp_path: Path) -> None:
    assert start(model, artifact_digest(model), server, tmp_path / "log").wait(30) == 98
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README").write_text("no model")
    assert start(tmp_path / "empty", artifact_digest(tmp_path / "empty"), free_port(), tmp_path / "log").wait(30) == 2
    assert "is not an MLflow model" in (tmp_path / "log").read_text()


def test_a_model_that_raises_is_a_500_without_its_traceback(tmp_path: Path) -> None:
    broken = save_model(tmp_path / "broken", fails=True)
    port = free_port()
    process = start(broken, artifact_digest(broken), port, tmp_path / "log")
    try:
        wait_until(lambda: is_up(port))
        status, _, answer = ask(port, body({"distance": 1, "hour": 7, "carrier": "UA"}))
        assert status == 500
        assert answer["error_code"] == "MODEL_FAILED"
        assert "cucumber" not in str(answer)
        assert "cucumber" in (tmp_path / "log").read_text()
        assert ask(port, body({"distance": 1, "hour": 8, "carrier": "UA"}))[2] == {"predictions": [0.5]}
    finally:
        process.kill()
        process.wait()


def test_sigterm_lets_requests_under_way_finish(model: Path, tmp_path: Path) -> None:
    port = free_port()
    process = start(model, artifact_digest(model), port, tmp_path / "log")
    try:
        wait_until(lambda: is_up(port))
        with Load(port, clients=2) as load:
            wait_until(lambda: load.statuses[200] > 10)
            process.send_signal(signal.SIGTERM)
            process.wait(15 * slowness())
            time.sleep(0.1)
        assert not {500, 503, "IncompleteRead"} & set(load.statuses)  # refused afterwards, but never cut off
    finally:
        process.kill()
        process.wait()
