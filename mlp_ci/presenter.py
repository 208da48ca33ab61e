"""Runs one flow for the command line: shows its report, catches its errors, gives its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TYPE_CHECKING

import typer

from mlp_ci import __version__
from mlp_ci.errors import EXIT_BROKEN_PIPE, EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, GateError, MlpError, OutsideError
from mlp_ci.progress import shown

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.report import Report


# They print while they run, and show by themselves that they do.
OWN_PROGRESS = {"train", "reproduce", "sweep", "sandbox demo", "gateway", "serve"}


def bug(error: Exception) -> int:
    import platform
    import traceback

    traceback.print_exception(error)
    print(
        f"\nThis is a bug in mlp-ci {__version__} (Python {platform.python_version()}, {platform.platform()}).\n"
        "Please report it with the lines above.",
        file=sys.stderr,
    )
    return EXIT_BUG


# What the machine refuses, whatever we do: no room, no permission, no file left to open. Other numbers hint at a bug.
MACHINE_SAYS_NO = {
    errno.EACCES: "give this user the right to write there, or name other places with MLP_WORK and MLP_CACHE",
    errno.EPERM: "give this user the right to write there, or name other places with MLP_WORK and MLP_CACHE",
    errno.EROFS: "run where the folder may be written, or name other places with MLP_WORK and MLP_CACHE",
    errno.EEXIST: "move away the file that stands where a folder has to be",
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota of this user",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`)",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "end programs that hold many files open",
    errno.ENOTDIR: "move away the file that stands where a folder has to be",
    errno.EIO: "look at the disk: it fails to read or write",
    errno.ENOMEM: "take a machine with more memory",
}


def machine_error(error: OSError) -> OutsideError | None:
    """What to say about a failure of this machine's disk, permissions or limits; None when it is none of those."""
    fix = MACHINE_SAYS_NO.get(error.errno or 0)
    if fix is None:
        return None
    places = " → ".join(str(p) for p in (error.filename, error.filename2) if p is not None)
    what = f"this machine refuses: {error.strerror}" + (f": {places}" if places else "")
    why = "mlp-ci could not go on; what it had finished stays finished"
    return OutsideError(what, why=why, fix=f"{fix}, and run the same command again: it goes on where it stopped")


def reader_gone() -> int:
    """`mlp-ci … | head`: nobody reads on. What is still in the buffer must not be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


class Presenter:
    """Runs one flow and shows its report in the format that was asked for."""

    def __init__(self, command: str, output_format: str, output: Path | None) -> None:
        if output_format not in ("text", "json"):
            msg = f"--format is text or json, not {output_format!r}"
            raise typer.BadParameter(msg)
        if output and not output.absolute().parent.is_dir():
            msg = f"--output: there is no folder {output.absolute().parent}"
            raise typer.BadParameter(msg)
        self.command = command
        self.json = output_format == "json"
        self.output = output
        self._answered = False  # stdout has its one JSON document

    def __call__(self, flow: Callable[[], Report]) -> int:
        try:
            return self._show(self._watched(flow))
        except MlpError as error:
            return self._show_error(error)
        except BrokenPipeError:
            return reader_gone()
        except KeyboardInterrupt:
            again = "run the same command again to go on"
            self._answer("Interrupted", EXIT_INTERRUPTED, "interrupted", again)
            print(f"interrupted; {again}", file=sys.stderr)
            return EXIT_INTERRUPTED
        except OSError as error:
            known = machine_error(error)
            if known:
                return self._show_error(known)
            return self._show_bug(error)
        except Exception as error:
            return self._show_bug(error)

    def _watched(self, flow: Callable[[], Report]) -> Report:
        if self.command in OWN_PROGRESS:
            return flow()
        with shown(self.command):
            return flow()

    def _show(self, report: Report) -> int:
        from mlp_ci import report as reports

        if self.json:
            self._answered = True
            reports.print_json(report.as_dict())
        else:
            with reports.commands_stopped(sys.stdout, in_job=reports.on_github()):
                sys.stdout.write(report.document)
                sys.stdout.flush()
                reports.print_text(report, sys.stderr if report.document else sys.stdout)
        sys.stdout.flush()
        if self.output:
            with self.output.open("w", encoding="utf-8") as stream:
                reports.print_json(report.as_dict(), stream)
        if reports.on_github():
            # stdout belongs to the data when JSON was asked for; GitHub reads annotations from stderr as well.
            reports.annotate_report(report, sys.stderr if self.json else sys.stdout)
            reports.write_summary(reports.markdown(report))
            reports.write_outputs({"outcome": str(report.outcome), **report.outputs})
        if report.exit_code is not None:
            return report.exit_code
        bad = report.outcome in (reports.Outcome.FAIL, reports.Outcome.INCONCLUSIVE)
        return GateError.exit_code if bad else EXIT_OK

    def _show_error(self, error: MlpError) -> int:
        from mlp_ci import report as reports

        if self.json and not self._answered:
            self._answered = True
            reports.print_json(reports.error_as_dict(self.command, error))
        with reports.commands_stopped(sys.stderr, in_job=reports.on_github()):
            reports.print_error(error)
        if reports.on_github():
            reports.annotate_error(error, sys.stderr if self.json else sys.stdout)
            with contextlib.suppress(OutsideError):  # an unwritable file of outputs is not the news here
                reports.write_outputs({"outcome": "fail"})
        return error.exit_code

    def _show_bug(self, error: Exception) -> int:
        self._answer("Bug", EXIT_BUG, f"a bug in mlp-ci: {type(error).__name__}: {error}", "report it")
        return bug(error)

    def _answer(self, kind: str, code: int, what: str, fix: str) -> None:
        """An end that no exception of ours describes, for a reader of JSON."""
        from mlp_ci import report as reports

        if self.json and not self._answered:
            self._answered = True
            told = {"kind": kind, "exit_code": code, "what": what, "why": "", "fix": fix, "problems": []}
            reports.print_json({"command": self.command, "outcome": "fail", "headline": what, "error": told})
