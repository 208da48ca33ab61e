"""``mlp-ci data diff``: two versions of data side by side, for a terminal, a program or a pull request."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlp_ci.data.describe.diff import Changes, compare
from mlp_ci.data.describe.diff_words import Compared, report
from mlp_ci.data.describe.flow_infer import read_known
from mlp_ci.data.describe.patterns import looks_like_key, personal
from mlp_ci.data.describe.survey import Surveyor
from mlp_ci.data.describe.versions import (
    Version,
    at_commit,
    base_commit,
    commit_of,
    here,
    in_work_tree,
    split_revision,
    tracked_at,
    unchanged_since,
)
from mlp_ci.data.engines.duck import columns_of, open_file
from mlp_ci.data.engines.duck_load import load
from mlp_ci.errors import InputError
from mlp_ci.report import Finding, Outcome, Report, markdown
from mlp_ci.spec.load import MODEL_FILE, load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlp_ci.context import Context
    from mlp_ci.data.describe.infer import Known
    from mlp_ci.data.sources import Source

MARKER = "mlp-ci:data-diff"
PERSONAL_SAMPLE = 1_000
KEYS_TRIED = 3


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What to compare: nothing for all data of model.yaml, one path (against ``base``), or two things."""

    a: str = ""
    b: str = ""
    base: str = ""
    key: tuple[str, ...] = ()
    comment: bool = False


def diff(context: Context, asked: Asked) -> Report:
    """Compare, and with ``comment`` say so in the one comment of the job's pull request. A change is no failure.

    Raises InputError for what cannot be found or read, OutsideError when data or GitHub cannot be reached.
    """
    known = read_known(context.repo / MODEL_FILE)
    with tempfile.TemporaryDirectory(prefix="mlp-ci-") as scratch:
        compared = list(_compared(context, asked, known, Path(scratch)))
    made = report(compared)
    if asked.comment:
        made.findings.append(_comment(context, made, changed=any(c.changed for c in compared)))
    return made


def _compared(context: Context, asked: Asked, known: Known, scratch: Path) -> Iterator[Compared]:
    if asked.b:
        folders = [scratch / "a", scratch / "b"]
        sides = [_side(context.repo, what, folder) for what, folder in zip((asked.a, asked.b), folders, strict=True)]
        yield _compare(sides[0], sides[1], known, asked.key)
        return
    commit = commit_of(context.repo, asked.base) if asked.base else base_commit(context)
    if asked.a:
        paths = [_inside(context.repo, asked.a)]
    else:
        data = load_model(context.repo).data
        paths = [data.train, data.test]
    for number, path in enumerate(paths):
        shown = f"{path} at {commit[:8]}"
        if unchanged_since(context.repo, commit, path):
            yield Compared(before=shown, now=path, same=True)
            continue
        folder = scratch / str(number)
        folder.mkdir()
        before = at_commit(context.repo, commit, path, folder)
        if before is None:
            yield Compared(before=shown, now=path, first=True)
            continue
        yield _compare(before, in_work_tree(context.repo, path), known, asked.key)


def _inside(repo: Path, what: str) -> str:
    """A path as the repository calls it; given relative to where we are, or to the repository."""
    path = split_revision(repo, what)
    if path[1]:
        msg = f"{what} names a revision, and nothing to compare it with"
        raise InputError(msg, fix=f"mlp-ci data diff {what} {path[0]}")
    place = Path(what)
    if place.exists() and place.resolve().is_relative_to(repo.resolve()):
        return place.resolve().relative_to(repo.resolve()).as_posix()
    if (repo / what).exists() or (repo / f"{what}.dvc").exists() or tracked_at(repo, "HEAD", what):
        return place.as_posix()
    msg = f"{what} is not in the repository at {repo}, so git knows no earlier version of it"
    raise InputError(msg, fix=f"name both sides: mlp-ci data diff OLD {what}")


def _side(repo: Path, what: str, folder: Path) -> Version:
    path, revision = split_revision(repo, what)
    if not revision:
        return Version(source=here(what), shown_as=what)
    commit = commit_of(repo, revision)
    folder.mkdir()
    found = at_commit(repo, commit, path, folder)
    if found is None:
        msg = f"{path} is not in {revision} ({commit[:8]}): neither DVC nor git had it there"
        raise InputError(msg, fix=f"`git log --oneline -- {path}.dvc` lists the commits that changed it")
    return found


