"""Environments of the training command, really made, from a wheel of our own and without any network."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pytest

from mlp_ci.errors import InputError, MlpError, OutsideError
from mlp_ci.spec import parse_model
from mlp_ci.spec.train import Environment
from mlp_ci.train import environment as environments
from mlp_ci.train.key import environment_digest, included

MODEL = b"""\
apiVersion: mlp-ci/v1
name: tiny
team: growth
data: {train: train.csv, test: test.csv, key: [id], target: y, columns: {x: {type: float}}}
train: {command: python train.py, environment: {pip: requirements.txt}}
evaluate: {gates: [{metric: accuracy, min: 0.6}]}
"""
PROJECT = """\
[project]
name = "team"
version = "1"
requires-python = ">=3.11"
dependencies = ["mlp-ci-tiny"]
[tool.uv.sources]
mlp-ci-tiny = {path = "wheels/mlp_ci_tiny-1.0-py3-none-any.whl"}
"""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_LINK_MODE", "copy")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository with a wheel in it, and a requirements file that is content with that wheel."""
    folder = tmp_path / "repo"
    (folder / "wheels").mkdir(parents=True)
    tiny_wheel(folder / "wheels")
    (folder / "requirements.txt").write_text("--no-index\n--find-links wheels\nmlp-ci-tiny==1.0\n")
    return folder


