"""``mlp-ci data check``: the checks of ``model.yaml`` on data where it is: files, Spark, a table of a warehouse."""

from __future__ import annotations

import contextlib
import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from mlp_ci import clock, dvc
from mlp_ci.data.checks.flow_validate import TEST, TRAIN, references
from mlp_ci.data.checks.judge import Check, freshness, judge_file
from mlp_ci.data.checks.validation_report import report_on
from mlp_ci.data.plan import types_wanted
from mlp_ci.data.sources import Source, without_secrets
from mlp_ci.errors import InputError
from mlp_ci.progress import doing
from mlp_ci.report import Outcome
from mlp_ci.spec.load import load_model

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlp_ci.data.engine import Engine
    from mlp_ci.report import Report
    from mlp_ci.spec.data import Data

ENGINES = ("auto", "duckdb", "spark", "sql")
TABLE = "table:"


def check(repo: Path, source: str, engine: str = "auto", warehouse: str | None = None) -> Report:
    """Measure and judge ``source`` with ``engine``: auto, duckdb, spark or sql.

    ``source`` is a file, a folder, a glob or an address, or ``table:schema.name`` of Spark's catalog or of the
    database whose SQLAlchemy address ``warehouse`` is. Raises SpecError for a bad ``model.yaml``, InputError for data
    that is not there or cannot be read, OutsideError where the database does not answer.
    """
    started = time.monotonic()
    chosen = _chosen(source, engine, warehouse)
    shown = without_secrets(source) if "://" in source else source
    asked = load_model(repo).data
    data, left_out = _possible(asked, chosen)
    doing(f"checking {shown}")
    with _opened(repo, source, chosen, warehouse or "", data) as opened:
        verdict = judge_file(opened, data)
    verdict = replace(verdict, checks=(*verdict.checks, *left_out))
    now = clock.now()
    fresh = freshness([verdict.newest], data, now)
    report = report_on("data check", {shown: verdict}, fresh, data, now, time.monotonic() - started)
    report.data = {"engine": chosen, **report.data}
    return report


def _chosen(source: str, engine: str, warehouse: str | None) -> str:
    is_table = source.startswith(TABLE)
    if engine not in ENGINES:
        what = f"there is no engine {engine}"
        raise InputError(what, fix=f"choose one of {', '.join(ENGINES)}")
    if engine == "auto":
        engine = "sql" if is_table else "duckdb"
    if engine == "duckdb" and is_table:
        what = f"DuckDB reads files, and {source} is a table"
        raise InputError(what, fix="leave out `--engine`, or say `--engine spark` or `--engine sql`")
    if engine == "sql" and not is_table:
        what = f"the engine sql reads tables, and {source} is none"
        raise InputError(what, fix="write it as table:schema.name, or leave out `--engine`")
    if engine == "sql" and not warehouse:
        what = "MLP_CI_WAREHOUSE does not say where the tables are"
        fix = "export MLP_CI_WAREHOUSE=postgresql://user:password@host/database (any address of SQLAlchemy)"
        raise InputError(what, fix=fix)
    return engine


def _possible(data: Data, engine: str) -> tuple[Data, list[Check]]:
    """What can be checked without the two files of ``data``, and for a warehouse without files; the rest is said."""
    missing = [TRAIN, TEST]
    left_out = []
    if engine == "sql":
        columns = {}
        for name, column in data.columns.items():
            if column.references:
                file = column.references.file
                missing.append(file)
                message = f"the values are in {file}, and the warehouse does not have that file"
                left_out.append(Check(rule="references", column=name, outcome=Outcome.SKIP, message=message))
                column = column.model_copy(update={"references": None})  # noqa: PLW2901
            columns[name] = column
        data = data.model_copy(update={"columns": columns})
    kept = []
    for query in data.checks.sql:
        reads = next((name for name in missing if _names(query.query, name)), None)
        if reads is None:
            kept.append(query)
            continue
        message = f"the query reads {reads}, which is not open here"
        left_out.append(Check(rule="sql", column=query.name, outcome=Outcome.SKIP, message=message))
    return data.model_copy(update={"checks": data.checks.model_copy(update={"sql": tuple(kept)})}), left_out


def _names(sql: str, name: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(name)}(?![\w(])", sql, re.IGNORECASE) is not None


@contextlib.contextmanager
def _opened(repo: Path, source: str, engine: str, warehouse: str, data: Data) -> Iterator[Engine]:
    types = types_wanted(data)
    match engine:
        case "sql":
            from mlp_ci.data.engines.warehouse import open_table

            with open_table(warehouse, source.removeprefix(TABLE), types) as table:
                yield table
        case "spark":
            from mlp_ci.data.engines.spark import open_spark

            with open_spark(source, types, _referenced(repo, data)) as frame:
                yield frame
        case _:
            from mlp_ci.data.engines.duck import open_file

            shown = without_secrets(source) if "://" in source else source
            with open_file(source, shown, types, others=_referenced(repo, data)) as file:
                yield file


def _referenced(repo: Path, data: Data) -> dict[str, Source]:
    """The files that columns reference, brought and open to be read as what the columns that reference them are."""
    known = references(repo, data)
    dvc_tracked: Sequence[str] = [path for path, by_dvc in known.items() if by_dvc]
    if dvc_tracked:
        dvc.pull(repo, list(dvc_tracked))
    wanted = [(c.references, c.type) for c in data.columns.values() if c.references]
    return {
        path: Source.parse(repo / path, shown_as=path, types={r.column: kind for r, kind in wanted if r.file == path})
        for path in known
    }
