"""Who is looking: signed session cookies, tokens in forms against cross-site requests, and one-time login codes.

Lifetimes follow the machine's clock, not the sandbox's: a demo moves that one by months.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

SESSION_SECONDS = 12 * 3600
CODE_SECONDS = 600
_KEY_FILE = "pages.key"
_CODES = "login-codes"


@dataclass(frozen=True)
class Session:
    """``user_id`` 0: nobody has logged in yet. ``token_id``: the token that opened it (0: a login code did)."""

    user_id: int
    token_id: int
    nonce: str
    expires: int


def new_session(user_id: int = 0, token_id: int = 0) -> Session:
    return Session(user_id, token_id, secrets.token_urlsafe(18), int(time.time()) + SESSION_SECONDS)


class Sealer:
    """Signs sessions and form tokens with the forge's own key (32 random bytes in its root, mode 0600)."""

    def __init__(self, root: Path) -> None:
        self._key = _key(root / _KEY_FILE)

    def seal(self, session: Session) -> str:
        """The cookie's value."""
        body = base64.urlsafe_b64encode(json.dumps(asdict(session)).encode()).decode()
        return f"{body}.{self._sign('session', body)}"

    def unseal(self, cookie: str) -> Session | None:
        """The session of a cookie, or None when it is forged, broken or too old."""
        body, _, signature = cookie.partition(".")
        if not _same(signature, self._sign("session", body)):
            return None
        session = Session(**json.loads(base64.urlsafe_b64decode(body)))
        return session if session.expires > time.time() else None

    def form_token(self, session: Session) -> str:
        """What every form of this session carries."""
        return self._sign("form", session.nonce)

    def accepts(self, session: Session, form_token: str) -> bool:
        return _same(form_token, self.form_token(session))

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose}:{text}".encode(), hashlib.sha256).hexdigest()


def login_code(forge_root: Path, login: str) -> str:
    """A code that logs ``login`` in at ``/login/<code>``, once, within ten minutes.

    Only its digest is kept: a file of mode 0600 under the forge's root, so whoever may write there may log in.
    """
    if not login or "\n" in login:
        msg = f"{login!r} is not the login of a user"
        raise InputError(msg)
    folder = forge_root / _CODES
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _forget_old(folder)
    code = secrets.token_urlsafe(24)
    content = json.dumps({"login": login, "expires": time.time() + CODE_SECONDS})
    with os.fdopen(os.open(_code_file(folder, code), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(content)
    return code


def redeem(forge_root: Path, code: str) -> str | None:
    """The login a code stands for; the code is spent by asking."""
    file = _code_file(forge_root / _CODES, code)
    spent = file.with_suffix(".spent-" + secrets.token_hex(4))
    try:
        file.rename(spent)  # of two requests with the same code only one gets past this line
    except FileNotFoundError:
        return None
    content = json.loads(spent.read_text(encoding="utf-8"))
    spent.unlink()
    return str(content["login"]) if content["expires"] > time.time() else None


def _forget_old(folder: Path) -> None:
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # used, or forgotten by somebody else, just now
            if file.stat().st_mtime < time.time() - CODE_SECONDS:
                file.unlink()


def _code_file(folder: Path, code: str) -> Path:
    return folder / hashlib.sha256(code.encode()).hexdigest()


def _key(file: Path) -> bytes:
    if not file.exists():
        scratch = file.with_suffix("." + secrets.token_hex(4))
        with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secrets.token_bytes(32))
        try:
            # Another process of the same forge may be faster; its key is as good.
            with contextlib.suppress(FileExistsError):
                file.hardlink_to(scratch)
        finally:
            scratch.unlink()
    return file.read_bytes()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