# ---------------------------------------------------------------- comparing


def _compare(before: Version, now: Version, known: Known, key: Sequence[str]) -> Compared:
    types = _types(before.source, now.source, known)
    then = before.source.typed({name: pair[0] for name, pair in types.items() if pair[0]})
    current = now.source.typed({name: pair[1] for name, pair in types.items() if pair[1]})
    with open_file(current, now.shown_as, current.types) as file:
        columns_before = load(file.connection, then, "before").columns
        columns_now = file.schema()
        both = {c.name for c in columns_before} & {c.name for c in columns_now}
        lacking = [name for name in key if name not in both]
        if lacking:
            msg = f"no column {', '.join(lacking)} in both versions, so rows cannot be told apart by it"
            raise InputError(msg, fix=f"both have: {', '.join(sorted(both)[:10])}")
        wanted = tuple(key) or (known.key if known.key and set(known.key) <= both else ())
        wanted = wanted or _guessed_key(file.connection, [c.name for c in columns_now if c.name in both])
        sensitive = set(known.sensitive) | {
            c.name for c in columns_now if c.name not in known.types and _is_personal(file.connection, c.name, c.kind)
        }
        changes: Changes = compare(
            file.connection, columns_before, columns_now, types=types, key=wanted, sensitive=sensitive
        )
    return Compared(before=before.shown_as, now=now.shown_as, changes=changes, guessed=not key and wanted != known.key)


def _types(before: Source, now: Source, known: Known) -> dict[str, tuple[str, str]]:
    """(before, now) as what to read each column of text: as model.yaml declares it, else as the other side stores it,
    else as it looks.
    """
    stored = {c.name: c.kind for s in (before, now) if s.format != "csv" for c in columns_of(s) if c.kind != "other"}
    declared = {**(stored if "csv" in (before.format, now.format) else {}), **known.types}
    looks = [_looks(source, declared) for source in (before, now)]
    return {name: (looks[0].get(name, ""), looks[1].get(name, "")) for name in {**looks[0], **looks[1]}}


def _looks(source: Source, declared: Mapping[str, str]) -> Mapping[str, str]:
    if source.format != "csv":
        return {}
    names = [c.name for c in columns_of(source)]
    if all(name in declared for name in names):
        return {name: declared[name] for name in names}
    with open_file(source, source.shown_as, {}) as file:
        survey = Surveyor(file).survey()
    return {c.name: declared.get(c.name, c.type) for c in survey.columns}


def _guessed_key(connection: Any, names: Sequence[str]) -> tuple[str, ...]:
    from mlp_ci.data.engines.duck_sql import quoted

    for name in [n for n in names if looks_like_key(n)][:KEYS_TRIED]:
        sql = f"SELECT count(*) = count(DISTINCT hash({quoted(name)})) AND count(*) = count({quoted(name)}) FROM "
        if all(connection.execute(sql + view).fetchone()[0] for view in ("before", "data")):
            return (name,)
    return ()


def _is_personal(connection: Any, name: str, kind: str) -> bool:
    from mlp_ci.data.engines.duck_sql import quoted

    if personal(name, ()):
        return True
    if kind != "string":
        return False
    some = f"(SELECT {quoted(name)} AS v FROM data LIMIT {PERSONAL_SAMPLE})"
    found = connection.execute(f"SELECT DISTINCT v FROM {some} WHERE v IS NOT NULL").fetchall()
    return bool(personal(name, [str(value) for (value,) in found]))


# ---------------------------------------------------------------- saying it on the pull request


def _comment(context: Context, made: Report, *, changed: bool) -> Finding:
    """Write or renew the comment; where nothing changed, an earlier one is renewed and none is begun."""
    pull = context.github.event.get("pull_request") if context.github else None
    number = pull.get("number") if isinstance(pull, dict) else None
    if not isinstance(number, int):
        said = "this is no job of a pull request: there is nothing to comment on"
        return Finding(check="comment", outcome=Outcome.SKIP, message=said)
    from mlp_ci.github import connect

    hub = connect(context.require_github("a comment on the pull request"))
    address = hub.sticky_comment(number, MARKER, markdown(made), begin=changed)
    said = f"on pull request {number}" if address else "nothing changed: no comment begun"
    if address:
        made.links.append(("comment", address))
    return Finding(check="comment", outcome=Outcome.PASS if address else Outcome.SKIP, message=said)
