"""What a command found, as data, and the three ways to show it: text, JSON, GitHub.

The only writer of ``::annotations::`` and of the ``GITHUB_OUTPUT`` and ``GITHUB_STEP_SUMMARY`` files. Domain
code returns a :class:`Report`; it never prints.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from mlp_ci.errors import MlpError, OutsideError, Problem, SpecError
from mlp_ci.printable import in_one_line, indented, markdown_code, markdown_text, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# GitHub shows ten annotations of a kind per step and drops the rest.
ANNOTATIONS_PER_STEP = 10
LOG_WIDTH = 160
WIDEST_NAME, WIDEST_WORD = 40, 12  # columns of a table that are narrower than this are never made narrower
SUMMARY_LIMIT = 1024 * 1024
_SURROGATE = re.compile("[\ud800-\udfff]")


class Outcome(StrEnum):
    """What a check says. ``inconclusive``: the data does not decide; ``skip``: not asked, with a reason."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    INCONCLUSIVE = "inconclusive"


SYMBOLS = {
    Outcome.PASS: "✓",
    Outcome.FAIL: "✗",
    Outcome.SKIP: "–",
    Outcome.INCONCLUSIVE: "?",
}
STYLES = {
    Outcome.PASS: "green",
    Outcome.FAIL: "bold red",
    Outcome.SKIP: "dim",
    Outcome.INCONCLUSIVE: "yellow",
}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's result. ``check`` names the rule, ``subject`` what it looked at (a column, a gate, a person)."""

    check: str
    outcome: Outcome
    message: str
    subject: str = ""
    fix: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    severity: str = "error"  # error | warning | notice; only matters when the outcome is not pass


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table for people. ``rows`` hold strings, numbers, None or Outcome; each row is as long as ``columns``."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(kw_only=True)
class Report:
    """All that a command has to say.

    ``headline`` is the one sentence to read if one reads only one. ``outputs`` become the action's outputs;
    ``data`` is the machine's copy (``--format json``); ``links`` are (title, address or path) pairs. ``document`` is
    text to be kept or piped on: it stands alone on stdout, and all else that is said goes to stderr.
    """

    command: str
    headline: str
    outcome: Outcome = Outcome.PASS
    findings: list[Finding] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    links: list[tuple[str, str]] = field(default_factory=list)
    document: str = ""
    exit_code: int | None = None  # None: 3 for fail and inconclusive, else 0

    def as_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "command": self.command,
            "outcome": str(self.outcome),
            "headline": self.headline,
            "findings": [asdict(f) for f in self.findings],
            "outputs": self.outputs,
            "data": self.data,
            **({"document": self.document} if self.document else {}),
            "links": [{"title": t, "address": a} for t, a in self.links],
        }


