"""A real headless Chromium, driven over WebDriver's plain JSON."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from pathlib import Path

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1600",
]


def missing() -> str:
    """Why no browser can be driven here, or nothing."""
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"needs {' and '.join(absent)} (apt-get install chromium chromium-driver)" if absent else ""


class NotThere(AssertionError):
    """The page has no such element, or it went while it was read."""


class Browser:
    """Use as a context manager; ``folder`` takes the browser's profile."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90)
        self._folder = folder
        self._session = ""

    def __enter__(self) -> Browser:
        try:
            self._wait_for_driver()
            options = {"args": [*_FLAGS, f"--user-data-dir={self._folder}"], "binary": shutil.which("chromium")}
            wanted = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
            made = self._http.post("/session", json={"capabilities": wanted})
            assert made.is_success, made.text
            self._session = made.json()["value"]["sessionId"]
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._http.delete(f"/session/{self._session}")
        finally:
            self._end()

    def open(self, url: str) -> None:
        self._post("url", url=url)

    def click(self, css: str) -> None:
        self._post(f"element/{self._find(css)}/click")

    def type(self, css: str, text: str) -> None:
        self._post(f"element/{self._find(css)}/value", text=text)

    def text(self, css: str = "main") -> str:
        """What a person reads there."""
        return str(self._get(f"element/{self._find(css)}/text"))

    def url(self) -> str:
        return str(self._get("url"))

    def script(self, code: str) -> Any:
        return self._post("execute/sync", script=code, args=[])

    def wait_for(self, text: str, css: str = "main", seconds: float = 20) -> None:
        end = time.monotonic() + seconds
        while True:
            try:
                seen = self.text(css)
            except NotThere as gone:  # the page is just changing
                seen = str(gone)
            if text in seen:
                return
            assert time.monotonic() < end, seen
            time.sleep(0.1)

    def _find(self, css: str) -> str:
        return str(self._post("element", using="css selector", value=css)[ELEMENT])

    def _post(self, path: str, **body: Any) -> Any:
        answer = self._http.post(f"/session/{self._session}/{path}", json=body)
        if not answer.is_success:
            raise NotThere(answer.text)
        return answer.json()["value"]

    def _get(self, path: str) -> Any:
        answer = self._http.get(f"/session/{self._session}/{path}")
        if not answer.is_success:
            raise NotThere(answer.text)
        return answer.json()["value"]

    def _wait_for_driver(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if self._http.get("/status").json()["value"]["ready"]:
                    return
            except httpx.HTTPError:
                time.sleep(0.05)
        msg = "chromedriver did not start"
        raise AssertionError(msg)

    def _end(self) -> None:
        self._http.close()
        self._driver.terminate()
        self._driver.wait(20)
