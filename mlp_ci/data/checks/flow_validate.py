"""``mlp-ci validate``: bring the data that ``model.yaml`` names, and check it."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci import clock, dvc
from mlp_ci.data.checks.earlier import earlier_columns, schema_check
from mlp_ci.data.checks.judge import FileVerdict, freshness, judge_file
from mlp_ci.data.checks.validation_report import report_on
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.plan import types_wanted
from mlp_ci.data.sources import Source
from mlp_ci.errors import InputError
from mlp_ci.git import tracked_files
from mlp_ci.progress import doing
from mlp_ci.spec.load import load_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mlp_ci.context import Context
    from mlp_ci.report import Report
    from mlp_ci.spec.data import Data

# The names by which a query of `checks.sql` reads the two files, whichever of them is being checked.
TRAIN, TEST = "train", "test"


def validate(context: Context) -> Report:
    """Pull, digest, measure, judge. Fails the report when a rule is broken.

    Raises SpecError for a bad ``model.yaml``, InputError for data that is not there or cannot be read.
    """
    started = time.monotonic()
    data = load_model(context.repo).data
    paths = [data.train, data.test]
    known = references(context.repo, data)
    files = dvc.pull(context.repo, [*paths, *(path for path, by_dvc in known.items() if by_dvc)], apart=[data.test])
    digests = {path: dvc.tracked_digest(context.repo, path) for path in paths}
    types = types_wanted(data)
    others = {path: _referenced(context.repo / path, path, data) for path in known}
    for name, path in ((TRAIN, data.train), (TEST, data.test)):
        others[name] = Source.parse(files[path], shown_as=path, types=types)
    verdicts = {path: judge(files[path], path, data, others) for path in paths}
    if data.checks.schema_ != "off":
        verdicts = {path: _compared(context.repo, path, verdict, data) for path, verdict in verdicts.items()}
    fresh = freshness([v.newest for v in verdicts.values()], data, clock.now())
    report = report_on("validate", verdicts, fresh, data, clock.now(), time.monotonic() - started)
    report.outputs["data-digest"] = data_digest(digests)
    report.data = {"digests": digests, **report.data}
    return report


def judge(file: Path, shown_as: str, data: Data, others: Mapping[str, Source] | None = None) -> FileVerdict:
    """All rules of ``data`` that concern one file, for the file at ``file``.

    ``others``: what the rules may compare it with, by name: TRAIN, TEST, and the paths that columns reference. Rules
    about another file than these are left out where it is not given.
    """
    doing(f"checking {shown_as}")
    others = others or {}
    held_out = TEST if shown_as == data.train and TEST in others else ""
    with open_file(file, shown_as, types_wanted(data), others=others) as engine:
        return judge_file(engine, data, held_out=held_out)


def _compared(repo: Path, path: str, verdict: FileVerdict, data: Data) -> FileVerdict:
    check = schema_check(verdict.schema, earlier_columns(repo, path), data.checks.schema_)
    return replace(verdict, checks=(*verdict.checks, check))


def references(repo: Path, data: Data) -> dict[str, bool]:
    """The files that columns reference, and whether DVC tracks them; the rest is tracked by git.

    Raises InputError for a file that nobody tracks.
    """
    named = dict.fromkeys(c.references.file for c in data.columns.values() if c.references)
    known = {path: dvc.find_tracked(repo, path) is not None for path in named}
    plain = [path for path, by_dvc in known.items() if not by_dvc]
    lost = [path for path in plain if path not in (tracked_files(repo) if plain else ())]
    if lost:
        msg = f"{lost[0]}, which a column references, is tracked neither by DVC nor by git"
        why = "a check against a file that may change unseen says nothing"
        fix = (
            f"`dvc add {lost[0]}` for much data, `git add {lost[0]}` for little; or correct `references` in model.yaml"
        )
        raise InputError(msg, why=why, fix=fix)
    return known


def _referenced(file: Path, path: str, data: Data) -> Source:
    """The referenced columns are read as what the columns that reference them are."""
    types = {c.references.column: c.type for c in data.columns.values() if c.references and c.references.file == path}
    return Source.parse(file, shown_as=path, types=types)


def data_digest(digests: Mapping[str, str]) -> str:
    """One digest over all data: SHA-256 of the sorted JSON object path → digest."""
    text = json.dumps(dict(digests), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