def worst(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of the whole: fail before inconclusive before pass; skip when there was nothing else."""
    for candidate in (Outcome.FAIL, Outcome.INCONCLUSIVE, Outcome.PASS):
        if candidate in outcomes:
            return candidate
    return Outcome.SKIP


# ---------------------------------------------------------------- text


def print_text(report: Report, stream: TextIO | None = None) -> None:
    """Show a report to a person on a terminal (or, without colour, in a log)."""
    # A job's log is read in a browser, which scrolls: 80 columns would only cut digests in two.
    with _console(stream or sys.stdout, width=LOG_WIDTH if on_github() else None) as console:
        for finding in report.findings:
            if finding.outcome is not Outcome.PASS or len(report.findings) <= 25:
                _print_finding(console, finding)
        for table in report.tables:
            console.print(_rich_table(table))
        style, headline = STYLES[report.outcome], _escaped(indented(report.headline, 2))
        console.print(f"[{style}]{SYMBOLS[report.outcome]}[/] [bold]{headline}[/bold]")
        for title, address in report.links:
            console.print(f"  {_escaped(in_one_line(title))}: [cyan]{_escaped(in_one_line(address))}[/cyan]")


def _print_finding(console: Any, finding: Finding) -> None:
    where = f"[dim]{_escaped(in_one_line(_where(finding)))}[/dim] " if finding.file else ""
    subject = f"[bold]{_escaped(in_one_line(finding.subject))}[/bold] " if finding.subject else ""
    style = "yellow" if _is_warning(finding) else STYLES[finding.outcome]
    console.print(
        f"  [{style}]{SYMBOLS[finding.outcome]}[/] {where}{subject}{_escaped(indented(finding.message, 6))}"
        f" [dim]({_escaped(in_one_line(finding.check))})[/dim]"
    )
    if finding.fix and finding.outcome is not Outcome.PASS:
        console.print(f"      [cyan]→[/cyan] {_escaped(indented(finding.fix, 8))}")


@contextmanager
def _console(stream: TextIO, width: int | None = None) -> Iterator[Any]:
    """A console whose text is written to ``stream`` at the end: rich itself ends the process when a pipe breaks."""
    from rich.console import Console

    console = Console(file=stream, highlight=False, soft_wrap=True, width=width)
    with console.capture() as text:
        yield console
    stream.write(text.get())
    stream.flush()


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def _rich_table(table: Table) -> Any:
    from rich import box
    from rich.table import Table as RichTable

    title = _escaped(in_one_line(table.title)) or None
    drawn = RichTable(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for index, name in enumerate(table.columns):
        cells = [cell_text(row[index]) for row in table.rows]
        numeric = bool(cells) and all(isinstance(r[index], int | float) or r[index] is None for r in table.rows)
        # What a row is about stays whole; elsewhere words do, and a terminal too narrow for that breaks the lines.
        whole = [name, *cells] if index == 0 else [word for text in (name, *cells) for word in text.split()]
        least = min(max(map(len, whole), default=1), WIDEST_WORD if index else WIDEST_NAME)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        drawn.add_column(_escaped(in_one_line(name)), justify=justify, overflow="fold", min_width=least)
    for row in table.rows:
        drawn.add_row(*map(_rich_cell, row))
    return drawn


def _rich_cell(cell: Any) -> str:
    if isinstance(cell, Outcome):
        return f"[{STYLES[cell]}]{SYMBOLS[cell]} {cell}[/]"
    return _escaped(in_one_line(cell_text(cell)))


def cell_text(cell: Any) -> str:
    """A table cell for people: four significant digits for floats, thousands separated, nothing for None."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, float):
        return f"{cell:,.4g}" if abs(cell) < 1000 else f"{cell:,.0f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return str(cell)


def print_error(error: MlpError, stream: TextIO | None = None) -> None:
    """Show an expected failure: what, why, how to mend; with the offending lines for input files."""
    with _console(stream or sys.stderr) as console:
        if isinstance(error, SpecError):
            for problem in error.problems:
                _print_problem(console, problem)
            plural = "s" if len(error.problems) != 1 else ""
            console.print(f"[bold]{len(error.problems)} problem{plural}[/bold]")
            return
        where = f"[dim]{_escaped(in_one_line(error.where))}[/dim] " if error.where else ""
        console.print(f"[bold red]✗[/] {where}[bold]{_escaped(indented(error.what, 2))}[/bold]")
        if error.why:
            console.print(f"  why: {_escaped(indented(error.why, 2))}")
        if error.fix:
            console.print(f"  [cyan]fix:[/cyan] {_escaped(printable(error.fix))}")


LONGEST_EXCERPT = 200  # of a line without an end, only what lies around the mark


def _print_problem(console: Any, problem: Problem) -> None:
    where, what = _escaped(in_one_line(problem.where)), _escaped(indented(problem.what, 2))
    console.print(f"[bold red]✗[/] [bold]{where}[/bold] {what}")
    if problem.excerpt:
        gutter = f"{problem.line:>5} | "
        # One character for one, so that the mark below stays under its column.
        excerpt = "".join(c if c == printable(c) else "\N{REPLACEMENT CHARACTER}" for c in problem.excerpt)
        begin = max(0, problem.column - LONGEST_EXCERPT // 2) if len(excerpt) > LONGEST_EXCERPT else 0
        console.print(f"[dim]{gutter}[/dim]{_escaped(excerpt[begin : begin + LONGEST_EXCERPT])}")
        if problem.column:
            console.print(" " * (len(gutter) + problem.column - 1 - begin) + "[red]^[/red]")
    if problem.fix:
        console.print(f"      [cyan]→[/cyan] {_escaped(indented(problem.fix, 8))}")


# ---------------------------------------------------------------- JSON


def print_json(value: Mapping[str, Any], stream: TextIO | None = None) -> None:
    """One JSON document on stdout and nothing else."""
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    # Names of files may hold halves of surrogate pairs, which no stream can encode; `##[` begins a command of a job's
    # log wherever it stands. Both only occur inside strings, where JSON has escapes for them.
    text = _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text).replace("##[", "\\u0023#[")
    (stream or sys.stdout).write(text + "\n")


def error_as_dict(command: str, error: MlpError) -> dict[str, Any]:
    """An expected failure in the shape of a report, so that a reader of ``--format json`` needs one parser."""
    problems = error.problems if isinstance(error, SpecError) else (_as_problem(error),)
    return {
        "command": command,
        "outcome": str(Outcome.FAIL),
        "headline": error.what,
        "error": {
            "kind": type(error).__name__,
            "exit_code": error.exit_code,
            "what": error.what,
            "why": error.why,
            "fix": error.fix,
            "problems": [asdict(p) for p in problems],
        },
    }


# ---------------------------------------------------------------- GitHub


def on_github(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a job of GitHub Actions (or of the sandbox's runner)."""
    return environ.get("GITHUB_ACTIONS") == "true"


def escape_data(text: str) -> str:
    """Escape the message of a workflow command."""
    return printable(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def escape_property(text: str) -> str:
    """Escape a property (file, title) of a workflow command."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


@contextmanager
def commands_stopped(stream: TextIO, *, in_job: bool) -> Iterator[None]:
    """Inside the block GitHub takes no line of the log as a command, whoever wrote it; outside a job, does nothing.

    The word that ends it is random, so that nothing inside the block can end it early.
    """
    if not in_job:
        yield
        return
    word = f"mlp-{secrets.token_hex(16)}"
    print(f"::stop-commands::{word}", file=stream, flush=True)
    try:
        yield
    finally:
        print(f"::{word}::", file=stream, flush=True)


def annotate_report(report: Report, stream: TextIO | None = None) -> None:
    """Annotations for what did not pass, the worst ten of each kind; the rest is in the summary."""
    for severity in ("error", "warning", "notice"):
        chosen = [
            f for f in report.findings if f.outcome in (Outcome.FAIL, Outcome.INCONCLUSIVE) and f.severity == severity
        ]
        for finding in chosen[:ANNOTATIONS_PER_STEP]:
            subject = f"{finding.subject}: " if finding.subject else ""
            message = subject + finding.message + (f"\nFix: {finding.fix}" if finding.fix else "")
            _annotate(severity, message, finding.check, finding, stream)


def annotate_error(error: MlpError, stream: TextIO | None = None) -> None:
    """Annotations for an expected failure, one per problem."""
    problems = error.problems if isinstance(error, SpecError) else (_as_problem(error),)
    for problem in problems[:ANNOTATIONS_PER_STEP]:
        message = problem.what
        if not isinstance(error, SpecError) and error.why:
            message += f"\nWhy: {error.why}"
        _annotate("error", message + (f"\nFix: {problem.fix}" if problem.fix else ""), "mlp-ci", problem, stream)


def _annotate(kind: str, message: str, title: str, place: Finding | Problem, stream: TextIO | None) -> None:
    properties = [f"title={escape_property(title)}"]
    if place.file:
        properties.append(f"file={escape_property(place.file)}")
        properties += [f"line={place.line}"] if place.line else []
        properties += [f"col={place.column}"] if place.column else []
    print(f"::{kind} {','.join(properties)}::{escape_data(message)}", file=stream or sys.stdout, flush=True)


def write_outputs(outputs: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> None:
    """Append step outputs to ``GITHUB_OUTPUT``; a random delimiter keeps hostile values from adding outputs.

    Raises OutsideError when the file cannot be written: the steps that follow would go by outputs that are not there.
    """
    file = environ.get("GITHUB_OUTPUT")
    if not file:
        return
    text = ""
    for key, value in outputs.items():
        delimiter = f"mlp_{secrets.token_hex(16)}"
        text += f"{key}<<{delimiter}\n{value}\n{delimiter}\n"
    try:
        with Path(file).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
    except OSError as error:
        msg = f"the outputs of this step cannot be written to GITHUB_OUTPUT ({file}): {error.strerror}"
        why = "the steps that follow read them; what the command did is done and is not done twice"
        raise OutsideError(msg, why=why, fix="unset GITHUB_OUTPUT outside a job; in one, run the job again") from error


def write_summary(markdown: str, environ: Mapping[str, str] = os.environ) -> None:
    """Append to the job summary, kept under GitHub's 1 MiB per step (over it, GitHub drops all of it).

    A summary that cannot be written is said and costs nothing else: it only shows what the log has as well.
    """
    file = environ.get("GITHUB_STEP_SUMMARY")
    if not file:
        return
    encoded = markdown.encode(errors="replace")
    if len(encoded) > SUMMARY_LIMIT - 1024:
        encoded = encoded[: SUMMARY_LIMIT - 1024].decode(errors="ignore").encode()
        encoded += "\n\n… cut at GitHub's limit of 1 MiB\n".encode()
    try:
        with Path(file).open("ab") as stream:
            stream.write(encoded + b"\n")
    except OSError as error:
        print(f"the job summary cannot be written to GITHUB_STEP_SUMMARY ({file}): {error.strerror}", file=sys.stderr)


def markdown(report: Report, *, heading: str = "###") -> str:
    """A report as GitHub-flavoured Markdown, for job summaries, comments and PR bodies."""
    lines = [f"{heading} {SYMBOLS[report.outcome]} {report.command}: {markdown_cell(report.headline)}", ""]
    failed = [f for f in report.findings if f.outcome is not Outcome.PASS]
    for finding in failed:
        subject = f"{markdown_code(finding.subject)} " if finding.subject else ""
        lines.append(
            f"- {SYMBOLS[finding.outcome]} {subject}{markdown_cell(finding.message)} ({markdown_cell(finding.check)})"
        )
        if finding.fix:
            lines.append(f"  - {markdown_cell(finding.fix)}")
    if failed:
        lines.append("")
    for table in report.tables:
        lines += [markdown_table(table), ""]
    if report.document:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", report.document)), default=0))
        lines += [fence, printable(report.document).rstrip("\n"), fence, ""]
    for title, address in report.links:
        name = markdown_cell(title)
        plain = "://" in address and not re.search(r"[\s()<>]", address)
        shown = f"[{name}]({address})" if plain else f"{name}: {markdown_code(address)}"
        lines.append(f"- {shown}")
    return "\n".join(lines).rstrip() + "\n"


def markdown_table(table: Table) -> str:
    """One table as GitHub-flavoured Markdown; hostile cells cannot break out of their cell."""
    lines = [f"**{markdown_cell(table.title)}**", ""] if table.title else []
    lines.append("| " + " | ".join(markdown_cell(c) for c in table.columns) + " |")
    lines.append("|" + "---|" * len(table.columns))
    for row in table.rows:
        cells = (f"{SYMBOLS[c]} {c}" if isinstance(c, Outcome) else markdown_cell(cell_text(c)) for c in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown_cell(text: str) -> str:
    """Text that cannot end a table cell, open a tag, make a link or mention a person."""
    return markdown_text(text)


def _where(finding: Finding) -> str:
    return ":".join([finding.file, *(str(n) for n in (finding.line, finding.column) if n)])


def _is_warning(finding: Finding) -> bool:
    return finding.outcome is Outcome.FAIL and finding.severity != "error"


def _as_problem(error: MlpError) -> Problem:
    return Problem(what=error.what, file=error.file, line=error.line, column=error.column, fix=error.fix)
