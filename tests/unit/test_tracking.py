"""The tracking seam against a real MLflow server."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mlp_ci.context import Context
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.spec import default_platform
from mlp_ci.tracking import Tracking, artifact_digest, connect, verify_digest
from mlp_ci.tracking.rest import RestClient
from mlp_ci.tracking.rest import _address as address
from tests.conftest import free_port

if TYPE_CHECKING:
    from pathlib import Path

KEY = "a" * 64


def context(tmp_path: Path, uri: str) -> Context:
    return Context(
        repo=tmp_path, work=tmp_path / ".mlp", serve_home=tmp_path, prediction_log=tmp_path, tracking_uri=uri
    )


@pytest.fixture(params=["plain", "mlflow"])
def tracking(
    request: pytest.FixtureRequest, mlflow_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Tracking:
    """Both ways to MLflow: plain requests, and MLflow's own client, which a setting of TLS asks for."""
    if request.param == "mlflow":
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    found = connect(context(tmp_path, mlflow_server))
    assert isinstance(found.client, RestClient) == (request.param == "plain")
    return found


@pytest.fixture
def name() -> str:
    return f"m-{uuid.uuid4().hex[:8]}"


def model_folder(tmp_path: Path, text: str = "weights") -> Path:
    folder = tmp_path / f"source-{uuid.uuid4().hex[:6]}" / "model"
    (folder / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "deep" / "weights.bin").write_text(text)
    return folder


def started(tracking: Tracking, name: str, **tags: str) -> str:
    experiment = tracking.experiment(name, create=True)
    assert experiment
    return tracking.start_run(experiment, "run", {"mlp.train_key": KEY, **tags}, datetime.now(UTC))


def test_nobody_listening_is_said_within_five_seconds(tmp_path: Path) -> None:
    before = time.monotonic()
    with pytest.raises(OutsideError, match="cannot be reached") as caught:
        connect(context(tmp_path, f"http://user:hunter2@127.0.0.1:{free_port()}"))
    assert time.monotonic() - before < 5
    assert "hunter2" not in caught.value.what + caught.value.fix
    assert "run the same command again" in caught.value.fix


def test_no_address_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no address of MLflow") as caught:
        connect(context(tmp_path, ""), default_platform())
    assert "MLFLOW_TRACKING_URI" in caught.value.fix


def test_nonsense_for_an_address_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an address"):
        connect(context(tmp_path, "http://127.0.0.1:port"))


def test_digest_depends_on_paths_and_contents_only(tmp_path: Path) -> None:
    one, same, other = model_folder(tmp_path), model_folder(tmp_path), model_folder(tmp_path, "different")
    os.utime(same / "MLmodel", (1, 1))
    assert artifact_digest(one) == artifact_digest(same)
    assert artifact_digest(one) != artifact_digest(other)
    (same / "deep" / "weights.bin").rename(same / "weights.bin")
    assert artifact_digest(one) != artifact_digest(same)


