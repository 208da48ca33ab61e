"""The template of model repositories: where it is, how it was, and what it gives for some answers.

It is ``copier.yml`` with ``model-repos-template/`` and ``workflow-templates/``, in a checkout or in the wheel. A state
of it is named by the checkout's commit, or by the tag of the release that the wheel is.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from mlp_ci import __version__
from mlp_ci.errors import InputError, OutsideError
from mlp_ci.git import git

ANSWERS = ".copier-answers.yml"
PARTS = ("copier.yml", "model-repos-template", "workflow-templates")
_STATE = re.compile(r"[0-9a-f]{7,40}|v\d+\.\d+\.\d+[\w.+-]*")
_USES = re.compile(
    r"^(?P<head>\s*(?:-\s+)?uses:\s*[\"']?)[\w.-]+/mlp-ci(?P<action>/actions/[\w-]+)@[\w./-]+", re.MULTILINE
)
# A source that sends less than this for so long is as good as gone.
_IMPATIENT = ("-c", "http.lowSpeedLimit=100", "-c", "http.lowSpeedTime=20")
_SCRATCH = ".mlp-ci-part"

Files = Mapping[str, bytes]  # path in the repository → content


def shipped(name: str) -> Path:
    """A folder or file of the project that commands need at run time, such as ``actions``; in a checkout or a wheel."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent, package / "_data"):
        if (root / "copier.yml").is_file() and (root / name).exists():
            return root / name
    msg = f"this installation of mlp-ci lacks {name}"
    raise OutsideError(msg, fix=f"install it again: pip install --force-reinstall mlp-ci=={__version__}")


def pointed_at(text: str, target: str) -> str:
    """A workflow's text with every mlp-ci action taken from ``target``, as ``acme/mlp-ci@v1``."""
    repository, _, ref = target.partition("@")
    return _USES.sub(lambda use: f"{use['head']}{repository}{use['action']}@{ref}", text)


def _is_checkout() -> bool:
    root = shipped("copier.yml").parent
    return (root / ".git").exists() and toplevel(root) == root.resolve()


def toplevel(folder: Path) -> Path | None:
    """The root of the git working tree that ``folder`` lies in; None outside of any."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel")).resolve()
    except OutsideError:
        return None


def state() -> str:
    """What names this state of the template: the commit of the checkout, or the tag that the wheel was built from."""
    return git(shipped("copier.yml").parent, "rev-parse", "HEAD") if _is_checkout() else f"v{__version__}"


def render(template: Path, answers: Mapping[str, Any]) -> dict[str, bytes]:
    """All files that the template gives for these answers; questions without an answer take their default."""
    try:
        import copier
        from copier.errors import CopierError
    except ImportError as error:
        msg = "copier is not installed"
        raise InputError(msg, fix="pip install 'mlp-ci[scaffold]'") from error
    with tempfile.TemporaryDirectory(prefix="mlp-ci-template-") as scratch:
        # A copy, because in place copier would take the whole repository around it, at its last tag.
        copied, rendered = Path(scratch) / "template", Path(scratch) / "rendered"
        copied.mkdir()
        for part in PARTS:
            source = template / part
            if source.is_dir():
                shutil.copytree(source, copied / part)
            else:
                shutil.copy(source, copied / part)
        try:
            copier.run_copy(str(copied), rendered, data=dict(answers), defaults=True, quiet=True)
        except (CopierError, ValueError) as error:
            raise InputError(_first_line(error), fix="see `mlp-ci init --help`") from error
        return files_of(rendered)


def _first_line(error: Exception) -> str:
    return str(error).strip().replace("\n", " ").removeprefix("Validation error for ")


def stamped(files: Files, commit: str) -> dict[str, bytes]:
    """The files with, in the answers, where the template can be found again instead of where it was copied to."""
    lines = files[ANSWERS].decode().splitlines()
    heading = [line for line in lines if line.startswith("#")]
    recorded = yaml.safe_load(files[ANSWERS])
    platform = str(recorded["platform_ref"]).partition("@")[0]
    recorded |= {"_src_path": f"https://github.com/{platform}", "_commit": commit}
    return {**files, ANSWERS: ("\n".join(heading) + "\n" + yaml.safe_dump(recorded)).encode()}


def template_at(commit: str, scratch: Path, sources: Sequence[str]) -> Path:
    """The template as it was at ``commit``, unpacked below ``scratch``."""
    if not _STATE.fullmatch(commit):
        msg = f"{ANSWERS} records no state of the template (_commit is {commit!r})"
        raise InputError(msg, fix=f"git checkout the last good {ANSWERS}")
    if commit == state() and not _is_checkout():
        return shipped("copier.yml").parent
    if _is_checkout() and _unpack(shipped("copier.yml").parent, commit, scratch / "template"):
        return scratch / "template"
    fetched = scratch / "fetched"
    fetched.mkdir()
    git(fetched, "init", "-q")
    ref = commit if len(commit) == 40 else f"refs/tags/{commit}"
    for source in sources:
        try:
            git(fetched, *_IMPATIENT, "fetch", "-q", "--depth", "1", source, ref)
        except OutsideError:
            continue  # the next source may have it; the error below names them all
        if _unpack(fetched, "FETCH_HEAD", scratch / "template"):
            return scratch / "template"
    msg = f"the template as it was at {commit[:12]} cannot be had from {', '.join(sources) or 'anywhere'}"
    why = "without it the team's changes cannot be told from the template's"
    raise OutsideError(msg, why=why, fix="run this from a clone of mlp-ci that has this commit, or with the network up")


def _unpack(repository: Path, commit: str, folder: Path) -> bool:
    """Unpack the template's parts at ``commit``; False when the repository has no such commit."""
    archive = folder.with_suffix(".tar")
    try:
        git(repository, "archive", "--format=tar", "-o", str(archive), commit, "--", *PARTS)
    except OutsideError:
        return False
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return True


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder``, without git's own and what a killed :func:`put` left; empty when it is none."""
    found = {f.relative_to(folder): f for f in sorted(folder.rglob("*")) if f.is_file()} if folder.is_dir() else {}
    return {
        path.as_posix(): file.read_bytes()
        for path, file in found.items()
        if path.parts[0] != ".git" and path.suffix != _SCRATCH
    }


def put(file: Path, content: bytes) -> None:
    """Write a whole file or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    scratch = file.with_name(file.name + _SCRATCH)
    scratch.write_bytes(content)
    scratch.replace(file)
