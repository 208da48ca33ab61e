"""A container image made from this machine's own Python: no registry is needed, and nothing of it is downloaded."""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

LEFT_OUT = {"site-packages", "test", "tests", "idlelib", "__pycache__", "ensurepip", "tkinter", "lib2to3", "turtledemo"}
PROGRAMS = ("/bin/sh", "/bin/sleep", "/bin/cat", "/usr/bin/id")


def python_image(*more: str) -> bytes:
    """A tar with Python, its standard library, a shell and the libraries ``more``, as ``docker import`` takes it."""
    python = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    files = {p for p in library.rglob("*") if p.is_file() and not LEFT_OUT & set(p.relative_to(library).parts)}
    files = {p for p in files if "config-3" not in str(p)}
    programs = [python, *map(Path, PROGRAMS)]
    extensions = [p for p in files if p.suffix == ".so"]
    files |= {*programs, *_libraries([*programs, *extensions]), *map(Path, more)}
    return _tar(files, python)


def _libraries(programs: list[Path]) -> set[Path]:
    """The shared libraries that programs are linked with, by ldd."""
    shown = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    words = (word for line in shown.splitlines() if not line.endswith(":") for word in line.split())
    return {Path(word) for word in words if word.startswith("/")}


def _tar(files: set[Path], python: Path) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", dereference=True) as archive:
        for folder in sorted({parent for file in files for parent in file.parents} - {Path("/")}):
            _add(archive, str(folder), tarfile.DIRTYPE, 0o755)  # without, they may be closed to ordinary users
        for file in sorted(files):
            info = archive.gettarinfo(file)
            info.type, info.linkname, info.size = tarfile.REGTYPE, "", file.stat().st_size
            with file.open("rb") as stream:
                archive.addfile(info, stream)
        for name in ("usr/bin/python3", "usr/bin/python"):
            _add(archive, name, tarfile.SYMTYPE, 0o777, str(python))
        _add(archive, "tmp", tarfile.DIRTYPE, 0o1777)
    return raw.getvalue()


def _add(archive: tarfile.TarFile, name: str, kind: bytes, mode: int, target: str = "") -> None:
    info = tarfile.TarInfo(name.lstrip("/"))
    info.type, info.mode, info.linkname = kind, mode, target
    archive.addfile(info)
