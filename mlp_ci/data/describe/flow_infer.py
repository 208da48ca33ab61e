"""``mlp-ci data infer``: look at a file, and say, or write into ``model.yaml``, what to ask of it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from mlp_ci import clock
from mlp_ci.data.describe.infer import Known, Suggestion, infer
from mlp_ci.data.describe.infer_text import Edited, document, edit
from mlp_ci.data.describe.survey import Surveyor
from mlp_ci.data.describe.versions import here
from mlp_ci.data.engines.duck import open_file
from mlp_ci.errors import InputError, SpecError
from mlp_ci.progress import doing
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.spec.data import ColumnType
from mlp_ci.spec.document import parse_document
from mlp_ci.spec.load import MODEL_FILE, parse_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMN_TYPES = get_args(ColumnType)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How to infer: ``margin`` around what was seen, ``sample`` rows instead of all, ``write`` into model.yaml."""

    margin: float = 0.1
    sample: int | None = None
    write: bool = False


def infer_file(repo: Path, what: str, wanted: Wanted) -> Report:
    """Describe the file, folder, glob or address ``what``; ``repo`` is where model.yaml is, if there is one.

    Raises InputError for data that cannot be read, SpecError when the renewed model.yaml would not be valid.
    """
    if not 0 <= wanted.margin <= 10:
        msg = f"--margin {wanted.margin:g} is not between 0 and 10"
        raise InputError(msg, fix="0 allows what was seen, 0.1 (the default) a tenth of the range more on either side")
    if wanted.sample is not None and wanted.sample < 1:
        msg = f"--sample {wanted.sample} holds no row"
        raise InputError(msg, fix="give a number of rows, such as 100000")
    model = repo / MODEL_FILE
    if wanted.write and not model.is_file():
        fix = "run `mlp-ci init` to start a model repository, or leave --write out and paste what is printed"
        msg = f"there is no {MODEL_FILE} in {repo}"
        raise InputError(msg, fix=fix)
    known = read_known(model)
    source = here(what)
    doing(f"reading {source.shown_as}")
    with open_file(source, source.shown_as, {}) as file:
        surveyor = Surveyor(file, wanted.sample)
        suggestion = infer(surveyor, margin=wanted.margin, now=clock.now(), known=known)
    edited = _write(model, suggestion) if wanted.write else None
    return _report(source.shown_as, suggestion, edited)


def read_known(model: Path) -> Known:
    """What model.yaml says of its data, as far as it can be read: it may be the very thing that is being mended."""
    if not model.is_file():
        return Known()
    try:
        value = parse_document(model.read_bytes(), MODEL_FILE).value
    except SpecError:
        return Known()
    data = value.get("data") if isinstance(value, dict) else None
    if not isinstance(data, dict):
        return Known()
    columns, key = data.get("columns"), data.get("key")
    columns = columns if isinstance(columns, dict) else {}
    return Known(
        key=tuple(str(k) for k in key) if isinstance(key, list) else (),
        time=_word(data.get("time")),
        target=_word(data.get("target")),
        sensitive=frozenset(n for n, c in columns.items() if isinstance(c, dict) and c.get("sensitive") is True),
        types={n: c["type"] for n, c in columns.items() if isinstance(c, dict) and c.get("type") in COLUMN_TYPES},
    )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _write(model: Path, suggestion: Suggestion) -> Edited:
    """Renew the block in model.yaml; the file is whole at every moment, and only ever valid."""
    raw = model.read_bytes()
    parse_document(raw, MODEL_FILE)  # what cannot be read as it is, is not edited
    mark = b"\xef\xbb\xbf" if raw.startswith(b"\xef\xbb\xbf") else b""
    edited = edit(raw.decode("utf-8-sig"), suggestion)
    new = mark + edited.text.encode()
    parse_model(new, MODEL_FILE)
    if new != raw:
        place = model.resolve()
        scratch = place.with_name(f".{place.name}.{os.getpid()}")
        try:
            scratch.write_bytes(new)
            shutil.copymode(place, scratch)
            scratch.replace(place)
        finally:
            scratch.unlink(missing_ok=True)
    return edited


def _report(shown_as: str, suggestion: Suggestion, edited: Edited | None) -> Report:
    described = [line for line in suggestion.columns if not line.left_out]
    of = f"{'all' if suggestion.of_all else 'a sample of'} {suggestion.rows:,} rows"
    headline = f"{len(described)} columns of {shown_as} described from {of}"
    findings = [
        Finding(check="infer", subject=line.name, outcome=Outcome.SKIP, message=f"left out: {line.comment}")
        for line in suggestion.columns
        if line.left_out
    ]
    if edited:
        headline = f"{MODEL_FILE}: {len(edited.renewed)} columns written, from {of} of {shown_as}"
        headline += "; checks added" if edited.checks_added and suggestion.checks else ""
        findings += [
            Finding(
                check="infer",
                subject=name,
                outcome=Outcome.SKIP,
                message="is not in model.yaml, and follows there as a comment: whether the model reads it, you know",
            )
            for name in edited.not_named
        ]
    return Report(
        command="data infer",
        headline=headline,
        findings=findings,
        document="" if edited else document(suggestion, shown_as),
        data={
            "rows": suggestion.rows,
            "of_all": suggestion.of_all,
            "columns": {line.name: _plain(line.fields) for line in described},
            "reasons": {line.name: line.comment for line in (*suggestion.columns, *suggestion.checks)},
            "checks": {
                line.name: line.fields.get("", _plain(line.fields)) for line in suggestion.checks if not line.guess
            },
            "key": list(suggestion.key),
            "time": suggestion.time,
            "target": suggestion.target,
            "written": edited is not None,
        },
        links=[("what changed", "git diff model.yaml")] if edited else [],
    )


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in fields.items()}
