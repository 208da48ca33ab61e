"""The only caller of Docker's program, which speaks to the engine of this machine or to the one DOCKER_HOST names.

The program and not a client library: what `docker login`, `docker context` and credential helpers were told holds here
as well, and podman's stand-in for it works too.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlp_ci.errors import OutsideError

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_WHY = 600


@dataclass(frozen=True)
class Engine:
    """A Docker engine, spoken to by its program. ``host`` is its address; what the program itself finds, if empty."""

    program: str
    host: str = ""

    def command(self, *arguments: str) -> list[str]:
        """The command line of ``docker`` with these arguments."""
        return [self.program, *(("--host", self.host) if self.host else ()), *arguments]

    def ask(self, *arguments: str, stdin: bytes | None = None, timeout: float | None = None) -> Answer:
        """Run ``docker`` with these arguments. A command that takes longer than ``timeout`` seconds has failed."""
        try:
            done = subprocess.run(
                self.command(*arguments),
                capture_output=True,
                check=False,
                timeout=timeout,
                input=stdin or b"",
            )
        except subprocess.TimeoutExpired:
            return Answer(124, "", f"`docker {arguments[0]}` took longer than {timeout:.0f} s")
        except OSError as error:
            return Answer(127, "", f"{self.program} cannot be run: {error}")
        return Answer(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def require(self) -> None:
        """Raises OutsideError when the engine does not answer."""
        done = self.ask("version", "--format", "{{.Server.Version}}", timeout=30)
        if done.code:
            fix = "start it (`systemctl start docker`), and let this user speak to it (group docker)"
            msg = "the Docker engine does not answer"
            raise OutsideError(msg, why=done.why, fix=fix)

    def describe(self, kind: str, name: str) -> dict[str, Any] | None:
        """What the engine knows of an image or a container; None when there is none of that name."""
        done = self.ask(kind, "inspect", "--format", "{{json .}}", name)
        return dict(json.loads(done.out)) if done.code == 0 else None

    def save(self, image: str, file: Path) -> Answer:
        """Write an image with all its layers into ``file``."""
        return self.ask("save", "--output", str(file), image)

    def remove(self, *containers: str) -> None:
        """End and remove containers, and the volumes that only they had; what is not there is no error."""
        if containers:
            self.ask("rm", "--force", "--volumes", *containers)


@dataclass(frozen=True)
class Answer:
    """What ``docker`` said; ``code`` 0 means that it did what it was asked to."""

    code: int
    out: str
    err: str

    @property
    def why(self) -> str:
        """Its complaint in one line, without its advice to read the manual."""
        lines = (line.strip() for line in self.err.splitlines() if "--help" not in line)
        return " ".join(line for line in lines if line)[:_LONGEST_WHY]


def program(purpose: str, fix: str = "install Docker Engine here, or run where there is one") -> str:
    """Docker's program; ``purpose`` says what it is for, as the beginning of a sentence. Raises OutsideError."""
    found = shutil.which("docker")
    if found is None:
        msg = f"{purpose}, and there is no docker on this machine"
        raise OutsideError(msg, fix=fix)
    return found
