"""``mlp-ci doctor``: what is missing on this machine or in this repository, each with the command that mends it.

Looks, and changes nothing but GitHub's settings, when asked to (``--github --fix``). What waits for somebody else
(GitHub, MLflow, the DVC remote) runs beside the rest, and what does not answer in time is reported as not checked
instead of holding up the answer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from mlp_ci.doctor import machine, outside, repository
from mlp_ci.errors import InputError, MlpError
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.spec import MODEL_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlp_ci.context import Context

PATIENCE_SECONDS = 8.0


def examine(ctx: Context, *, patience: float = PATIENCE_SECONDS, github: bool = False, fix: bool = False) -> Report:
    """Look at everything; the outcome is fail when anything is missing, and what cannot be checked is skipped.

    ``patience``: seconds after which what has not answered counts as not checked. ``github``: the settings of the
    repository on GitHub instead, which ``fix`` sets.
    """
    if fix and not github:
        msg = "--fix is for --github only"
        raise InputError(msg, fix="`mlp-ci doctor --github --fix`; what else doctor finds is mended as it says")
    if github:
        from mlp_ci.doctor.github_fix import examine_github

        return examine_github(ctx, fix=fix)
    groups: dict[str, Callable[[Context], list[Finding]]] = {"machine": machine.look, "repository": repository.look}
    if (ctx.repo / MODEL_FILE).exists():
        groups |= {
            "data": outside.look_at_data,
            "platform": outside.look_at_platform,
            "github": outside.look_at_github,
        }
    findings = _run(groups, ctx, patience)
    missing = [f for f in findings if f.outcome is Outcome.FAIL]
    skipped = [f for f in findings if f.outcome is Outcome.SKIP]
    passed = len(findings) - len(missing) - len(skipped)
    headline = f"{passed} in order"
    headline += f", {len(missing)} to mend" if missing else ""
    headline += f", {len(skipped)} not checked" if skipped else ""
    return Report(
        command="doctor",
        headline=headline,
        outcome=Outcome.FAIL if missing else Outcome.PASS,
        findings=findings,
        data={"passed": passed, "missing": len(missing), "skipped": len(skipped)},
    )


def _run(groups: Mapping[str, Callable[[Context], list[Finding]]], ctx: Context, patience: float) -> list[Finding]:
    """All groups at once; the findings in the order of the groups, whichever was ready first."""
    found: dict[str, list[Finding]] = {}
    bugs: list[Exception] = []

    def work(name: str, look: Callable[[Context], list[Finding]]) -> None:
        try:
            found[name] = look(ctx)
        except MlpError as error:
            found[name] = [failed(name, error)]
        except Exception as error:
            bugs.append(error)

    threads = {name: threading.Thread(target=work, args=(name, look), daemon=True) for name, look in groups.items()}
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + patience
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    if bugs:
        raise bugs[0]
    late = f"no answer within {patience:g} s"
    return [
        finding
        for name in groups
        for finding in found.get(name, [Finding(check=name, outcome=Outcome.SKIP, message=late)])
    ]


def failed(check: str, error: MlpError) -> Finding:
    """An expected error as a finding."""
    return Finding(
        check=check,
        outcome=Outcome.FAIL,
        message=error.what,
        fix=error.fix,
        file=error.file,
        line=error.line,
        column=error.column,
    )
