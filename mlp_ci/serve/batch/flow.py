"""``mlp-ci predict``: read the input in pieces, check each row, predict it with one version, write it down whole."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci import __version__, clock
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.progress import doing, share
from mlp_ci.serve.batch import checks, columns, inputs, output, reading, telling
from mlp_ci.serve.batch.chosen import Chosen, choose
from mlp_ci.serve.batch.output import PART_ROWS, Plan, Progress, Skipped, Writer
from mlp_ci.serve.batch.tables import as_written, schema_of
from mlp_ci.serve.batch.workers import Model, Said, Workers

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import pyarrow as pa

    from mlp_ci.context import Context
    from mlp_ci.report import Report
    from mlp_ci.serve.batch.columns import Given
    from mlp_ci.serve.batch.inputs import Input
    from mlp_ci.serve.batch.reading import Batch

FAIL, SKIP = "fail", "skip"
FORMATS = ("parquet", "csv")
# Rows may be left out, but somebody who skips this many before a single good one has given the wrong file.
HOPELESS = 100_000


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The command line: which version, of what, to where, and how."""

    version: str = ""
    stage: str | None = None
    input: str
    output: Path
    keep: tuple[str, ...] = ()
    bad_rows: str = FAIL
    parts: str = "parquet"
    workers: int | None = None
    batch_rows: int | None = None
    part_rows: int = PART_ROWS
    replace: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that predicting needs."""

    chosen: Chosen
    data: Input
    given: Given
    kept: pa.Schema
    plan: Plan
    asked: Asked

    @property
    def read(self) -> list[str]:
        return list(dict.fromkeys([*self.kept.names, *(rule.name for rule in self.given.rules)]))


def predict(ctx: Context, asked: Asked) -> Report:
    """Predict every row of the input; what was predicted before is not predicted again.

    Raises InputError for bad usage, an unreadable or unfitting input and, unless rows may be skipped, a bad row;
    NothingToDo for an input without rows; OutsideError when a process is killed. A run after that goes on.
    """
    _require_usage(asked)
    _require_arrow()
    chosen = choose(ctx, asked.version, asked.stage)
    doing(f"looking at {asked.input}")
    job = _job(chosen, asked, inputs.look(inputs.find(ctx.repo, asked.input)))
    done = output.finished(job.plan)
    if done is not None:
        return telling.report_of(chosen, job.plan, done, again=True)
    with output.alone(job.plan) as progress:
        if not progress.complete:
            _require_room(job, asked.replace)
            _predict(job, progress)
        inputs.require_unchanged(job.data)
        _require_some(job, progress)
        _require_room(job, asked.replace or progress.complete)
        manifest = _manifest(job, progress)
        doing(f"putting {asked.output} in its place")
        output.put_in_place(job.plan, progress, manifest)
    return telling.report_of(chosen, job.plan, manifest, again=False)


def _require_usage(asked: Asked) -> None:
    for value, name, allowed in ((asked.bad_rows, "--bad-rows", (FAIL, SKIP)), (asked.parts, "--parts", FORMATS)):
        if value not in allowed:
            msg = f"{name} is {' or '.join(allowed)}, not {value!r}"
            raise InputError(msg, fix="correct the option")
    if "://" in str(asked.output) or str(asked.output).startswith(("s3:/", "gs:/", "https:/", "http:/")):
        msg = f"predictions are written to a disk, not to {asked.output}"
        raise InputError(msg, fix="write them to a folder of this machine, and copy that where it has to be")


def _require_arrow() -> None:
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        msg = "predicting files needs the package pyarrow, which is not installed"
        raise InputError(msg, fix="pip install 'mlp-ci[train]'")


def _job(chosen: Chosen, asked: Asked, data: Input) -> Job:
    written = asked.output.suffix.lower().removeprefix(".")
    written = written if written in FORMATS else asked.parts
    given = columns.given_to_model(chosen.signature(), data, chosen.spec)
    kept = columns.kept(data, asked.keep, chosen.spec, written)
    facts = {
        "digest": chosen.digest,
        "version": chosen.version,
        "files": [[file.place, *file.identity] for file in data.files],
        "kept": [[field.name, str(field.type)] for field in kept],
        "bad_rows": asked.bad_rows,
        "read": [[rule.name, rule.type] for rule in given.rules],
    }
    metadata = {
        "mlp.model": chosen.name,
        "mlp.version": str(chosen.version or ""),
        "mlp.digest": chosen.digest,
        "mlp.made_by": f"mlp-ci {__version__}",
    }
    plan = Plan(
        output=asked.output.absolute(), format=written, facts=facts, metadata=metadata, part_rows=asked.part_rows
    )
    return Job(chosen=chosen, data=data, given=given, kept=kept, plan=plan, asked=asked)


def _require_room(job: Job, replace: bool) -> None:
    """An output that says something else is only replaced where that was asked for."""
    place = job.plan.output
    there = place.is_file() if job.plan.single else place.exists() and (not place.is_dir() or any(place.iterdir()))
    if place.is_dir() if job.plan.single else place.is_file():
        msg = f"{place} is a {'folder' if job.plan.single else 'file'}"
        raise InputError(msg, fix="write somewhere else: name.parquet or name.csv makes a file, other names a folder")
    if there and not replace:
        msg = f"{place} is there already, and was made from something else"
        raise InputError(msg, why="another version, input or option", fix="write somewhere else, or say --replace")


def _require_some(job: Job, progress: Progress) -> None:
    if progress.rows:
        return
    if not progress.skipped:
        msg = f"{job.data.source.shown_as} holds no rows"
        raise NothingToDo(msg, why="there is nothing to predict", fix="see what writes it")
    why = "; ".join(f"{reason} ({rows:,} rows)" for reason, rows in progress.skipped.most_common(3))
    msg = "not one row could be predicted"
    raise InputError(msg, why=why, fix="mend the input: it does not fit the model")


def _manifest(job: Job, progress: Progress) -> dict[str, Any]:
    return {
        "model": job.chosen.name,
        "version": job.chosen.version or None,
        "digest": job.chosen.digest,
        "input": job.data.source.shown_as,
        "files": [file.shown for file in job.data.files],
        "rows": progress.rows,
        "skipped": dict(progress.skipped.most_common()),
        "finished": clock.now().isoformat(),
        "made_by": f"mlp-ci {__version__}",
    }


# ---------------------------------------------------------------- predicting


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A batch that is being predicted: what stays of its rows, and which of them are predicted (None: all)."""

    batch: Batch
    kept: pa.Table
    rows: Sequence[int] | None
    skipped: list[Skipped]
    said: Future[Said] | None