def tiny_wheel(folder: Path) -> Path:
    """A wheel of one module that knows its answer."""
    info = "mlp_ci_tiny-1.0.dist-info"
    content = {
        "mlp_ci_tiny.py": "answer = 42\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mlp-ci-tiny\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(text)}\n"
    content[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    file = folder / "mlp_ci_tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in content.items():
            archive.writestr(name, text)
    return file


def make(repo: Path, cache: Path, environment: Environment, digest: str = "d") -> tuple[Path, list[str]]:
    said: list[str] = []
    return environments.executables(environment, digest, repo, cache, said.append), said


def answer(folder: Path) -> str:
    code = "import mlp_ci_tiny, sys; print(mlp_ci_tiny.answer, sys.prefix)"
    done = subprocess.run([folder / "python", "-c", code], capture_output=True, text=True, check=False, env={})
    return done.stdout + done.stderr


def test_pip_is_made_once_per_lock_and_used_again(repo: Path, tmp_path: Path) -> None:
    pip = Environment.model_validate({"pip": "requirements.txt"})
    folder, said = make(repo, tmp_path / "cache", pip)
    assert answer(folder) == f"42 {folder.parent}\n"
    assert "once per lock" in said[0]
    assert make(repo, tmp_path / "cache", pip) == (folder, [])
    other, said = make(repo, tmp_path / "cache", pip, "another digest")
    assert other != folder
    assert said


@pytest.mark.slow
def test_pip_without_uv_on_the_machine(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_program", {}.get)
    folder, _ = make(repo, tmp_path / "cache", Environment.model_validate({"pip": "requirements.txt"}))
    assert answer(folder).startswith("42 ")


def test_uv_with_a_lock_and_a_lock_that_is_broken(repo: Path, tmp_path: Path) -> None:
    (repo / "pyproject.toml").write_text(PROJECT)
    uv = Environment.model_validate({"uv": "pyproject.toml"})
    subprocess.run(
        [environments.find_program("uv") or "uv", "lock", "--quiet"], cwd=repo, check=True, capture_output=True
    )
    folder, _ = make(repo, tmp_path / "cache", uv)
    assert answer(folder).startswith("42 ")
    lock = (repo / "uv.lock").read_text()
    (repo / "uv.lock").write_text(lock[: len(lock) // 2])
    with pytest.raises(InputError, match=r"uv sync.*pyproject.toml") as broken:
        make(repo, tmp_path / "cache", uv, "broken")
    assert "parse" in broken.value.why
    assert broken.value.file == "pyproject.toml"


@pytest.mark.parametrize(
    ("requirements", "kind"),
    [
        ("--no-index\n--find-links wheels\nmlp-ci-tiny==2.0\n", InputError),
        ("mlp-ci-tiny === === 1\n", InputError),
        ("--no-index\n--find-links wheels\nmlp-ci-tiny==1.0 --hash=sha256:" + "0" * 64 + "\n", InputError),
        ("--index-url http://ann:opensesame@127.0.0.1:9/simple\nmlp-ci-tiny==1.0\n", OutsideError),
    ],
)
def test_requirements_that_cannot_be_met(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requirements: str, kind: type[MlpError]
) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "2")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    (repo / "requirements.txt").write_text(requirements)
    with pytest.raises(MlpError) as failed:
        make(repo, tmp_path / "cache", Environment.model_validate({"pip": "requirements.txt"}))
    assert type(failed.value) is kind, failed.value.why
    assert "requirements.txt" in failed.value.what
    assert "opensesame" not in failed.value.why


def test_what_a_program_says_is_shown_without_secrets() -> None:
    said = environments.masked(
        "no such index: https://ann:pa55word@index.example/simple, https://t0ken@index.example and hunter22",
        {"INDEX_PASSWORD": "hunter22"},
    )
    assert said == "no such index: https://***@index.example/simple, https://***@index.example and ***"


def seen_by_conda(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, body: str) -> list[str]:
    """No conda can be had where tests run, so a script of that name writes down what it is asked for."""
    programs = tmp_path / "programs"
    programs.mkdir()
    seen = tmp_path / "seen"
    (programs / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\n{body}\n')
    (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    (repo / "environment.yml").write_text("dependencies: [python=3.12]\n")
    folder, _ = make(repo, tmp_path / "cache", Environment.model_validate({"conda": "environment.yml"}))
    assert (folder / "python").exists()
    return [line.replace(str(folder.parent), "PREFIX") for line in seen.read_text().splitlines()]


@pytest.mark.parametrize(
    ("name", "verb", "prefix"), [("micromamba", ["create"], "$4"), ("conda", ["env", "create"], "$5")]
)
def test_conda_is_asked_for_an_environment_of_the_file(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, verb: list[str], prefix: str
) -> None:
    body = f'mkdir -p "{prefix}/bin" && touch "{prefix}/bin/python"'
    seen = seen_by_conda(repo, tmp_path, monkeypatch, name, body)
    assert seen == [*verb, "--yes", "--prefix", "PREFIX", "--file", str(repo / "environment.yml")]


def test_no_conda_on_the_machine(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match="neither conda, mamba nor micromamba"):
        make(repo, tmp_path / "cache", Environment.model_validate({"conda": "environment.yml"}))


def _make_in_a_process(repo: Path, cache: Path, before: Callable[[], None] | None = None) -> None:
    if before:
        before()
    make(repo, cache, Environment.model_validate({"pip": "requirements.txt"}))


def test_two_processes_at_once_make_one_and_one_killed_half_way_is_made_again(repo: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    fork = get_context("fork")
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "uv").write_text(f'#!/bin/sh\nmkdir -p "$5"; echo begun > {tmp_path}/begun; sleep 30\n')
    (slow / "uv").chmod(0o755)

    def slowly() -> None:
        os.setsid()
        os.environ["PATH"] = f"{slow}{os.pathsep}{os.environ['PATH']}"

    killed = fork.Process(target=_make_in_a_process, args=(repo, cache, slowly))
    killed.start()
    while not (tmp_path / "begun").exists():
        assert killed.is_alive()
        time.sleep(0.01)
    os.killpg(killed.pid or 0, signal.SIGKILL)
    killed.join()
    both = [fork.Process(target=_make_in_a_process, args=(repo, cache)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    folders = [p for p in (cache / "environments").iterdir() if p.is_dir()]
    assert len(folders) == 1
    assert answer(folders[0] / "bin").startswith("42 ")


def test_environments_that_nobody_used_for_a_month_are_deleted(tmp_path: Path) -> None:
    now = time.time()
    for name, days in (("used", 29), ("unused", 31)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / environments.COMPLETE).touch()
        os.utime(folder / environments.COMPLETE, (now - days * 86_400,) * 2)
    assert environments.forget_unused(tmp_path) == [tmp_path / "unused"]
    assert (tmp_path / "used").is_dir()


def test_files_that_a_requirements_file_includes_are_part_of_its_digest(repo: Path) -> None:
    (repo / "requirements.txt").write_text(
        "-r more/other.txt\n--constraint=pins.txt  # all of them\n-r requirements.txt\n"
    )
    (repo / "more").mkdir()
    (repo / "more" / "other.txt").write_text("mlp-ci-tiny\n")
    (repo / "pins.txt").write_text("mlp-ci-tiny==1.0\n")
    spec = parse_model(MODEL, "model.yaml")
    assert included(repo, "requirements.txt") == ["more/other.txt", "pins.txt"]
    before = environment_digest(repo, spec)
    (repo / "pins.txt").write_text("mlp-ci-tiny==2.0\n")
    after = environment_digest(repo, spec)
    (repo / "more" / "other.txt").write_text("mlp-ci-tiny>1\n")
    assert len({before, after, environment_digest(repo, spec)}) == 3


def test_inherit_is_the_environment_of_mlp_ci(tmp_path: Path) -> None:
    folder, said = make(tmp_path, tmp_path / "cache", Environment.model_validate({"inherit": True}))
    assert (folder / "python").resolve() == Path(sys.executable).resolve()
    assert not said
