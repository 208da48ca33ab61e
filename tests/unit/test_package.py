"""What goes into the image of a version, and what is asked of it: without an engine."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.serve import smoke
from mlp_ci.serve.package import bytecode, contents, image, layers, lock, naming
from mlp_ci.serve.package.bases import Base
from mlp_ci.serve.package.bill import bill
from mlp_ci.serve.package.flow import another_python
from mlp_ci.serve.package.image import Subject
from mlp_ci.serve.package.needs import SERVER, Needs, needs_of
from mlp_ci.serve.package.packages import closure

if TYPE_CHECKING:
    from collections.abc import Callable

MLMODEL = "flavors:\n  sklearn: {serialization_format: skops}\n  python_function: {}\n"
HERE = (sys.version_info[0], sys.version_info[1], sys.version_info[2])
SLIM = Base(name="python:slim", id="sha256:1", digest="sha256:" + "b" * 64, python=HERE, machine="x86_64", libc=(2, 36))


def model(folder: Path, requirements: str | None, mlmodel: str = MLMODEL) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "MLmodel").write_text(mlmodel)
    if requirements is not None:
        (folder / "requirements.txt").write_text(requirements)
    return folder


# ---------------------------------------------------------------- names


@settings(max_examples=20)
@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True), st.integers(1, 10**6))
def test_a_name_is_one_that_registries_take(name: str, version: int) -> None:
    digest = "sha256:" + hashlib.sha256(name.encode()).hexdigest()
    reference = naming.reference("registry.example:5000/Team/models", name, version, digest)
    assert reference == f"registry.example:5000/team/models/{name}:v{version}-{digest[7:19]}"
    assert naming.reference(None, name, version, digest).startswith("mlp-ci/")


# ---------------------------------------------------------------- what is needed


def test_a_model_is_served_with_a_tenth_of_mlflow(tmp_path: Path) -> None:
    text = "--extra-index-url https://packages.example\nmlflow[extras]==3.10.0  # as it was saved\nscikit-learn>=1.5\n"
    needs = needs_of(model(tmp_path, text))
    assert needs.requirements[: len(SERVER)] == SERVER
    assert needs.requirements[len(SERVER) :] == ("mlflow-skinny==3.10.0", "scikit-learn>=1.5")
    (tmp_path / "constraints.txt").write_text("numpy<3\n")
    assert needs_of(model(tmp_path, "pandas\n-c constraints.txt\n")).constraints == ("numpy<3",)
    pickled = MLMODEL.replace("skops", "cloudpickle")
    assert "cloudpickle" in needs_of(model(tmp_path, "scikit-learn\n", pickled)).requirements
    assert "scikit-learn" in needs_of(model(tmp_path / "without", None)).requirements


@pytest.mark.parametrize(
    ("requirements", "mlmodel", "said"),
    [
        ("-e .\n", MLMODEL, "asks for '-e .'"),
        ("scikit-learn @ https://example.com/x.whl\n", MLMODEL, "asks for scikit-learn from an address"),
        ("../secret\n", MLMODEL, "no name of a package"),
        ("-c nowhere.txt\n", MLMODEL, "nowhere.txt of the model cannot be read"),
        (None, "flavors: {python_function: {loader_module: mine}}\n", "does not say which packages"),
        ("numpy\n", "flavours: none\n", "names no flavors"),
    ],
)
def test_needs_that_cannot_be_told(tmp_path: Path, requirements: str | None, mlmodel: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        needs_of(model(tmp_path, requirements, mlmodel))


def test_the_server_needs_no_more_than_the_image_has() -> None:
    """In a Python that sees nothing but the packages that an image of a plain model has."""
    found, why = closure(Needs(SERVER))
    assert why == ""
    has = {f.path.split("/")[0] for p in found for f in p.files}
    site = Path(str(found[0].files[0].source)).parents[found[0].files[0].path.count("/")]
    others = {p.name.partition(".")[0] for p in site.iterdir() if p.name not in has and p.suffix != ".dist-info"}
    blind = f"""
import sys, importlib.abc
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition('.')[0] in {others - {"mlp_ci"}!r}:
            raise ModuleNotFoundError('not in the image: ' + name, name=name)
