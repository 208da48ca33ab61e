"""One version's model server: ``python -m mlp_ci.serve.server --model FOLDER --digest sha256:… --port N``.

Verifies the artefact's digest before it loads a byte of it, then answers MLflow's ``/invocations`` and the Open
Inference Protocol on loopback, or where ``--host`` says. Exits: 0 asked to end, 2 the model is refused or cannot be
loaded, 98 the port is taken.
"""

from __future__ import annotations

import argparse
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, MlpError
from mlp_ci.serve.listening import bind, serve
from mlp_ci.serve.processes import EXIT_PORT_TAKEN, EXIT_REFUSED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlp_ci.serve.server.counting import Board


def verify(folder: Path, digest: str) -> None:
    """Refuse an artefact whose bytes are not the approved ones; raises InputError."""
    from mlp_ci.tracking import artifact_digest

    if not folder.is_dir():
        msg = f"the model folder {folder} does not exist"
        raise InputError(msg, fix="run `mlp-ci deploy` to fetch it")
    found = artifact_digest(folder)
    if found != digest:
        msg = f"the artefact in {folder} has the digest {found}, not {digest}"
        why = "what was approved is other bytes; loading these could run anything"
        raise InputError(msg, why=why, fix=f"remove {folder} and run `mlp-ci deploy` again")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mlp_ci.serve.server", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of an MLflow model")
    parser.add_argument("--digest", required=True, help="sha256:… that the folder must have")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--fd", type=int, help="a bound socket that this process was given")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--name", default="model")
    parser.add_argument("--version", type=int, default=0)
    parser.add_argument("--workers", type=_positive, default=1, help="processes that answer")
    parser.add_argument("--threads", type=_positive, default=1, help="threads of one prediction of an ONNX model")
    parser.add_argument("--max-rows", type=_positive, default=512, help="most rows that are predicted together")
    parser.add_argument("--max-delay-ms", type=float, default=5.0, help="longest wait for others to come")
    parser.add_argument("--max-queue", type=_positive, default=1024, help="requests that may wait; then 429")
    parser.add_argument("--drain", type=float, default=0.0, help="seconds to answer on, not ready, once asked to end")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(text)
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Bind, verify, load, serve; the exit code says which of these failed."""
    options = options_of(arguments)
    try:
        listener = bind(options.host, options.port) if options.fd is None else socket.socket(fileno=options.fd)
    except OSError as error:
        print(f"port {options.port} cannot be used: {error.strerror}", file=sys.stderr)
        return EXIT_PORT_TAKEN
    try:
        verify(options.model, options.digest)
    except MlpError as error:
        print(f"refused: {error.what}", file=sys.stderr)
        return EXIT_REFUSED
    from mlp_ci.serve.server.counting import Board

    board = Board(options.workers)
    if options.workers == 1:
        return answer(options, listener, board, 0)
    from mlp_ci.serve.server.workers import supervise

    return supervise(options.workers, lambda worker: answer(options, listener, board, worker))


def answer(options: argparse.Namespace, listener: socket.socket, board: Board, worker: int) -> int:
    """Load the model and serve it in this process, until SIGTERM."""
    from mlp_ci.serve.server.app import Application, Facts
    from mlp_ci.serve.server.batching import BatchLimits
    from mlp_ci.serve.server.probing import example_of, learn

    try:
        from mlp_ci.serve.model import load

        example = example_of(options.model)
        loaded, sample = learn(load(options.model, options.threads), example)
    except MlpError as error:
        print(f"refused: {error.what}", file=sys.stderr)
        return EXIT_REFUSED
    except Exception as error:
        traceback.print_exc()
        print(f"refused: the model cannot be loaded: {error!r}", file=sys.stderr)
        return EXIT_REFUSED
    facts = Facts(options.name, options.version, options.digest, loaded.kind)
    limits = BatchLimits(rows=options.max_rows, delay=options.max_delay_ms / 1000, queue=options.max_queue)
    app = Application(loaded, facts, board, board.of(worker), limits, example, sample)

    def leaving() -> None:
        app.leaving = True

    serve(app, listener, lifespan=False, drain=options.drain, leaving=leaving)
    return 0


if __name__ == "__main__":
    sys.exit(main())
