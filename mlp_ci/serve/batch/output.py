"""Where predictions go: parts and a note of what is done, in a folder beside the output that becomes it at the end.

A part is whole or not there, the note knows the parts that are, and the output is there once all of them are: a run
that is killed anywhere is gone on with by the next one, and nobody ever reads half of an output.
"""

from __future__ import annotations

import csv
import fcntl
import glob
import hashlib
import io
import json
import os
import shutil
import time
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

MANIFEST = "_manifest.json"
NOTE = ".progress.json"
PART_ROWS = 1_000_000
PART_SECONDS = 60.0  # a killed run has lost no more than this
GROUP_ROWS = 131_072  # rows of a row group of Parquet


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row that has no prediction, and why; never what is in it."""

    file: str
    row: int
    column: str
    reason: str

    @property
    def said(self) -> str:
        return f"{self.column}: {self.reason}" if self.column else self.reason


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part that is finished: its rows, and where in the input the next one begins (file, row)."""

    file: str
    rows: int
    bytes: int
    after: tuple[int, int]
    skipped: Mapping[str, int] = field(default_factory=dict)  # "column: reason" → rows

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Part:
        return cls(**{**raw, "after": (int(raw["after"][0]), int(raw["after"][1]))})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be written, and where. ``facts`` say what it is made from and by: the same facts, the same output."""

    output: Path
    format: str  # parquet | csv
    facts: Mapping[str, Any]
    metadata: Mapping[str, str]
    part_rows: int = PART_ROWS

    @property
    def single(self) -> bool:
        """Whether the output is one file, not a folder of parts."""
        return self.output.suffix.lower() in (".parquet", ".csv")

    @property
    def digest(self) -> str:
        text = json.dumps([self.facts, self.format], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def work(self) -> Path:
        return self.output.with_name(f".{self.output.name}.mlp-ci-{self.digest[:12]}")

    @property
    def manifest(self) -> Path:
        if self.single:
            return self.output.with_name(f"{self.output.name}.manifest.json")
        return self.output / MANIFEST


@dataclass
class Progress:
    """The parts that are finished. ``note`` is rewritten, whole, after each of them."""

    folder: Path
    digest: str
    parts: list[Part] = field(default_factory=list)
    complete: bool = False

    @property
    def start(self) -> tuple[int, int]:
        return self.parts[-1].after if self.parts else (0, 0)

    @property
    def rows(self) -> int:
        return sum(part.rows for part in self.parts)

    @property
    def skipped(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for part in self.parts:
            found.update(part.skipped)
        return found

    @classmethod
    def read(cls, plan: Plan) -> Progress:
        """What an earlier run finished; a part that is not as the note says is made again, with all after it."""
        found = cls(plan.work, plan.digest)
        try:
            raw = json.loads((plan.work / NOTE).read_text(encoding="utf-8"))
            if raw["digest"] == plan.digest:
                found.parts = [Part.from_json(part) for part in raw["parts"]]
                found.complete = bool(raw["complete"])
        except (OSError, ValueError, KeyError, TypeError):
            return cls(plan.work, plan.digest)
        for number, part in enumerate(found.parts):
            file = plan.work / part.file
            if not file.is_file() or file.stat().st_size != part.bytes:
                found.parts, found.complete = found.parts[:number], False
                break
        return found

    def note(self) -> None:
        raw = {"digest": self.digest, "complete": self.complete, "parts": [vars(part) for part in self.parts]}
        write_whole(self.folder / NOTE, json.dumps(raw).encode())


def finished(plan: Plan) -> dict[str, Any] | None:
    """The manifest of an output that was made from the same facts and is there."""
    try:
        found = json.loads(plan.manifest.read_text(encoding="utf-8"))
        there = plan.output.stat().st_size == found["bytes"] if plan.single else plan.output.is_dir()
    except (OSError, ValueError, KeyError):
        return None
    return dict(found) if there and found.get("plan") == plan.digest else None


@contextmanager
def alone(plan: Plan) -> Iterator[Progress]:
    """Hold the work folder; InputError when another process writes the same output. What others left behind goes."""
    plan.work.parent.mkdir(parents=True, exist_ok=True)
    for left in plan.work.parent.glob(f".{glob.escape(plan.output.name)}.mlp-ci-*"):
        if left != plan.work:
            _discard(left)
    plan.work.mkdir(exist_ok=True)
    handle = os.open(plan.work, os.O_RDONLY)
    try:
        _lock(handle, plan)
        progress = Progress.read(plan)
        try:
            yield progress
        finally:
            if not progress.rows:
                shutil.rmtree(plan.work, ignore_errors=True)  # nothing that a next run could go on with
    finally:
        os.close(handle)


def _lock(handle: int, plan: Plan) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        msg = f"another process is writing {plan.output}"
        raise InputError(msg, fix="wait for it, or write somewhere else") from error


def _discard(left: Path) -> None:
    """Remove what a run with other inputs left behind, unless it still runs."""
    with suppress(OSError):
        handle = os.open(left, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left)
        finally:
            os.close(handle)


# ---------------------------------------------------------------- writing


def none_predicted(skipped: Sequence[Skipped]) -> Part:
    """What stands for the parts where no row could be predicted: why not."""
    counted = Counter(one.said for one in skipped)
    return Part(file="", rows=0, bytes=0, after=(0, 0), skipped=dict(counted))


@dataclass
class Writer:
    """Writes tables of one schema into parts, one after the other."""

    plan: Plan
    progress: Progress
    schema: pa.Schema
    _open: _OpenPart | None = None

    def write(self, table: pa.Table, skipped: Sequence[Skipped], after: tuple[int, int]) -> None:
        """Rows in the order of the input, and the rows that were left out among them."""
        if self._open is None:
            number = len(self.progress.parts)
            self._open = _OpenPart(self.plan, self.schema.with_metadata(dict(self.plan.metadata)), number)
        part = self._open
        part.add(table, skipped, after)
        if part.rows >= self.plan.part_rows or time.monotonic() - part.began >= PART_SECONDS:
            self._finish_part()

    def close(self) -> None:
        """Finish the last part, and note that all are there."""
        self._finish_part()
        self.progress.complete = True
        self.progress.note()

    def _finish_part(self) -> None:
        if self._open is not None:
            self.progress.parts.append(self._open.finish())
            self._open = None
            self.progress.note()


class _OpenPart:
    """The part that is being written, under a name that nobody takes for a part."""

    def __init__(self, plan: Plan, schema: pa.Schema, number: int) -> None:
        self.rows, self.after = 0, (0, 0)
        self.began = time.monotonic()
        self._file = plan.work / f"part-{number:05}.{plan.format}"
        self._listed = plan.work / f"_skipped-{number:05}.csv"
        self._scratch = self._file.with_name(f".{self._file.name}")
        self._csv = plan.format == "csv"
        self._schema = schema
        self._pending: list[pa.Table] = []
        self._skipped: Counter[str] = Counter()
        self._lines: list[str] = []
        self._writer = _csv_writer(self._scratch, schema) if self._csv else _parquet_writer(self._scratch, schema)

    def add(self, table: pa.Table, skipped: Sequence[Skipped], after: tuple[int, int]) -> None:
        self.after = after
        self.rows += table.num_rows
        self._pending.append(table)
        if sum(t.num_rows for t in self._pending) >= GROUP_ROWS:
            self._flush()
        for one in skipped:
            self._skipped[one.said] += 1
            self._lines.append(_line(one))

    def _flush(self) -> None:
        import pyarrow as pa

        if self._pending:
            whole = pa.concat_tables(self._pending).combine_chunks()
            self._pending = []
            self._writer.write_table(whole)

    def finish(self) -> Part:
        self._flush()
        self._writer.close()
        _settle(self._scratch)
        self._listed.unlink(missing_ok=True)  # of a run that was killed here
        if self._lines:
            write_whole(self._listed, ("file,row,column,reason\n" + "".join(self._lines)).encode())
        self._scratch.replace(self._file)
        return Part(
            file=self._file.name,
            rows=self.rows,
            bytes=self._file.stat().st_size,
            after=self.after,
            skipped=dict(self._skipped),
        )


def _line(one: Skipped) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([one.file, one.row, one.column, one.reason])
    return text.getvalue()


def _parquet_writer(file: Path, schema: pa.Schema) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetWriter(file, schema, compression="zstd")


def _csv_writer(file: Path, schema: pa.Schema) -> Any:
    import pyarrow.csv as arrow_csv

    return arrow_csv.CSVWriter(file, schema, write_options=arrow_csv.WriteOptions(quoting_style="needed"))


def write_whole(file: Path, content: bytes) -> None:
    """Write a file so that it is never there by half."""
    scratch = file.with_name(f".{file.name}.new")
    scratch.write_bytes(content)
    _settle(scratch)
    scratch.replace(file)


def _settle(file: Path) -> None:
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


# ---------------------------------------------------------------- putting it in its place


def put_in_place(plan: Plan, progress: Progress, manifest: Mapping[str, Any]) -> None:
    """Make the parts the output: the folder by one renaming; a file by joining them first. May be done again."""
    facts = {**manifest, "plan": plan.digest, "parts": [vars(part) for part in progress.parts]}
    if plan.single:
        joined = plan.work / f"joined.{plan.format}"
        _join(plan, progress, joined)
        _join_lists(plan)
        write_whole(plan.work / MANIFEST, _pretty({**facts, "bytes": joined.stat().st_size}))
        joined.replace(plan.output)
        (plan.work / MANIFEST).replace(plan.manifest)
        shutil.rmtree(plan.work)
        return
    write_whole(plan.work / MANIFEST, _pretty(facts))
    _make_way(plan.output)
    plan.work.replace(plan.output)
    (plan.output / NOTE).unlink(missing_ok=True)
    _discard(_old(plan.output))


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, default=str) + "\n").encode()


def _old(output: Path) -> Path:
    return output.with_name(f".{output.name}.mlp-ci-old")


def _make_way(output: Path) -> None:
    """An output of before, which was to be replaced, goes aside until the new one stands in its place."""
    if output.exists():
        shutil.rmtree(_old(output), ignore_errors=True)
        output.replace(_old(output))


def _join(plan: Plan, progress: Progress, joined: Path) -> None:
    if plan.format == "csv":
        with joined.open("wb") as out:
            for number, part in enumerate(progress.parts):
                with (plan.work / part.file).open("rb") as stream:
                    if number:
                        _pass_header(stream)
                    shutil.copyfileobj(stream, out, 1024 * 1024)
    else:
        import pyarrow.parquet as pq

        with pq.ParquetFile(plan.work / progress.parts[0].file) as first:
            schema = first.schema_arrow
        with pq.ParquetWriter(joined, schema, compression="zstd") as writer:
            for part in progress.parts:
                with pq.ParquetFile(plan.work / part.file) as file:
                    for group in range(file.num_row_groups):
                        writer.write_table(file.read_row_group(group))
    _settle(joined)


def _pass_header(stream: Any) -> None:
    """Names of columns may hold line ends, but only inside of quotes."""
    line = stream.readline()
    while line.count(b'"') % 2:
        line += stream.readline()


def _join_lists(plan: Plan) -> None:
    """The lists of rows that were left out, as one file beside the output; none where there are none."""
    target = plan.output.with_name(f"{plan.output.name}.skipped.csv")
    lists = sorted(plan.work.glob("_skipped-*.csv"))
    if not lists:
        target.unlink(missing_ok=True)
        return
    with (plan.work / "skipped.csv").open("wb") as out:
        for number, file in enumerate(lists):
            with file.open("rb") as stream:
                if number:
                    stream.readline()
                shutil.copyfileobj(stream, out)
    (plan.work / "skipped.csv").replace(target)
