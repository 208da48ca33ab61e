"""A server with more to do than it can, with clients that leave, with workers that die, and asked to end."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from tests.serve.models import save_peculiar
from tests.serve.servers import serving
from tests.serving import ask, wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits")


@pytest.fixture(scope="module")
def sleepy(folder: Path) -> Path:
    return save_peculiar(folder / "sleepy", "sleepy")


def numbers(a: float, b: float = 1.0) -> bytes:
    return json.dumps({"dataframe_split": {"columns": ["a", "b"], "data": [[a, b]]}}).encode()


def test_too_many_requests_are_told_when_to_come_again(sleepy: Path, folder: Path) -> None:
    with serving(sleepy, folder / "queue.log", "--max-queue", "3", "--max-rows", "1") as server:
        ask(server.port, numbers(100))  # learns that it is slow, and moves to a thread
        ask(server.port, numbers(100))
        with ThreadPoolExecutor(12) as clients:
            busy = [clients.submit(ask, server.port, numbers(300, i)) for i in range(10)]
            time.sleep(0.1)
            began = time.monotonic()
            assert ask(server.port, path="/v2/health/live")[0] == 200
            assert time.monotonic() - began < 0.25  # while the model computes
            answers = [b.result() for b in busy]
        refused = [a for a in answers if a[0] == 429]
        assert {a[0] for a in answers} == {200, 429}
        assert len(refused) >= 5
        assert all(int(a[1]["retry-after"]) >= 1 for a in refused)
        assert "too many requests" in refused[0][2]["message"]
        assert {a[2]["predictions"][0] for a in answers if a[0] == 200} <= set(range(10))
        assert 'code="429"' in ask(server.port, path="/metrics")[2]
        # a client that leaves costs nothing but its own prediction
        with socket.create_connection(("127.0.0.1", server.port)) as leaving:
            content = numbers(200)
            leaving.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(content), content)
            )
            time.sleep(0.05)
        assert ask(server.port, numbers(0, 5))[2] == {"predictions": [5.0]}
        wait_until(lambda: "mlp_server_in_flight{" in (t := ask(server.port, path="/metrics")[2]) and flying(t) == 0, 5)
        assert "Traceback" not in server.log.read_text()


def flying(text: str) -> int:
    return int(next(line for line in text.splitlines() if line.startswith("mlp_server_in_flight{")).split()[-1])


def test_asked_to_end_it_says_so_first_and_answers_on(sleepy: Path, folder: Path) -> None:
    with serving(sleepy, folder / "drain.log", "--drain", "30") as server, ThreadPoolExecutor(1) as clients:
        long = clients.submit(ask, server.port, numbers(500, 7))
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        assert long.result()[2] == {"predictions": [7.0]}
        wait_until(lambda: ask(server.port, path="/v2/health/ready")[0] == 503, 2)
        assert ask(server.port, path="/health")[2]["status"] == "leaving"
        assert ask(server.port, path="/v2/health/live")[0] == 200
        status, headers, answer = ask(server.port, numbers(0, 4))
        assert (status, answer, headers["connection"]) == (200, {"predictions": [4.0]}, "close")
        server.process.send_signal(signal.SIGTERM)  # once more: at once
        assert server.process.wait(10) == 0


def test_workers_share_a_socket_and_come_back(folder: Path) -> None:
    deadly = save_peculiar(folder / "deadly", "deadly")
    with serving(deadly, folder / "workers.log", "--workers", "2") as server:

        def who() -> Any:
            status, _, answer = ask(server.port, numbers(1))
            assert status == 200
            return answer["predictions"][0]

        def crew() -> set[Any]:
            with ThreadPoolExecutor(8) as clients:
                return set(clients.map(lambda _: who(), range(60)))

        found: set[Any] = set()
        wait_until(lambda: found.update(crew()) or len(found) == 2)
        with pytest.raises(OSError):  # noqa: PT011
            ask(server.port, numbers(13))
        wait_until(lambda: len(crew() - found) == 1)
        text = ask(server.port, path="/metrics")[2]
        assert 'mlp_server_workers{model="flights",version="3"} 2' in text
        assert flying(text) == 0
        assert "ended with 13" in server.log.read_text()
        pids = {int(pid) for pid in crew()}
        server.process.kill()  # with their parent gone they are too
        wait_until(lambda: not any(alive(pid) for pid in pids), 5)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_that_cannot_load_the_model_end_it(folder: Path) -> None:
    broken = save_peculiar(folder / "broken", "deadly")
    (broken / "model.pkl").write_bytes(b"no pickle")
    with (
        pytest.raises(AssertionError, match="the model cannot be loaded"),
        serving(broken, folder / "broken.log", "--workers", "2"),
    ):
        pytest.fail("it serves")
