"""Loads one model and predicts what comes in on its standard input: ``python -P worker.py settings.json``.

Runs in the team's training environment, which is lent mlp-ci's own way to load a model and nothing else of mlp-ci, so
that a batch says what a server says. It has none of the job's secrets. Settings: ``{"mlp_ci": <folder of the
package>, "model": <folder>, "matrix": <numpy type> or null, "tensors": {<name>: <numpy type>}, "alone": whether a row
that the model refuses is found}``: it gets one array, arrays by name, or else a DataFrame.

A message is one letter, eight bytes of length, and so much content. In: ``T``, an Arrow stream of rows. Out: ``R``
when the model is loaded; ``P``, an Arrow stream with a prediction for each row that was not refused (which those are,
and why, stands in its metadata); ``E``, what went wrong, as JSON. It ends when its input ends.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import IO, Any

HEAD = struct.Struct(">cQ")
MOST_REFUSED = 1000  # of one batch: a model that refuses more is at fault itself


class TooManyRefused(Exception):
    """The model refuses row after row."""


def main(settings_file: str) -> int:
    """Load, then answer until nothing more comes."""
    settings = json.loads(Path(settings_file).read_text(encoding="utf-8"))
    asked, answers = _apart()
    try:
        predict = _loaded(settings)
        send(answers, b"R", json.dumps({"pid": os.getpid()}).encode())
        while message := receive(asked):
            send(answers, b"P", _answer(predict, message[1], settings))
    except BrokenPipeError:
        return 0  # nobody waits for the answer any more
    except Exception as error:  # whatever the team's code raises is told, in the next line
        send(answers, b"E", json.dumps(_told(error)).encode())
        return 1
    return 0


def _apart() -> tuple[IO[bytes], IO[bytes]]:
    """The two pipes, out of reach of the team's code: what it prints goes to stderr, what it reads is empty."""
    asked, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return asked, answers


def send(stream: IO[bytes], kind: bytes, content: Any) -> None:
    """Write one message."""
    stream.write(HEAD.pack(kind, len(content)))
    stream.write(content)
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read one message; None at the end of the stream."""
    head = stream.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    kind, length = HEAD.unpack(head)
    content = stream.read(length)
    return (kind, content) if len(content) == length else None


def _loaded(settings: dict[str, Any]) -> Any:
    """What predicts a DataFrame. The package is lent alone: nothing that is installed beside it is seen from here."""
    package = Path(settings["mlp_ci"])
    spec = importlib.util.spec_from_file_location(
        "mlp_ci", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["mlp_ci"] = module
    spec.loader.exec_module(module)
    from mlp_ci.serve.model import load

    return load(Path(settings["model"])).finite  # a table without some of its predictions would pass for whole


def _answer(predict: Any, content: bytes, settings: dict[str, Any]) -> Any:
    """The answer to one batch: an Arrow stream of predictions, (rows not refused,)."""
    import pyarrow as pa

    frame = pa.ipc.open_stream(content).read_all().to_pandas()
    refused: dict[int, str] = {}
    started = time.perf_counter()
    if settings["alone"]:
        values = _row_by_row_if_need_be(lambda rows: _predicted(predict, rows, settings), frame, (0, refused))
        if len(refused) == len(frame) > 1:
            _predicted(predict, frame, settings)  # all of them: what it says of them together is the news
    else:
        values = _predicted(predict, frame, settings)
    seconds = time.perf_counter() - started
    table = _table(values)
    told = {"refused": json.dumps(refused), "seconds": f"{seconds:.6f}"}
    table = table.replace_schema_metadata(told)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return memoryview(sink.getvalue())


def _predicted(predict: Any, frame: Any, settings: dict[str, Any]) -> list[Any]:
    values = predict(_as_taken(frame, settings))
    values = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(values) != len(frame):
        msg = f"the model gave {len(values):,} predictions for {len(frame):,} rows"
        raise ValueError(msg)
    return values


def _as_taken(frame: Any, settings: dict[str, Any]) -> Any:
    import numpy as np

    if settings["matrix"]:
        return frame.to_numpy(dtype=settings["matrix"])
    if settings["tensors"]:
        return {name: np.array(frame[name].tolist(), dtype=kind) for name, kind in settings["tensors"].items()}
    return frame


def _row_by_row_if_need_be(predicted: Any, frame: Any, found: tuple[int, dict[int, str]]) -> list[Any]:
    """Halves of what the model refuses are tried again, until the rows that it refuses stand alone."""
    offset, refused = found
    try:
        values: list[Any] = predicted(frame)
        return values
    except Exception as error:
        if len(frame) <= 1:
            refused[offset] = type(error).__name__
            if len(refused) > MOST_REFUSED:
                msg = f"the model refuses row after row; the last time it said {type(error).__name__}: {error}"
                raise TooManyRefused(msg) from error
            return []
    middle = len(frame) // 2
    first = _row_by_row_if_need_be(predicted, frame.iloc[:middle], (offset, refused))
    return first + _row_by_row_if_need_be(predicted, frame.iloc[middle:], (offset + middle, refused))


def _table(values: list[Any]) -> Any:
    """Predictions as columns: ``prediction``, or ``prediction_<name>`` where the model gives several by name."""
    import pyarrow as pa

    if values and all(isinstance(value, dict) for value in values):
        names = dict.fromkeys(str(name) for value in values for name in value)
        return pa.table({f"prediction_{name}": pa.array([v.get(name) for v in values]) for name in names})
    return pa.table({"prediction": pa.array(values)})


def _told(error: Exception) -> dict[str, str]:
    said = "".join(traceback.format_exception(error)[-6:])
    name = getattr(error, "name", "") or ""
    return {"kind": type(error).__name__, "text": str(error)[:2000], "name": str(name), "traceback": said[-4000:]}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
