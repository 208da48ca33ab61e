"""``mlp-ci data profile``: what a file holds, as a table with small histograms, and as a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mlp_ci.data.describe.flow_infer import read_known
from mlp_ci.data.describe.patterns import personal
from mlp_ci.data.describe.profile_page import column_quantile, render
from mlp_ci.data.describe.survey import Surveyor
from mlp_ci.data.describe.versions import here
from mlp_ci.data.describe.view import ColumnView, FileView, bars_of, sparkline
from mlp_ci.data.engines.duck import open_file
from mlp_ci.data.profiles.profiling import profile_rows
from mlp_ci.data.profiles.shapes import CategoryProfile, NumberProfile, TextProfile
from mlp_ci.data.words import round_share, show_number
from mlp_ci.errors import InputError
from mlp_ci.report import Outcome, Report, Table
from mlp_ci.spec.load import MODEL_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from mlp_ci.data.describe.infer import Known
    from mlp_ci.data.describe.survey import ColumnSurvey, Survey
    from mlp_ci.data.profiles.shapes import ColumnProfile

KINDS = {"float": "number", "int": "number", "string": "category", "bool": "category"}
TOP = 3


def profile(repo: Path, what: str, page: Path | None = None) -> Report:
    """Profile the file, folder, glob or address ``what``; write the page to ``page`` when it is given.

    Columns are read as model.yaml in ``repo`` declares them, others as they look. Of sensitive columns, and of those
    that look like personal data, only nulls are shown. Raises InputError for what cannot be read or written.
    """
    if page and not page.absolute().parent.is_dir():
        msg = f"--report: there is no folder {page.absolute().parent}"
        raise InputError(msg, fix="make the folder, or name another one")
    known = read_known(repo / MODEL_FILE)
    view = look(what, known)
    if page:
        page.write_text(render(view), encoding="utf-8")
    return _report(view, page)


def look(what: str, known: Known) -> FileView:
    """All that the table and the page show."""
    source = here(what)
    with open_file(source, source.shown_as, {}) as file:
        survey = Surveyor(file).survey()
    types = {c.name: known.types.get(c.name, c.type) if c.physical.text else c.type for c in survey.columns if c.type}
    secret = {c.name for c in survey.columns if c.name in known.sensitive or _is_personal(c, known)}
    kinds = {name: KINDS[t] for name, t in types.items() if t in KINDS and name not in secret}
    with open_file(source, source.shown_as, types) as file:
        made = profile_rows(file.connection, "data", kinds)
    columns = [_view(c, types.get(c.name, ""), made.columns.get(c.name), c.name in secret) for c in survey.columns]
    return FileView(shown_as=source.shown_as, rows=survey.rows, columns=tuple(columns), repeated=_constant(survey))


def _is_personal(column: ColumnSurvey, known: Known) -> bool:
    return column.name not in known.types and bool(column.type) and bool(personal(column.name, column.sample))


def _constant(survey: Survey) -> tuple[str, ...]:
    return tuple(c.name for c in survey.columns if c.type and c.count and c.distinct == 1)


def _view(column: ColumnSurvey, kind: str, shape: ColumnProfile | None, secret: bool) -> ColumnView:
    return ColumnView(
        name=column.name,
        type=kind or column.physical.shown,
        rows=column.rows,
        nulls=column.nulls,
        distinct=None
        if secret or not kind
        else (column.distinct if column.levels is not None or column.unique else None),
        about=None if secret or not kind else column.distinct,
        unique=column.unique,
        sensitive=secret,
        shape=shape,
        span=(column.smallest, column.largest) if column.is_time and not secret else None,
    )


# ---------------------------------------------------------------- the table


def _report(view: FileView, page: Path | None) -> Report:
    secret = sum(c.sensitive for c in view.columns)
    headline = f"{view.shown_as}: {view.rows:,} rows, {len(view.columns)} columns"
    headline += f", {secret} of them hidden as sensitive" if secret else ""
    tables = []
    measured = [c for c in view.columns if isinstance(c.shape, NumberProfile)]
    names: tuple[str, ...]
    if measured:
        names = (
            "number",
            "missing",
            "distinct",
            "mean",
            "deviation",
            "min",
            "5 %",
            "median",
            "95 %",
            "max",
            "histogram",
        )
        tables.append(Table(title="Numbers", columns=names, rows=tuple(_number_row(c) for c in measured)))
    others = [c for c in view.columns if not isinstance(c.shape, NumberProfile)]
    if others:
        names = ("column", "type", "missing", "distinct", "what it holds")
        tables.append(Table(title="Others", columns=names, rows=tuple(_other_row(c) for c in others)))
    return Report(
        command="data profile",
        headline=headline,
        outcome=Outcome.PASS,
        tables=tables,
        data={"rows": view.rows, "columns": [_plain(c) for c in view.columns]},
        links=[("page", str(page))] if page else [],
    )


def _number_row(column: ColumnView) -> tuple[Any, ...]:
    shape = column.shape
    assert isinstance(shape, NumberProfile)
    quantiles = (column_quantile(column, shape, at) for at in (0.05, 0.5, 0.95))
    measured = (shape.mean, shape.deviation, shape.smallest, *quantiles)
    shown = [show_number(value) for value in (*measured, shape.largest)]
    return column.name, column.missing, column.distinct_words, *shown, sparkline(shape)


def _other_row(column: ColumnView) -> tuple[Any, ...]:
    return column.name, column.type, column.missing, column.distinct_words, _holds(column)


def _holds(column: ColumnView) -> str:
    if column.sensitive:
        return "hidden: sensitive"
    shape = column.shape
    if column.unique:
        return "no value twice"
    if isinstance(shape, CategoryProfile):
        bars = bars_of(shape)[:TOP]
        return ", ".join(f"{bar.label} {round_share(bar.share)}" for bar in bars)
    if isinstance(shape, TextProfile) and shape.length.count:
        return f"text, {show_number(shape.length.smallest)} … {show_number(shape.length.largest)} characters"
    return column.span_words


def _plain(column: ColumnView) -> dict[str, Any]:
    found: dict[str, Any] = {"name": column.name, "type": column.type, "rows": column.rows, "nulls": column.nulls}
    if column.sensitive:
        return {**found, "sensitive": True}
    found |= {"distinct": column.about, "unique": column.unique}
    if column.span:
        found["span"] = column.span_words
    return {**found, "profile": {"kind": column.shape.kind, **asdict(column.shape)}} if column.shape else found
