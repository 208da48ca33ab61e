"""How the columns of the data changed since its last committed version."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mlp_ci import dvc
from mlp_ci.data.checks.verdict import Check
from mlp_ci.data.words import cut
from mlp_ci.errors import MlpError
from mlp_ci.git import file_at, git
from mlp_ci.report import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlp_ci.data.plan import PhysicalColumn

# That many changes back the version before this one is looked for.
COMMITS = 20
SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The columns of the version before: ``since`` names it, ``missing`` says why its columns are not known."""

    since: str = ""
    columns: tuple[PhysicalColumn, ...] = ()
    missing: str = ""


def earlier_columns(repo: Path, path: str) -> Earlier | None:
    """The columns of the last committed version of ``path`` that differs from what git asks for; None for the first.

    Fetches nothing: only what lies in DVC's cache, or in a remote that is a folder of this machine, is read.
    """
    now = dvc.tracked(repo, path)
    for commit in git(repo, "log", f"-{COMMITS}", "--format=%H", "--", now.said_in).split():
        content = file_at(repo, commit, now.said_in)
        md5 = _md5_said(content, now) if content else None
        if md5 is None or md5 == now.md5:
            continue
        since = f"commit {commit[:8]}"
        inside = path.removeprefix(now.path).lstrip("/")
        files = [(n, f) for n, f in dvc.stored(repo, md5, PurePosixPath(now.path).name) if n == inside or not inside]
        if not files:
            return Earlier(since=since, missing=f"the data of {since} is neither in DVC's cache nor in a local remote")
        return _read(files, path, since)
    if git(repo, "rev-parse", "--is-shallow-repository") == "true":
        return Earlier(missing="the checkout has no history (`fetch-depth: 0` brings it)")
    return None


def _md5_said(content: bytes, tracked: dvc.Tracked) -> str | None:
    """The md5 of the same output in an earlier text of the file that speaks of it."""
    import yaml

    try:
        value = yaml.safe_load(content)
    except yaml.YAMLError:
        return None
    if not isinstance(value, Mapping):
        return None
    stages = value.get("stages")
    holders = list(stages.values()) if isinstance(stages, Mapping) else [value]
    outs = [out for h in holders if isinstance(h, Mapping) for out in _list(h.get("outs")) if isinstance(out, Mapping)]
    base = PurePosixPath(tracked.said_in).parent / str(value.get("wdir", "."))
    same = [out for out in outs if posixpath.normpath(base / str(out.get("path", ""))) == tracked.path]
    return str(same[0]["md5"]) if same and isinstance(same[0].get("md5"), str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read(files: Iterable[tuple[str, Path]], path: str, since: str) -> Earlier:
    from mlp_ci.data.engines.duck import columns_of
    from mlp_ci.data.sources import Source

    # Stores name files by their digest; the format is in the name that people gave them.
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        top = Path(scratch) / "data"
        top.mkdir()
        for name, place in files:
            link = top / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(place.resolve())
        try:
            return Earlier(since=since, columns=columns_of(Source.parse(top, shown_as=f"{path} of {since}")))
        except MlpError as error:
            return Earlier(since=since, missing=error.what)


def schema_check(now: Sequence[PhysicalColumn], before: Earlier | None, severity: str) -> Check:
    """Which columns came, went or changed their type. ``severity`` is that of ``data.checks.schema``."""
    graded = "warning" if severity == "warn" else "error"
    if before is None:
        return Check(rule="schema", column="", outcome=Outcome.PASS, message="the first version of this data")
    if before.missing:
        return Check(rule="schema", column="", outcome=Outcome.SKIP, message=f"not compared: {before.missing}")
    here, there = {c.name: c for c in now}, {c.name: c for c in before.columns}
    typed = not any(c.text for c in (*now, *before.columns))
    changed = [
        f"{cut(name)} ({cut(there[name].shown)} → {cut(column.shown)})"
        for name, column in here.items()
        if typed and name in there and there[name].shown != column.shown
    ]
    gone, new = [cut(n) for n in there if n not in here], [cut(n) for n in here if n not in there]
    told = [
        f"{what} {', '.join(names[:SHOWN])}{f' and {len(names) - SHOWN:,} more' if len(names) > SHOWN else ''}"
        for what, names in (("gone:", gone), ("new:", new), ("another type:", changed))
        if names
    ]
    if not told:
        return Check(rule="schema", column="", outcome=Outcome.PASS, message=f"the columns of {before.since}")
    return Check(
        rule="schema",
        column="",
        outcome=Outcome.FAIL,
        message=f"the columns changed since {before.since}: {'; '.join(told)}",
        fix="if that is meant, say so in the pull request; `checks: {schema: off}` turns this off",
        severity=graded,
    )
