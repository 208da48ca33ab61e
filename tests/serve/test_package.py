"""Images of versions, with a real engine, a real registry and a real MLflow."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import urllib.request
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import mlp_ci
from mlp_ci.errors import OutsideError
from mlp_ci.serve.package import naming
from mlp_ci.serve.package.making import made, subject_of
from mlp_ci.spec.serve import DockerServing
from mlp_ci.tracking import Tracking, artifact_digest
from tests.conformance_train.image import python_image
from tests.conftest import free_port
from tests.serve.engine import BASE, engine_with_base, small_disk
from tests.serving import ROW, save_model, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.serve.engine import Daemon

# The first test of a process compiles the packages of an image: 20 seconds on a machine of its own.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docker"), pytest.mark.timeout(900)]

MODEL = {
    "apiVersion": "mlp-ci/v1",
    "team": "growth",
    "data": {
        "train": "data/train.parquet",
        "test": "data/test.parquet",
        "key": ["flight_id"],
        "target": "delayed",
        "columns": {"distance": {"type": "float"}, "hour": {"type": "int"}, "carrier": {"type": "string"}},
    },
    "train": {"command": "python train.py"},
    "evaluate": {"gates": [{"metric": "roc_auc", "min": 0.7}]},
    "serve": {"target": "docker", "smoke": "smoke.jsonl"},
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry on this machine, as host:port."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no registry: apt install docker-registry")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/v2/"))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=2):
            return True
    except OSError:
        return False


@dataclass
class Scene:
    """A registered version, the repository of its model, and the command line."""

    repo: Path
    name: str
    digest: str
    daemon: Daemon
    environ: dict[str, str]
    call: Callable[..., subprocess.CompletedProcess[str]]
    tracking: Tracking

    def package(self, *arguments: str | Path, code: int = 0, **environ: str) -> dict[str, Any]:
        """Run it; its report."""
        done = self.call(
            *("package", *arguments, "--path", self.repo, "--format", "json"), **{**self.environ, **environ}
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        report = json.loads(done.stdout)
        assert isinstance(report, dict)
        return report

    def platform(self, **docker: str) -> None:
        (self.repo / "platform.yaml").write_text(
            yaml.safe_dump({"apiVersion": "mlp-ci/v1", "serving": {"docker": docker}})
        )

    @property
    def left(self) -> list[str]:
        return self.daemon.engine.ask("ps", "--all", "--quiet").out.split()


@pytest.fixture
def scene(
    docker: Daemon,
    mlflow_server: str,
    model: Path,
    layers: Path,
    tmp_path: Path,
    cli: Callable[..., subprocess.CompletedProcess[str]],
) -> Scene:
    name = f"flights-{uuid.uuid4().hex[:8]}"
    tracking = Tracking(mlflow_server)
    experiment = tracking.experiment(name, create=True)
    assert experiment is not None
    run = tracking.start_run(experiment, "run", {}, datetime(2013, 4, 1, tzinfo=UTC))
    tracking.log_folder(run, model, "model")
    tracking.register_model(name, "", {})
    tags = {
        "mlp.digest": artifact_digest(model),
        "mlp.evidence": "sha256:" + "e" * 64,
        "mlp.commit": "c" * 40,
        "mlp.data": json.dumps({"data/train.parquet": "md5:" + "a" * 32}),
    }
    tracking.create_version(name, run, {**tags, "mlp.gate": "pass"}, "")
    tracking.create_version(name, run, {**tags, "mlp.gate": "fail"}, "")
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "model.yaml").write_text(yaml.safe_dump({**MODEL, "name": name}))
    (repo / "smoke.jsonl").write_text(json.dumps({"request": {"dataframe_records": [ROW]}, "predictions": [0.0]}))
    environ = {
        "MLFLOW_TRACKING_URI": mlflow_server,
        "MLP_CACHE": str(layers),
        "MLP_PLATFORM": str(repo / "platform.yaml"),
    }
    made = Scene(repo, name, artifact_digest(model), docker, environ, cli, tracking)
    made.platform(base=BASE)
    return made


def test_an_image_is_made_tried_pushed_and_the_same_again(scene: Scene, registry: str, tmp_path: Path) -> None:
    scene.platform(base=BASE, registry=f"{registry}/models")
    ours = own_code()
    sbom = tmp_path / "bill.json"
    report = scene.package("1", "--sbom", sbom)
    reference = naming.reference(f"{registry}/models", scene.name, 1, scene.digest)
    assert report["data"]["image"] == reference
    assert {f["check"] for f in report["findings"]} == {
        "health",
        "version",
        "example",
        "smoke",
        "refuses",
        "user",
        "ends",
    }
    assert all(f["outcome"] == "pass" for f in report["findings"])
    # What the engine has.
    found = scene.daemon.engine.describe("image", reference)
    assert found
    assert found["Id"] == report["outputs"]["image-id"]
    labels = found["Config"]["Labels"]
    assert labels["org.opencontainers.image.revision"] == "c" * 40
    assert labels["org.opencontainers.image.vendor"] == "growth"
    assert labels[naming.LABEL_DIGEST] == scene.digest
    assert json.loads(labels["mlp-ci.data"]) == {"data/train.parquet": "md5:" + "a" * 32}
    assert found["Config"]["User"] == "10001:10001"
    # What the registry has, and what MLflow says of it.
    repository, _, tag = reference.partition("/")[2].rpartition(":")
    asked = urllib.request.Request(
        f"http://{registry}/v2/{repository}/manifests/{tag}",
        headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    with urllib.request.urlopen(asked, timeout=10) as answer:
        manifest = answer.read()
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert json.loads(manifest)["config"]["digest"] == found["Id"]
    assert report["outputs"]["image"] == f"{reference.rpartition(':')[0]}@{digest}"
    assert labels_of(scene) == report["outputs"]["image"]
    _good_bill(sbom, scene)
    # The same again, with nothing kept from the first time: the same image, to the byte.
    scene.daemon.engine.ask("rmi", "--force", found["Id"])
    file = tmp_path / "image.tar"
    again = scene.package("1", "--no-push", "--image", file, MLP_CACHE=str(tmp_path / "cache"))
    if own_code() != ours:
        pytest.skip("somebody changed mlp-ci itself while this ran, and it is a part of the image")
    assert again["outputs"] == {"image": reference, "image-id": found["Id"]}
    with tarfile.open(file) as archive:
        [described] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        streams = {m.name: archive.extractfile(m) for m in archive}
        held = {name: hashlib.sha256(stream.read()).hexdigest() for name, stream in streams.items() if stream}
    assert described["RepoTags"] == [reference]
    assert described["Config"] == found["Id"].removeprefix("sha256:") + ".json"
    assert [f"sha256:{held[name]}" for name in described["Layers"]] == found["RootFS"]["Layers"]
    # The lock that lies in the image makes it again, too; another lock does not.
    lock = tmp_path / "lock.txt"
    lock.write_text(scene.daemon.engine.ask("run", "--rm", "--entrypoint", "cat", reference, naming.LOCK).out)
    assert scene.package("1", "--no-push", "--lock", lock)["outputs"]["image-id"] == found["Id"]
    lock.write_text(lock.read_text().replace("scikit-learn==", "scikit-learn==0."))
    assert "the lock has scikit-learn 0." in scene.package("1", "--lock", lock, code=2)["error"]["what"]
    assert scene.left == []


def own_code() -> str:
    """A digest of mlp-ci's own files."""
    top = Path(mlp_ci.__file__).parent
    files = sorted(p for p in top.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in files)).hexdigest()


