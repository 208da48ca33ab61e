"""One request of a client, as the front reads it."""

from __future__ import annotations

import re
from random import getrandbits
from typing import TYPE_CHECKING, Any

from mlp_ci.serve.gateway.bodies import Form, first_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CHECK = b"x-mlp-check"  # header of a request that is not counted, logged or mirrored; its value is the token
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,100}")


class Request:
    """One request, complete when it is handed on. Header names are in lower case."""

    def __init__(self) -> None:
        self.target = b""
        self.method = b"GET"
        self.headers: list[tuple[bytes, bytes]] = []
        self.host = ""
        self.kind = b""  # content type
        self.encoding = False
        self.given_id = b""
        self.check = b""  # the token of a check by mlp-ci itself, which is no traffic
        self.body = b""
        self.close = self.expects = False
        self.announced = self.size = 0  # of the body, as the client says; of the head
        self.form = Form.JSON
        self._row: Mapping[str, Any] | None = None

    def header(self, name: bytes) -> bytes | None:
        """The header's value, the first if there are several."""
        return next((v for n, v in self.headers if n == name), None)

    @property
    def row(self) -> Mapping[str, Any]:
        """The named values of the first row of the body, read once."""
        if self._row is None:
            self._row = first_row(self.body, self.form)
        return self._row

    def identity(self) -> str:
        """The request's id: the client's where it is a plain one, else a new one."""
        if self.given_id and _REQUEST_ID.fullmatch(self.given_id):
            return self.given_id.decode()
        h = f"{getrandbits(128):032x}"
        return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def _note_kind(request: Request, value: bytes) -> None:
    request.kind = value.partition(b";")[0].strip().lower()


def _note_host(request: Request, value: bytes) -> None:
    request.host = value.decode("latin-1")


def _note_encoding(request: Request, value: bytes) -> None:
    request.encoding = request.encoding or value.strip().lower() not in (b"", b"identity")


def _note_binary(request: Request, _value: bytes) -> None:
    request.encoding = True  # OIP's binary tensors


def _note_id(request: Request, value: bytes) -> None:
    request.given_id = value


def _note_length(request: Request, value: bytes) -> None:
    request.announced = int(value) if value.isdigit() else 0  # the parser refuses what is no number


def _note_expect(request: Request, value: bytes) -> None:
    request.expects = value.lower() == b"100-continue"


def _note_check(request: Request, value: bytes) -> None:
    request.check = value


NOTED: Mapping[bytes, Callable[[Request, bytes], None]] = {
    b"content-type": _note_kind,
    b"host": _note_host,
    b"content-encoding": _note_encoding,
    b"inference-header-content-length": _note_binary,
    b"x-request-id": _note_id,
    b"content-length": _note_length,
    b"expect": _note_expect,
    CHECK: _note_check,
}


def form_of(request: Request) -> Form:
    if request.encoding:
        return Form.OTHER
    if b"/v2/" in request.target:
        return Form.OIP
    if request.kind in (b"", b"application/json"):
        return Form.JSON
    return Form.CSV if request.kind == b"text/csv" else Form.OTHER