@dataclass
class Pace:
    """How fast it goes: for somebody who waits."""

    size: int
    before: int
    began: float = field(default_factory=time.monotonic)
    rows: int = 0

    def tell(self, done: int, rows: int) -> None:
        self.rows += rows
        seconds = max(1e-6, time.monotonic() - self.began)
        part = min(1.0, done / max(1, self.size))
        fresh = (done - self.before) / max(1, self.size)
        left = seconds * (1 - part) / fresh if fresh > 0 else 0.0
        share(part, f"{self.rows / seconds:,.0f} rows/s, {telling.duration(left)} left")


def _predict(job: Job, progress: Progress) -> None:
    """Predict from where an earlier run stopped; results are written in the order of the input."""
    start = progress.start
    doing(f"predicting {job.data.source.shown_as} with {job.chosen.said}")
    count = job.asked.workers or min(8, _processors())
    model = Model(folder=job.chosen.folder, matrix=job.given.matrix, tensors=job.given.tensors)
    sink = Sink(job, progress)
    pace = Pace(size=job.data.size, before=sum(file.size for file in job.data.files[: start[0]]))
    with Workers(model, job.chosen.where, count, alone=job.asked.bad_rows == SKIP) as workers:
        window: deque[Waiting] = deque()
        for batch in reading.batches(job.data, job.read, inputs.batch_rows(job.data, job.asked.batch_rows), start):
            window.append(_ask(job, workers, batch))
            # Two for each process: one that it predicts, one that waits for it. No more is ever in memory.
            while len(window) > 2 * count:
                _take(sink, pace, window.popleft())
        while window:
            _take(sink, pace, window.popleft())
    sink.close()


def _processors() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _take(sink: Sink, pace: Pace, waiting: Waiting) -> None:
    rows = sink.take(waiting)
    files = sink.job.data.files
    pace.tell(sum(file.size for file in files[: waiting.batch.file]) + waiting.batch.done, rows)