def labels_of(scene: Scene) -> str:
    """The image that MLflow says version 1 is."""
    found = scene.tracking.client.get_model_version(scene.name, "1")
    return str(found.tags["mlp.serving_image"])


def _good_bill(file: Path, scene: Scene) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = file.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    components = {c["name"]: c for c in bill["components"]}
    assert components["scikit-learn"]["purl"].startswith("pkg:pypi/scikit-learn@")
    assert components[BASE]["type"] == "container"
    assert f"1+{scene.digest}" == bill["metadata"]["component"]["version"]
    depends = {d["ref"]: d.get("dependsOn", []) for d in bill["dependencies"]}
    sklearn = next(ref for ref in depends if ref.startswith("scikit-learn=="))
    assert any(ref.startswith("scipy==") for ref in depends[sklearn])


def test_what_answers_wrongly_is_not_pushed(scene: Scene, registry: str) -> None:
    scene.platform(base=BASE, registry=f"{registry}/models")
    lines = [
        {"request": {"dataframe_records": [ROW]}, "predictions": [0.9], "tolerance": 0.05},
        {"request": {"dataframe_records": [{"distance": 1.0}]}},
    ]
    (scene.repo / "smoke.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = scene.package("1", code=3)
    said = [f["message"] for f in report["findings"] if f["outcome"] == "fail"]
    assert said[0].startswith("line 1: it predicts [0.0], not [0.9]")
    assert said[1].startswith("line 2: it answers 400")
    assert not _answers(f"http://{registry}/v2/models/{scene.name}/tags/list")
    assert scene.left == []


def test_an_image_that_does_not_start(scene: Scene) -> None:
    """A base without the libraries that compiled packages need."""
    engine = scene.daemon.engine
    assert engine.ask("import", "--change", "ENV PATH=/usr/bin:/bin", "-", "bare:1", stdin=python_image()).code == 0
    report = scene.package("1", "--base", "bare:1", code=3)
    assert re.search(r"lib\S+\.so\.\d: cannot open shared object file", report["error"]["what"])
    assert "another --base" in report["error"]["fix"]
    assert scene.left == []


def test_what_cannot_be_packaged(scene: Scene, tmp_path: Path) -> None:
    assert "did not pass its gate" in scene.package("2", code=3)["error"]["what"]
    assert "there is no version 9" in scene.package("9", code=2)["error"]["what"]
    assert (
        "base image nowhere.invalid/no:1 cannot be had"
        in scene.package("1", "--base", "nowhere.invalid/no:1", code=7)["error"]["what"]
    )
    assert (
        "the Docker engine does not answer"
        in scene.package("1", code=7, DOCKER_HOST=f"unix://{tmp_path}/none")["error"]["what"]
    )
    (scene.repo / "smoke.jsonl").write_text('{"request": {}}\n{"ask": 1}\n')
    assert "line 2 of the smoke file has 'ask'" in scene.package("1", code=2)["error"]["what"]
    (scene.repo / "smoke.jsonl").write_text('{"request": {"dataframe_records": []}}')
    empty = tmp_path / "empty.tar"
    with tarfile.open(empty, "w"):
        pass
    assert scene.daemon.engine.ask("import", str(empty), "empty:1").code == 0
    assert "has no python3" in scene.package("1", "--base", "empty:1", code=2)["error"]["what"]
    assert scene.left == []


def test_a_registry_that_refuses(scene: Scene) -> None:
    scene.platform(base=BASE, registry=f"127.0.0.1:{free_port()}/models")
    report = scene.package("1", code=7)
    assert "the registry did not take 127.0.0.1:" in report["error"]["what"]
    assert "docker login" in report["error"]["fix"]
    assert scene.left == []


def test_disks_that_are_full(scene: Scene, model: Path, layers: Path, tmp_path: Path) -> None:
    """Where layers are kept, and where the engine keeps images."""
    with small_disk(tmp_path / "small", "8m"):
        report = scene.package("1", code=7, MLP_CACHE=str(tmp_path / "small"))
        assert "could not be compiled" in report["error"]["what"] or "the disk is full" in report["error"]["what"]
        assert "make room" in report["error"]["fix"]
        assert not list((tmp_path / "small" / "images").glob(".*")), "what was begun is cleared away"
    with engine_with_base(room="150m") as small:
        subject = subject_of(model, scene.name, 1, scene.digest, {})
        docker = DockerServing.model_validate({"base": BASE})
        with (
            pytest.raises(OutsideError, match="the engine did not load the image") as refusal,
            made(small.engine, docker, subject, layers / "images"),
        ):
            pass
        assert "no space left" in refusal.value.why
        assert "docker image prune" in refusal.value.fix