def test_digest_refuses_links_and_nothing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        artifact_digest(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no files"):
        artifact_digest(tmp_path / "empty")


def test_changed_bytes_are_refused_with_both_digests(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    expected = artifact_digest(folder)
    verify_digest(folder, expected)
    (folder / "MLmodel").write_text("flavors: {evil: true}\n")
    with pytest.raises(InputError) as caught:
        verify_digest(folder, expected)
    assert expected in caught.value.what
    assert artifact_digest(folder) in caught.value.what


def test_uploaded_and_downloaded_folders_are_equal(tracking: Tracking, name: str, tmp_path: Path) -> None:
    run = started(tracking, name)
    folder = model_folder(tmp_path)
    tracking.log_folder(run, folder, "model")
    fetched = tracking.download(run, "model", tmp_path / "fetched")
    assert fetched == tmp_path / "fetched" / "model"
    assert artifact_digest(fetched) == artifact_digest(folder)
    assert list((tmp_path / "fetched").iterdir()) == [fetched]


def test_uploading_again_leaves_nothing_of_the_upload_before(tracking: Tracking, name: str, tmp_path: Path) -> None:
    run = started(tracking, name)
    first = model_folder(tmp_path)
    (first / "stale.bin").write_text("left over")
    tracking.log_folder(run, first, "model")
    second = model_folder(tmp_path, "newer")
    tracking.log_folder(run, second, "model")
    assert artifact_digest(tracking.download(run, "model", tmp_path / "fetched")) == artifact_digest(second)


def test_a_missing_artefact_is_said(tracking: Tracking, name: str, tmp_path: Path) -> None:
    run = started(tracking, name)
    assert not tracking.has_artifact(run, "model")
    with pytest.raises((InputError, OutsideError), match="model"):
        tracking.download(run, "model", tmp_path / "fetched")
    assert not list((tmp_path / "fetched").iterdir())


def test_a_whole_model_is_found_before_an_unfinished_one(tracking: Tracking, name: str) -> None:
    assert tracking.find_run(name, KEY) is None
    unfinished = started(tracking, name)
    found = tracking.find_run(name, KEY)
    assert found
    assert (found.run_id, found.trained, found.ended) == (unfinished, False, None)
    whole = started(tracking, name)
    tracking.log(
        whole, tags={"mlp.status": "trained", "mlp.digest": "sha256:1"}, params={"p": "x" * 900}, metrics={"m": 0.5}
    )
    tracking.set_status(whole, "FINISHED", datetime.now(UTC))
    found = tracking.find_run(name, KEY)
    assert found
    assert (found.run_id, found.trained, found.metrics) == (whole, True, {"m": 0.5})
    assert found.params == {"p": "x" * 500}
    assert tracking.find_run(name, "b" * 64) is None


def test_runs_of_a_window(tracking: Tracking, name: str) -> None:
    day = timedelta(days=1)
    january = datetime(2013, 1, 10, tzinfo=UTC)
    experiment = tracking.experiment(name, create=True)
    assert experiment
    inside = tracking.start_run(experiment, "in", {}, january)
    tracking.start_run(experiment, "out", {}, january + 40 * day)
    found = tracking.runs(name, january, january + 30 * day)
    assert [(r.run_id, r.started) for r in found] == [(inside, january)]
    assert tracking.runs("never-heard-of", january, january + day) == []


def test_versions_and_aliases(tracking: Tracking, name: str, tmp_path: Path) -> None:
    run = started(tracking, name)
    tracking.log_folder(run, model_folder(tmp_path), "model")
    assert tracking.versions(name) == []
    assert tracking.alias(name, "production") is None
    tracking.register_model(name, "for a test", {"mlp.team": "t"})
    tracking.register_model(name, "for a test", {"mlp.team": "t"})
    tags = {"mlp.digest": "sha256:1", "mlp.data": '{"train.parquet": "md5:1"}', "mlp.gate": "pass"}
    made = tracking.create_version(name, run, tags, "the first")
    assert (made.number, made.digest, made.data, made.gate) == (1, "sha256:1", {"train.parquet": "md5:1"}, "pass")
    assert tracking.version(name, 1) == made
    assert tracking.alias(name, "production") is None
    tracking.set_alias(name, "production", 1)
    assert tracking.alias(name, "production") == 1
    with pytest.raises(InputError, match=f"no version 7 of {name}") as caught:
        tracking.version(name, 7)
    assert "1" in caught.value.fix


def test_a_deleted_run_is_said_to_be_gone(tracking: Tracking, name: str) -> None:
    run = started(tracking, name)
    tracking.delete_run(run)
    assert tracking.find_run(name, KEY) is None
    with pytest.raises(OutsideError, match="gone from MLflow"):
        tracking.log(run, metrics={"m": 1.0})


def test_a_deleted_experiment_says_how_to_restore_it(tracking: Tracking, name: str) -> None:
    experiment = tracking.experiment(name, create=True)
    tracking.client.delete_experiment(experiment)
    with pytest.raises(InputError) as caught:
        tracking.experiment(name, create=True)
    assert f"restore --experiment-id {experiment}" in caught.value.fix


def test_pages(tracking: Tracking, name: str, mlflow_server: str) -> None:
    run = started(tracking, name)
    page = tracking.run_page(run)
    assert page.startswith(f"{mlflow_server}/#/experiments/")
    assert page.endswith(f"/runs/{run}")
    assert tracking.version_page(name, 3) == f"{mlflow_server}/#/models/{name}/versions/3"


def test_works_on_a_database_without_a_server(tmp_path: Path, name: str) -> None:
    tracking = connect(context(tmp_path, f"sqlite:///{tmp_path}/mlflow.db"))
    run = started(tracking, name)
    tracking.log(run, tags={"mlp.status": "training"})
    found = tracking.find_run(name, KEY)
    assert found
    assert found.tags["mlp.status"] == "training"


def test_credentials_travel_in_a_header_and_nowhere_else() -> None:
    plain, headers = address("https://me:p%40ss@mlflow.example.com/base/", {})
    assert (plain, headers) == ("https://mlflow.example.com/base", {"Authorization": "Basic bWU6cEBzcw=="})
    assert address("http://h:1", {"MLFLOW_TRACKING_TOKEN": "t"}) == ("http://h:1", {"Authorization": "Bearer t"})
    assert address("http://h:1", {}) == ("http://h:1", {})


def test_a_server_that_comes_back_loses_no_request(tmp_path: Path) -> None:
    """Twice 503, then an answer: what a restarting server or its load balancer gives."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    seen: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            late = len(seen) > 2
            body = b'{"experiment": {"experiment_id": "7", "lifecycle_stage": "active"}}' if late else b""
            self.send_response(200 if late else 503)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        assert Tracking(f"http://127.0.0.1:{server.server_port}").experiment("m") == "7"
        assert len(seen) == 3
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_plain_requests_import_no_mlflow() -> None:
    import subprocess
    import sys

    code = "import sys, mlp_ci.tracking as t; t.Tracking('http://127.0.0.1:9'); print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
