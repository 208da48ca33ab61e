"""What a prediction of files says: its report, and its complaint about the first bad row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlp_ci.errors import InputError
from mlp_ci.report import Finding, Outcome, Report, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.serve.batch.checks import BadCell
    from mlp_ci.serve.batch.chosen import Chosen
    from mlp_ci.serve.batch.output import Plan
    from mlp_ci.serve.batch.reading import Batch

RAGGED = "it has another number of values than the header has names"
MEND = "mend the row, or leave such rows out with --bad-rows skip"


def report_of(chosen: Chosen, plan: Plan, manifest: Mapping[str, Any], *, again: bool) -> Report:
    """Rows, version and digest; rows that were left out, by reason, as a warning."""
    rows, skipped = int(manifest["rows"]), dict(manifest["skipped"])
    left_out = sum(skipped.values())
    headline = f"{rows:,} rows predicted with {chosen.said}"
    headline += f", {left_out:,} left out" if left_out else ""
    headline += " (they were there already)" if again else ""
    findings = []
    if left_out:
        part = left_out / (rows + left_out)
        message = f"{left_out:,} rows ({part:.2g} of all) were left out: the model cannot be given them"
        listed = f"{plan.output}.skipped.csv" if plan.single else f"{plan.output}/_skipped-*.csv"
        fix = f"{listed} says which"
        findings.append(Finding(check="bad rows", outcome=Outcome.FAIL, severity="warning", message=message, fix=fix))
    tables = [Table(title="Rows left out", columns=("why", "rows"), rows=tuple(skipped.items()))] if skipped else []
    return Report(
        command="predict",
        headline=headline,
        findings=findings,
        tables=tables,
        outputs={
            "rows": str(rows),
            "skipped": str(left_out),
            "version": str(chosen.version or ""),
            "digest": chosen.digest,
            "predictions": str(plan.output),
            "predicted": "false" if again else "true",
        },
        data={key: value for key, value in manifest.items() if key not in ("parts", "plan")},
        links=[("Predictions", str(plan.output)), ("Manifest", str(plan.manifest))],
    )


def bad_row(chosen: Chosen, shown: str, batch: Batch, bad: Sequence[BadCell]) -> InputError:
    """The first row of the batch that cannot be predicted; its value only where it may be shown."""
    first_bad = batch.number_of(bad[0].row) if bad else None
    if batch.ragged and (first_bad is None or batch.ragged[0].row + 1 < first_bad):
        one = batch.ragged[0]
        msg = f"{shown}, row {one.row + 1} has {one.values} values where the header has {one.names} names"
        return InputError(msg, fix=MEND)
    cell = bad[0]
    known = chosen.spec.data.columns.get(cell.column) if chosen.spec else None
    value = "a value that" if known is not None and known.sensitive else f"{cell.shown}, which"
    more = len(bad) - 1 + len(batch.ragged)
    why = f"and {more:,} more of the {batch.rows.num_rows:,} rows that were read with it" if more else ""
    msg = f"{shown}, row {first_bad}: {cell.column} is {value} is not {cell.expected}"
    return InputError(msg, why=why, fix=MEND)


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