def _ask(job: Job, workers: Workers, batch: Batch) -> Waiting:
    """Check a batch, and hand what passed to a process. InputError for a bad row that may not be skipped."""
    import pyarrow.compute as pc

    text = job.data.text
    model = checks.check(batch.rows, job.given.rules, text=text)
    kept = checks.keep(batch.rows, job.kept, text=text)
    good, bad = checks.both(model, kept)
    file = job.data.files[batch.file]
    if (bad or batch.ragged) and job.asked.bad_rows == FAIL:
        raise telling.bad_row(job.chosen, file.shown, batch, bad)
    skipped = [Skipped(file=file.shown, row=r.row + 1, column="", reason=telling.RAGGED) for r in batch.ragged]
    for cell in bad:
        row, reason = batch.number_of(cell.row), f"not {cell.expected}"
        skipped.append(Skipped(file=file.shown, row=row, column=cell.column, reason=reason))
    skipped.sort(key=lambda one: one.row)
    rows = None if good is None else pc.indices_nonzero(good).to_pylist()
    asked, stays = (model.table, kept.table) if good is None else (model.table.filter(good), kept.table.filter(good))
    some = batch.rows.num_rows if rows is None else len(rows)
    return Waiting(batch=batch, kept=stays, rows=rows, skipped=skipped, said=workers.predict(asked) if some else None)


class Sink:
    """Puts predictions beside what is kept of their rows, and writes them."""

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job = job
        self._progress = progress
        self._writer: Writer | None = None
        self._early: list[Skipped] = []  # left out before the first prediction said what a prediction is

    def take(self, waiting: Waiting) -> int:
        """Write one batch once it is predicted; how many rows of it there are."""
        if waiting.said is None:
            self._write(None, waiting.skipped, waiting.batch.after)
            return 0
        said = waiting.said.result()
        kept, skipped = waiting.kept, list(waiting.skipped)
        if said.refused:
            file = self.job.data.files[waiting.batch.file].shown
            for place, kind in said.refused.items():
                row = waiting.batch.number_of(place if waiting.rows is None else waiting.rows[place])
                skipped.append(Skipped(file=file, row=row, column="", reason=f"the model refused it ({kind})"))
            skipped.sort(key=lambda one: one.row)
            kept = kept.filter(_all_but(said.refused, kept.num_rows)) if kept.num_columns else kept
        if not said.table.num_rows:
            self._write(None, skipped, waiting.batch.after)
            return 0
        beside = _beside(kept, said.table)
        self._write(beside, skipped, waiting.batch.after)
        return int(beside.num_rows)

    def _write(self, table: pa.Table | None, skipped: list[Skipped], after: tuple[int, int]) -> None:
        if self._writer is None and table is None:
            self._early += skipped
            if len(self._early) > HOPELESS and not self._progress.parts:
                msg = f"not one of the first {len(self._early):,} rows could be predicted"
                first = self._early[0]
                why = f"{first.file}, row {first.row}: {first.column} {first.reason}".replace("  ", " ")
                raise InputError(msg, why=why, fix="mend the input: it does not fit the model")
            return
        if self._writer is None:
            assert table is not None
            schema = schema_of(self.job.plan, self._progress, as_written(table, self.job.plan.format))
            self._writer = Writer(self.job.plan, self._progress, schema)
        schema = self._writer.schema
        fitting = schema.empty_table() if table is None else _cast(as_written(table, self.job.plan.format), schema)
        self._writer.write(fitting, [*self._early, *skipped], after)
        self._early = []

    def close(self) -> None:
        """Finish the last part. Without one prediction there is no part, only what was left out."""
        if self._writer is not None:
            self._writer.close()
        elif self._early:
            self._progress.parts.append(output.none_predicted(self._early))


def _all_but(refused: Collection[int], count: int) -> Any:
    import numpy as np
    import pyarrow as pa

    stays = np.ones(count, dtype=bool)
    stays[list(refused)] = False
    return pa.array(stays)


def _beside(kept: pa.Table, predicted: pa.Table) -> pa.Table:
    """Both tables' columns; a table without a column does not know its rows, so they cannot be appended to it."""
    import pyarrow as pa

    names = [*kept.column_names, *predicted.column_names]
    return pa.Table.from_arrays([*kept.columns, *predicted.columns], names=names)


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    if table.column_names != schema.names:
        msg = f"the model first gave {', '.join(schema.names)}, and then {', '.join(table.column_names)}"
        raise InputError(msg, fix="let the model give the same columns for every row")
    try:
        return table.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        changed = [f.name for f in schema if not table.schema.field(f.name).type.equals(f.type)]
        msg = f"{', '.join(changed)} changes its type between rows: {schema.field(changed[0]).type} first"
        fix = "let the model give values of one type"
        raise InputError(msg, why=str(error)[:300], fix=fix) from error
