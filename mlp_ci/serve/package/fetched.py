"""Packages fetched for an image alone, by uv: wheels only, known by their hashes, for the base's Python and system."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlp_ci.errors import InputError, OutsideError
from mlp_ci.progress import doing
from mlp_ci.serve.package.lock import Lock, parse
from mlp_ci.train.environment import OF_THE_FILE, OUT_OF_REACH, find_program, masked, visible

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlp_ci.serve.package.bases import Base
    from mlp_ci.serve.package.needs import Needs

_GLIBC = (17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40)  # the platforms that uv knows, all of glibc 2


@dataclass(frozen=True)
class Uv:
    """uv, for one base image."""

    program: str
    base: Base

    def lock(self, needs: Needs, scratch: Path) -> Lock:
        """The newest versions that fit, with the hashes of their wheels."""
        doing("choosing the versions of the image's packages")
        asked, limits = scratch / "requirements.in", scratch / "constraints.txt"
        asked.write_text("\n".join(needs.requirements) + "\n", encoding="utf-8")
        limits.write_text("\n".join(needs.constraints) + "\n", encoding="utf-8")
        options = ("--generate-hashes", "--no-header", "--no-annotate", "--constraint", str(limits))
        return parse(self._run("compile", str(asked), *options, scratch=scratch))

    def install(self, lock: Lock, folder: Path, scratch: Path) -> None:
        """Put what the lock names into ``folder``, and nothing else."""
        doing("fetching the image's packages")
        file = scratch / "lock.txt"
        file.write_text(lock.text(), encoding="utf-8")
        options = ("--target", str(folder), "--no-deps", "--require-hashes", "--requirement", str(file))
        self._run("install", *options, scratch=scratch)

    def _run(self, verb: str, *options: str, scratch: Path) -> str:
        # Named, because uv would look through all interpreters of the machine for the base's; it runs none of them.
        mine = ("--python", sys.executable)
        where = (*mine, "--python-version", self.base.minor, "--python-platform", self._platform())
        command = [self.program, "pip", verb, "--quiet", "--only-binary", ":all:", *where, *options]
        environ = visible(os.environ)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=scratch,
            env={k: v for k, v in environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")},
        )
        if done.returncode:
            raise _refused(masked(done.stderr.strip(), environ))
        return done.stdout

    def _platform(self) -> str:
        if not self.base.libc:
            return f"{self.base.machine}-unknown-linux-musl"
        fitting: Sequence[int] = [n for n in _GLIBC if (2, n) <= self.base.libc] or [_GLIBC[0]]
        return f"{self.base.machine}-manylinux_2_{fitting[-1]}"


def uv_for(base: Base, why: str) -> Uv:
    """uv; raises InputError that says why packages have to be fetched when it is not here."""
    found = find_program("uv")
    if found is None:
        msg = f"the image's packages have to be fetched ({why}), and uv is not on this machine"
        raise InputError(msg, fix="pip install uv; or install here what the model needs")
    return Uv(found, base)


def _refused(said: str) -> InputError | OutsideError:
    """An error of the requirements (which must be mended) or of what lies outside (where another try may help)."""
    last = "\n".join(said.splitlines()[-12:])
    if OF_THE_FILE.search(said) and not OUT_OF_REACH.search(said):
        msg = "what the model asks for cannot be had as wheels that fit together"
        fix = "mend the requirements that the model is saved with, or name a base image with another Python"
        return InputError(msg, why=f"uv said:\n{last}", fix=fix)
    msg = "the image's packages could not be fetched"
    return OutsideError(
        msg, why=f"uv said:\n{last}", fix="see that this machine reaches the package index; run it again"
    )
