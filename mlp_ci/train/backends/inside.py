"""Runs inside of a training container that has no network: brings the one way out, to MLflow, to a port.

Mounted into the container and started by its Python, which may be old and has none of our packages. Listens on
127.0.0.1, goes on in the background, and carries every connection to the socket that mlp-ci listens on outside.
"""

import os
import socket
import sys
import threading


def carry(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one side ends."""
    try:
        while True:
            chunk = source.recv(65536)
            if not chunk:
                break
            target.sendall(chunk)
        target.shutdown(socket.SHUT_WR)
    except OSError:  # the other side went away; closing both ends, which the caller does, says so to this one
        pass


def connect(inner: socket.socket, path: str) -> None:
    """One connection, in both directions."""
    outer = socket.socket(socket.AF_UNIX)
    with inner, outer:
        try:
            outer.connect(path)
        except OSError:
            return
        back = threading.Thread(target=carry, args=(outer, inner), daemon=True)
        back.start()
        carry(inner, outer)
        back.join()


def main(path: str, port: int) -> None:
    """Listen, then let whoever started this go on."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    if os.fork():
        os._exit(0)
    os.setsid()  # a signal to the training is none to this
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=connect, args=(connection, path), daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
