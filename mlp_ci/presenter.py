"""Runs one flow for the command line: shows its report, catches its errors, gives its exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from mlp_ci import __version__
from mlp_ci.errors import EXIT_BUG, EXIT_INTERRUPTED, EXIT_OK, GateError, MlpError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mlp_ci.report import Report


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


class Presenter:
    """Runs one flow and shows its report in the format that was asked for."""

    def __init__(self, command: str, output_format: str, output: Path | None) -> None:
        if output_format not in ("text", "json"):
            msg = f"--format is text or json, not {output_format!r}"
            raise typer.BadParameter(msg)
        self.command = command
        self.json = output_format == "json"
        self.output = output

    def __call__(self, flow: Callable[[], Report]) -> int:
        try:
            report = flow()
        except MlpError as error:
            self._show_error(error)
            return error.exit_code
        except KeyboardInterrupt:
            print("interrupted; run the same command again to go on", file=sys.stderr)
            return EXIT_INTERRUPTED
        except Exception as error:
            return bug(error)
        return self._show(report)

    def _show(self, report: Report) -> int:
        from mlp_ci import report as reports

        if self.json:
            reports.print_json(report.as_dict())
        else:
            reports.print_text(report)
        if self.output:
            with self.output.open("w", encoding="utf-8") as stream:
                reports.print_json(report.as_dict(), stream)
        if reports.on_github():
            # stdout belongs to the data when JSON was asked for; GitHub reads annotations from stderr as well.
            reports.annotate_report(report, sys.stderr if self.json else sys.stdout)
            reports.write_outputs({"outcome": str(report.outcome), **report.outputs})
            reports.write_summary(reports.markdown(report))
        if report.exit_code is not None:
            return report.exit_code
        bad = report.outcome in (reports.Outcome.FAIL, reports.Outcome.INCONCLUSIVE)
        return GateError.exit_code if bad else EXIT_OK

    def _show_error(self, error: MlpError) -> None:
        from mlp_ci import report as reports

        if self.json:
            reports.print_json(reports.error_as_dict(self.command, error))
        reports.print_error(error)
        if reports.on_github():
            reports.annotate_error(error, sys.stderr if self.json else sys.stdout)
            reports.write_outputs({"outcome": "fail"})
