"""The one way out of a container without network: a socket that leads to MLflow and to nothing else.

What comes over it is HTTP and goes to the tracking address, whatever host it names; the credentials of the job are
added here, so the container does not hold them.
"""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socketserver
import tempfile
from base64 import b64encode
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SOCKET = "mlflow.sock"
TIMEOUT_SECONDS = 120.0
CHUNK = 1 << 16
# Of one connection, not of the message (RFC 9110, 7.6.1); and what says who asks whom.
NOT_PASSED_ON = {
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "host"),
}


@contextlib.contextmanager
def to_mlflow(address: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Serve a socket in a new folder for as long as the block runs; gives the folder.

    ``address`` is the http or https address of MLflow; its credentials come from it or from ``environ``.
    """
    # A socket's path has at most about a hundred characters, so not in the work folder.
    folder = Path(tempfile.mkdtemp(prefix="mlp-ci-"))
    folder.chmod(0o755)
    handler = type("ToMlflow", (_Handler,), {"address": address, "credentials": _credentials(address, environ)})
    server = _Server(str(folder / SOCKET), handler)
    (folder / SOCKET).chmod(0o666)  # the folder is known to the container alone; its user may be another
    thread = Thread(target=server.serve_forever, name="way to MLflow", daemon=True)
    thread.start()
    try:
        yield folder
    finally:
        server.shutdown()
        server.server_close()
        shutil.rmtree(folder, ignore_errors=True)


def _credentials(address: str, environ: Mapping[str, str]) -> str:
    """The Authorization header, as MLflow's own client makes it; empty when there is nothing to say."""
    if token := environ.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {token}"
    parts = urlsplit(address)
    user = environ.get("MLFLOW_TRACKING_USERNAME") or unquote(parts.username or "")
    password = environ.get("MLFLOW_TRACKING_PASSWORD") or unquote(parts.password or "")
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}" if user else ""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """Sends each request on to MLflow and its answer back."""

    address = ""
    credentials = ""

    def do_GET(self) -> None:
        self._pass_on()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = do_GET  # noqa: N815

    def _pass_on(self) -> None:
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        outside = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        self.close_connection = True
        with contextlib.closing(outside):
            try:
                outside.request(
                    self.command,
                    parts.path.rstrip("/") + self.path,
                    body=self._body() if self._has_body() else None,
                    headers=self._headers(),
                    encode_chunked="chunked" in self.headers.get("Transfer-Encoding", ""),
                )
                answer = outside.getresponse()
            except (OSError, http.client.HTTPException) as error:
                self.send_error(502, f"MLflow cannot be reached: {error}")
                return
            self._answer(answer)

    def _headers(self) -> dict[str, str]:
        kept = {k: v for k, v in self.headers.items() if k.lower() not in NOT_PASSED_ON}
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            kept["Transfer-Encoding"] = "chunked"
        if self.credentials:
            kept["Authorization"] = self.credentials
        return kept

    def _has_body(self) -> bool:
        return "Content-Length" in self.headers or "Transfer-Encoding" in self.headers

    def _body(self) -> Iterator[bytes]:
        """The body in pieces; models are larger than memory should hold."""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            return
        left = int(self.headers["Content-Length"])
        while left > 0 and (chunk := self.rfile.read(min(CHUNK, left))):
            left -= len(chunk)
            yield chunk

    def _answer(self, answer: http.client.HTTPResponse) -> None:
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked is gone
            while chunk := answer.read(CHUNK):
                self.wfile.write(chunk)

    def log_message(self, *_: object) -> None:
        """The log is the training's."""

    def address_string(self) -> str:
        return "the container"