sys.meta_path.insert(0, Only())
import mlp_ci.serve.model, mlp_ci.serve.listening, mlp_ci.serve.server.program
import uvicorn, starlette.applications, orjson, uvloop, httptools, pandas
mlp_ci.serve.server.program.main(['--help'])
"""
    done = subprocess.run([sys.executable, "-c", blind], capture_output=True, text=True, check=False)
    assert "usage:" in done.stdout, done.stderr


def test_a_closure_has_all_and_says_what_is_missing() -> None:
    packages, why = closure(Needs(("uvicorn", "python-dateutil")))
    assert why == ""
    names = [p.name for p in packages]
    assert names == sorted(names)
    assert {"uvicorn", "click", "h11", "python-dateutil"} <= set(names)
    uvicorn = next(p for p in packages if p.name == "uvicorn")
    assert {"click", "h11"} <= set(uvicorn.needs)
    assert all(not f.path.startswith("..") and not f.path.endswith((".pyc", "/RECORD")) for f in uvicorn.files)
    assert closure(Needs(("no-such-package",))) == ([], "no-such-package is not installed here")
    assert "installed here, and uvicorn<0.1 is asked for" in closure(Needs(("uvicorn<0.1",)))[1]
    assert "click" in closure(Needs(("uvicorn",), ("click<1",)))[1]
    with pytest.raises(InputError, match="mlp-ci is installed from a working tree"):
        closure(Needs(("mlp-ci",)))


def recorded(files: dict[str, str], info: str) -> dict[str, str]:
    """The files of a package with the record of them (PEP 376)."""
    lines = []
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        lines.append(f"{path},sha256={digest},{len(text)}")
    return {**files, f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,"]) + "\n"}


def package(name: str, version: str, requires: str = "") -> dict[str, str]:
    """The files of a package of one module."""
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    return recorded(files, info)


def wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in package(name, version, requires).items():
            archive.writestr(path, text)


def test_a_file_that_is_not_what_was_installed(tmp_path: Path) -> None:
    for path, text in package("thing", "1.0").items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    [thing], _ = closure(Needs(("thing",)), [str(tmp_path)])
    file = next(f for f in thing.files if f.path == "thing.py")
    assert file.verified() == b"VERSION = '1.0'\n"
    (tmp_path / "thing.py").write_text("VALUE = 2\n")
    with pytest.raises(InputError, match="is not what was installed"):
        file.verified()
    record = tmp_path / "thing-1.0.dist-info" / "RECORD"
    (tmp_path / "other.py").write_text("")  # files that are not there are passed over
    record.write_text(record.read_text() + "other.py,,\n")
    with pytest.raises(InputError, match="says nothing of its files"):
        closure(Needs(("thing",)), [str(tmp_path)])


# ---------------------------------------------------------------- where packages come from


def test_packages_are_copied_where_the_base_can_run_them(tmp_path: Path) -> None:
    held = contents.library(Needs(("numpy", "click")), SLIM, tmp_path, None)
    assert not held.fetched
    assert [line.name for line in held.lock.packages] == ["click", "numpy"]
    assert all(line.files and not line.hashes for line in held.lock.packages)
    again = lock.parse(held.lock.text())
    assert again == held.lock
    again.require_same(held.packages)
    other = lock.parse(held.lock.text().replace(held.packages[0].digest, "sha256:" + "0" * 64))
    with pytest.raises(InputError, match=r"click .* has other files here than the lock says"):
        other.require_same(held.packages)
    with pytest.raises(InputError, match="the image needs click, which the lock does not have"):
        lock.Lock("", "", again.packages[1:]).require_same(held.packages)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"python": (3, 8, 1)}, "here is Python"),
        ({"libc": (2, 17)}, "needs a newer C library"),
        ({"libc": ()}, "needs a newer C library"),
        ({"machine": "aarch64"}, "here is x86_64"),
    ],
)
def test_a_base_that_cannot_run_what_is_here(
    tmp_path: Path, change: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    base = Base(**{**vars(SLIM), **change})
    with pytest.raises(InputError, match=why) as refusal:
        contents.library(Needs(("numpy>=1",)), base, tmp_path, None)
    assert "uv is not on this machine" in refusal.value.what


def test_packages_are_fetched_by_their_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a real uv, from a folder of wheels instead of an index."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "thing", "1.0", "part>=1")
    wheel(wheels, "part", "1.0")
    wheel(wheels, "part", "2.0")
    for variable, value in {
        "UV_OFFLINE": "1",
        "UV_FIND_LINKS": str(wheels),
        "UV_CACHE_DIR": str(tmp_path / "uv"),
    }.items():
        monkeypatch.setenv(variable, value)
    base = Base(**{**vars(SLIM), "python": (3, 12, 0)})
    first, second, third = (tmp_path / name for name in ("one", "two", "three"))
    for folder in (first, second, third):
        folder.mkdir()
    held = contents.library(Needs(("thing",), ("part<2",)), base, first, None)
    assert held.fetched
    assert {p.name: p.version for p in held.packages} == {"thing": "1.0", "part": "1.0"}
    assert held.lock.fetchable
    wheel(wheels, "thing", "1.1", "part>=1")
    again = contents.library(Needs(("thing",)), base, second, lock.parse(held.lock.text()))
    assert again.lock == held.lock, "the lock decides, not what is newest"
    wheel(wheels, "part", "1.0", "thing")  # other bytes under the same version
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "other"))
    with pytest.raises(InputError, match="cannot be had as wheels"):
        contents.library(Needs(("thing",)), base, third, lock.parse(held.lock.text()))
    with pytest.raises((InputError, OutsideError), match=r"wheels that fit|could not be fetched"):
        contents.library(Needs(("nowhere",)), base, third, None)


@pytest.mark.parametrize("text", ["", "numpy\n", "numpy>=1\n", "numpy==1 --hash=md5:0\n"])
def test_what_is_no_lock(text: str) -> None:
    with pytest.raises(InputError, match="lock"):
        lock.parse(text)


# ---------------------------------------------------------------- layers and images


def constant(content: bytes) -> Callable[[], bytes]:
    return lambda: content


@settings(max_examples=20)
@given(st.dictionaries(st.from_regex(r"(/[a-z]{1,60}){1,5}", fullmatch=True), st.binary(max_size=300), max_size=6))
def test_a_layer_depends_on_its_files_alone(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folders = {path.rsplit("/", n)[0] for path in files for n in range(1, 6)}
    files = {path: content for path, content in files.items() if path not in folders}
    folder = tmp_path_factory.mktemp("layers")
    one = layers.write(folder / "one.tar", {p: constant(c) for p, c in files.items()})
    other = layers.write(folder / "two.tar", {p: constant(files[p]) for p in sorted(files, reverse=True)})
    assert one.diff_id == other.diff_id == f"sha256:{hashlib.sha256(one.file.read_bytes()).hexdigest()}"
    with tarfile.open(one.file) as archive:
        held = {f"/{m.name}": archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
        assert all((m.mtime, m.uid, m.uname) == (0, 0, "") for m in archive)
    assert held == files


def test_what_is_compiled_is_the_same_every_time(tmp_path: Path) -> None:
    top = Path(json.__file__).parent
    sources = {f"/opt/lib/json/{p.name}": p for p in top.glob("*.py")}
    (tmp_path / "broken.py").write_text("def (:\n")
    sources["/opt/lib/broken.py"] = tmp_path / "broken.py"
    one = bytecode.compiled(sources, tmp_path / "one")
    other = bytecode.compiled(sources, tmp_path / "two")
    assert f"/opt/lib/json/__pycache__/decoder.{bytecode.CACHE_TAG}.pyc" in one
    assert not [path for path in one if "broken" in path]
    assert {p: f.read_bytes() for p, f in one.items()} == {p: f.read_bytes() for p, f in other.items()}
    assert all(f.read_bytes()[4] == 1 for f in one.values()), "unchecked: nothing in it depends on a time"


def subject(folder: Path) -> Subject:
    created = "2026-01-02T03:04:05+00:00"
    return Subject(model="m", version=3, digest="sha256:" + "d" * 64, folder=folder, created=created, labels={"a": "b"})


def test_an_image_starts_the_server_as_nobody(tmp_path: Path) -> None:
    base = Base(
        **{
            **vars(SLIM),
            "config": {"Env": ["PATH=/usr/bin", "HOME=/root"], "Cmd": ["python3"], "Labels": {"maintainer": "them"}},
            "diff_ids": ("sha256:base",),
            "platform": {"architecture": "amd64", "os": "linux"},
        }
    )
    layer = layers.write(tmp_path / "layer.tar", {"/opt/x": constant(b"x")})
    made = image.configured(base, subject(tmp_path), {"mlp-ci.version": "3"}, [(layer, "all")])
    described = json.loads(made.raw)
    assert made.diff_ids == ["sha256:base", layer.diff_id]
    assert len(described["history"]) == 2
    assert (described["architecture"], described["os"]) == ("amd64", "linux")
    inside = described["config"]
    assert inside["User"] == "10001:10001"
    assert inside["Labels"] == {"maintainer": "them", "mlp-ci.version": "3"}
    assert {"PATH=/usr/bin", "HOME=/tmp", f"PYTHONPATH={naming.LIBRARY}"} <= set(inside["Env"])
    assert inside["Entrypoint"][:3] == ["python3", "-m", "mlp_ci.serve.server"]
    assert "Cmd" not in inside
    image.write(tmp_path / "image.tar", made, [layer], "m:1")
    with tarfile.open(tmp_path / "image.tar") as archive:
        names = archive.getnames()
        [manifest] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        raw = archive.extractfile(manifest["Config"]).read()  # type: ignore[union-attr]
    assert made.id == f"sha256:{hashlib.sha256(raw).hexdigest()}"
    assert len(manifest["Layers"]) == 2
    assert manifest["Layers"][1] in names
    assert manifest["Layers"][0] not in names, "the engine has it"


def test_a_bill_is_the_same_for_the_same_image(tmp_path: Path) -> None:
    held = contents.library(Needs(("uvicorn",)), SLIM, tmp_path, None)
    one, other = (json.loads(bill(subject(tmp_path), SLIM, held)) for _ in range(2))
    assert one == other
    assert one["metadata"]["timestamp"] == "2026-01-02T03:04:05+00:00"
    assert {"uvicorn", "click", "mlp-ci", "m", "python:slim"} <= {c["name"] for c in one["components"]}


def test_another_python_than_the_models_own_is_said(tmp_path: Path) -> None:
    assert another_python(tmp_path, SLIM) == []
    (tmp_path / "python_env.yaml").write_text(f"python: {SLIM.minor}.99\n")
    assert another_python(tmp_path, SLIM) == []
    (tmp_path / "python_env.yaml").write_text("python: 3.8.2\n")
    [finding] = another_python(tmp_path, SLIM)
    assert finding.message == f"the model was made with Python 3.8.2, and python:slim has {SLIM.minor}"
    assert finding.severity == "warning"
    (tmp_path / "python_env.yaml").write_text(": [")
    assert another_python(tmp_path, SLIM) == []


# ---------------------------------------------------------------- smoke


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "asks nothing"),
        ("nonsense", "line 1 of the smoke file is no JSON"),
        ("[1]", "is no JSON object"),
        ('{"request": {}}\n\n{"requests": {}}', "line 3 of the smoke file has 'requests'"),
        ('{"predictions": [1]}', "has no `request`"),
        ('{"request": {}, "predictions": 1}', "`predictions` that are no list"),
        ('{"request": {}, "tolerance": -1}', "`tolerance`"),
        ('{"request": {}, "tolerance": true}', "`tolerance`"),
        ('{"request": {}, "tolerance": NaN}', "`tolerance`"),
    ],
)
def test_smoke_files_that_ask_nothing_sensible(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        smoke.parse(text, "smoke.jsonl")


def test_what_a_smoke_file_expects() -> None:
    [any_, close, text] = smoke.parse(
        '{"request": {"inputs": [1]}}\n'
        '{"request": {"inputs": [1]}, "predictions": [0.5, {"a": 1}], "tolerance": 0.1}\n'
        '{"request": {"inputs": [1]}, "predictions": ["yes", true, null]}\n',
        "smoke.jsonl",
    )
    assert json.loads(any_.body) == {"inputs": [1]}
    assert smoke.wrong(any_, 200, b'{"predictions": [7]}') == ""
    assert "answers without predictions" in smoke.wrong(any_, 200, b"[]")
    assert smoke.wrong(any_, 500, b"oh") == "line 1: it answers 500: oh"
    assert smoke.wrong(close, 200, b'{"predictions": [0.58, {"a": 1.05}]}') == ""
    assert "not [0.5" in smoke.wrong(close, 200, b'{"predictions": [0.61, {"a": 1}]}')
    assert "it predicts" in smoke.wrong(close, 200, b'{"predictions": [0.5]}')
    assert smoke.wrong(text, 200, b'{"predictions": ["yes", true, null]}') == ""
    assert smoke.wrong(text, 200, b'{"predictions": ["yes", 1, null]}') != ""
