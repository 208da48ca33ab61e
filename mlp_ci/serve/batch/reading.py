"""Rows of files, batch by batch, from any row on; what a CSV cannot say as a row is noted, with its place."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.batch.inputs import File, Input, content_of, delimiter_of, opened, unreachable, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

    from mlp_ci.data.sources import Source

CSV_BLOCK = 4 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """A row of a CSV with another number of values than the header has names."""

    row: int
    values: int
    names: int


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of one file; ``first`` counts from 0, without ragged rows, which were left out before or among them.

    ``behind``: how many ragged rows came before them in the file; ``done``: how much of the file is read after them;
    ``last``: nothing of the file comes after them.
    """

    file: int
    first: int
    rows: pa.RecordBatch
    ragged: tuple[Ragged, ...] = ()
    behind: int = 0
    done: int = 0
    last: bool = False

    @property
    def after(self) -> tuple[int, int]:
        """Where reading goes on after these rows: file, row in it."""
        return (self.file + 1, 0) if self.last else (self.file, self.first + int(self.rows.num_rows))

    def number_of(self, row: int) -> int:
        """The number in the file, from 1, of a row of this batch."""
        number = self.first + row + self.behind
        for one in self.ragged:
            number += one.row <= number
        return number + 1


def batches(given: Input, columns: Sequence[str], rows: int, start: tuple[int, int]) -> Iterator[Batch]:
    """All rows from ``start`` (file, row in it) on, at most ``rows`` at a time, with these columns where they are."""
    for number in range(start[0], len(given.files)):
        first = start[1] if number == start[0] else 0
        file = given.files[number]
        read = _parquet if given.source.format == "parquet" else _csv
        held: Batch | None = None
        for batch in _read_or_told(read(given.source, file, columns, (rows, first)), given.source, file):
            if held is not None:
                yield held
            held = replace(batch, file=number, rows=_with_partition(batch.rows, file, columns))
        if held is not None:
            yield replace(held, last=True)


def _read_or_told(found: Iterator[Batch], source: Source, file: File) -> Iterator[Batch]:
    import pyarrow as pa

    try:
        yield from found
    except pa.ArrowInvalid as error:
        raise unreadable(file.shown, error) from error
    except OSError as error:
        if source.scheme:
            raise unreachable(file.shown, error) from error
        if error.errno is not None:
            raise  # the machine's affair: the presenter knows what to say
        raise unreadable(file.shown, error) from error
    except Exception as error:
        if not source.scheme:
            raise
        raise unreachable(file.shown, error) from error  # whatever a storage driver raises


def _parquet(source: Source, file: File, columns: Sequence[str], cut: tuple[int, int]) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    rows, start = cut
    with opened(source, file.place) as stream:
        # Without pre_buffer and with a buffer, a row group is read page by page, however large it is.
        parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=1024 * 1024)
        at, groups = 0, list[int]()
        for group in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(group).num_rows
            if at + count <= start and not groups:
                at += count
            else:
                groups.append(group)
        wanted = [name for name in columns if name in file.columns]
        if not groups:
            return
        for batch in parquet.iter_batches(batch_size=rows, row_groups=groups, columns=wanted, use_threads=False):
            skipped = max(0, min(batch.num_rows, start - at))
            rest = batch.slice(skipped)
            if rest.num_rows:
                yield Batch(file=0, first=at + skipped, rows=rest, done=at + batch.num_rows)
            at += batch.num_rows


def _csv(source: Source, file: File, columns: Sequence[str], cut: tuple[int, int]) -> Iterator[Batch]:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    rows, start = cut
    ragged: deque[Ragged] = deque()

    def leave_out(row: Any) -> str:
        # Its number counts the header as the first; ours counts from 0 without the header.
        ragged.append(Ragged(row=int(row.number) - 2, values=row.actual_columns, names=row.expected_columns))
        return "skip"

    wanted = [name for name in columns if name in file.columns]
    sign = delimiter_of(source, file.place)
    raw, content = content_of(source, file.place)
    with raw:
        reader = arrow_csv.open_csv(
            content,
            # One thread: only so does Arrow say which row it left out.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=CSV_BLOCK),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, delimiter=sign, invalid_row_handler=leave_out
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pa.string()),
                include_columns=wanted or None,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
        at, behind = 0, 0
        for block in reader:
            for offset in range(0, block.num_rows, rows):
                piece = block.slice(offset, rows)
                found = []
                while ragged and ragged[0].row - behind < at + piece.num_rows:
                    one = ragged.popleft()
                    found += [one] if one.row - behind >= start else []  # else it was told when they were read
                    behind += 1
                skipped = max(0, min(piece.num_rows, start - at))
                rest = piece.slice(skipped)
                if rest.num_rows:
                    yield Batch(
                        file=0,
                        first=at + skipped,
                        rows=rest,
                        ragged=tuple(found),
                        behind=behind - len(found),
                        done=min(file.size, raw.tell()),
                    )
                at += piece.num_rows
        if ragged:  # after the last row
            empty = pa.record_batch({name: pa.array([], pa.string()) for name in wanted})
            yield Batch(file=0, first=at, rows=empty, ragged=tuple(ragged), behind=behind, done=file.size)


def _with_partition(rows: pa.RecordBatch, file: File, columns: Sequence[str]) -> pa.RecordBatch:
    import pyarrow as pa

    for name, value in file.partition.items():
        if name in columns:
            rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.string()), rows.num_rows))
    return rows
