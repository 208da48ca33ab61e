"""``mlp-ci audit``: one look at everything that has to agree with git, and one finding for each thing that does not."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from mlp_ci import clock
from mlp_ci.audit import chain, issue
from mlp_ci.audit.approved import Judge, no_registry
from mlp_ci.audit.guarded import guarded_files
from mlp_ci.errors import GateError, InputError, MlpError, OutsideError
from mlp_ci.github import Hub, connect, policy_of
from mlp_ci.progress import doing, share
from mlp_ci.promote.files import model_at
from mlp_ci.promote.gather import Gatherer
from mlp_ci.report import Finding, Outcome, Report
from mlp_ci.serve.agreement import compare, mend
from mlp_ci.serve.asked import open_job
from mlp_ci.spec.quantities import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime, timedelta

    from mlp_ci.context import Context
    from mlp_ci.promote.ledger import Ledger
    from mlp_ci.promote.records import DeploymentRecord
    from mlp_ci.serve.asked import Job

BAD = (Outcome.FAIL, Outcome.INCONCLUSIVE)


def audit(
    ctx: Context, *, since: str | None = None, repair: bool = False, job: Callable[[Context], Job] = open_job
) -> Report:
    """Look at everything; with ``repair`` put right what serves and the aliases (never git).

    ``since`` (an instant, or how long ago) leaves out the approvals of older deployments; all else is always looked
    at whole. What does not agree is the report, with exit code 3; or 7 where nothing disagrees, but an outside system
    could not be asked.
    """
    if ctx.github:
        ctx.require_github("an audit")  # without a token nothing could be looked at
    looks = _Audit(ctx, job, _instant(since), repair=repair)
    for name in ("chain", "approvals", "guarded-files", "agreement"):
        looks.take(name)
    return looks.report()


@dataclass
class _Audit:
    """The looks, one after the other. One that fails is a finding, and the others still are taken."""

    ctx: Context
    job: Callable[[Context], Job]
    earliest: datetime | None
    repair: bool
    ledger: Ledger = chain.NONE
    findings: list[Finding] = field(default_factory=list)
    reviewed: list[int] = field(default_factory=list)  # emergencies, by pull request, that were reviewed since
    unasked: bool = False  # an outside system could not be asked

    @cached_property
    def hub(self) -> Hub | None:
        return connect(self.ctx.require_github("an audit")) if self.ctx.github else None

    @cached_property
    def gatherer(self) -> Gatherer:
        assert self.hub is not None
        return Gatherer(self.ctx, self.hub, model_at(self.hub, self.hub.default_branch).name, no_registry)

    def take(self, name: str) -> None:
        look: Callable[[], Iterator[Finding]] = getattr(self, f"_{name.replace('-', '_')}")
        try:
            self.findings += look()
        except MlpError as error:
            self.unasked = self.unasked or isinstance(error, OutsideError)
            message = f"it could not be looked at: {error.what}" + (f"; {error.why}" if error.why else "")
            self.findings.append(Finding(check=name, outcome=Outcome.INCONCLUSIVE, message=message, fix=error.fix))

    def _chain(self) -> Iterator[Finding]:
        self.ledger, found = chain.ledger_of(self.ctx, self.hub) if self.hub else chain.local_ledger(self.ctx)
        yield from found

    def _approvals(self) -> Iterator[Finding]:
        records = self.ledger.records
        asked = [r for r in records if self.earliest is None or r.at >= self.earliest]
        if self.hub is None or not asked:
            yield Finding(check="approvals", outcome=Outcome.SKIP, message=_ALONE if self.hub is None else _NONE)
            return
        judge = Judge(self.gatherer, policy_of(self.ctx).spec, records)
        wrong = 0
        for done, record in enumerate(asked):
            doing(f"asking for the approvals of record {record.number}")
            share(done / len(asked))
            found = _judged(judge, record)
            wrong += any(f.outcome is Outcome.FAIL for f in found)
            yield from found
        self.reviewed = judge.reviewed
        older = f"; {len(records) - len(asked)} older ones were not asked for" if len(asked) < len(records) else ""
        if not wrong:
            count = "1 deployment was" if len(asked) == 1 else f"{len(asked):,} deployments were"
            yield Finding(check="approvals", outcome=Outcome.PASS, message=f"{count} approved as recorded{older}")

    def _guarded_files(self) -> Iterator[Finding]:
        if self.hub is None:
            yield Finding(check="guarded-files", outcome=Outcome.SKIP, message=_ALONE)
        elif self.ledger.records:
            yield from guarded_files(self.ctx, self.gatherer, self.ledger.records[0].commit)

    def _agreement(self) -> Iterator[Finding]:
        doing("comparing git, the registry and what serves")
        found = compare(self.job(self.ctx))
        if self.repair:
            for stage in dict.fromkeys(f.subject for f in found if f.outcome in BAD and f.subject):
                doing(f"{stage}: putting it right")
                yield from mend(self.job(self.ctx), stage)
            found = compare(self.job(self.ctx))
        self.unasked = self.unasked or any(f.outcome is Outcome.INCONCLUSIVE for f in found)
        yield from found

    def _issue(self) -> str:
        """The issue's address; that it could not be written must not hide what was found."""
        if self.hub is None or not self.ctx.in_job:
            return ""
        try:
            issue.thank(self.hub, self.reviewed)
            return issue.tell(self.hub, self.name, self.findings)
        except MlpError as error:
            message = f"the issue could not be brought up to date: {error.what}"
            self.findings.append(Finding(check="issue", outcome=Outcome.SKIP, message=message, fix=error.fix))
            return ""

    def report(self) -> Report:
        wrong = [f for f in self.findings if f.outcome in BAD]
        failed = [f for f in wrong if f.outcome is Outcome.FAIL]
        link = self._issue()
        said = "1 thing does" if len(wrong) == 1 else f"{len(wrong)} things do"
        headline = f"{self.name}: {said} not agree" if wrong else f"{self.name}: all agrees with git"
        code = OutsideError.exit_code if self.unasked and not failed else GateError.exit_code
        return Report(
            command="audit",
            headline=headline,
            outcome=Outcome.FAIL if failed else Outcome.INCONCLUSIVE if wrong else Outcome.PASS,
            findings=self.findings,
            outputs={"agrees": "false" if wrong else "true"},
            data={"records": len(self.ledger.records), "tip": self.ledger.tip, "disagree": len(wrong)},
            links=[("issue", link)] if link else [],
            exit_code=code if wrong else None,
        )

    @property
    def name(self) -> str:
        return self.hub.place.full_name if self.hub else self.ctx.repo.name


def _judged(judge: Judge, record: DeploymentRecord) -> list[Finding]:
    """One record that cannot be judged leaves the others."""
    try:
        return judge.findings(record)
    except InputError as error:
        subject = f"record {record.number} ({record.stage}, version {record.version})"
        message = f"it could not be judged: {error.what}" + (f"; {error.why}" if error.why else "")
        return [Finding(check="approvals", outcome=Outcome.FAIL, message=message, subject=subject, fix=error.fix)]


def _instant(since: str | None) -> datetime | None:
    """``30d`` or an ISO instant."""
    if not since:
        return None
    with suppress(ValueError):  # then it is an instant, or a mistake
        ago: timedelta = parse_duration(since)
        return clock.now() - ago
    try:
        return clock.parse_instant(since)
    except InputError as error:
        msg = f"--since: {since!r} is neither an instant nor how long ago"
        raise InputError(msg, fix="write it as 30d, 2026-01-31 or 2026-01-31T08:00:00Z") from error


_ALONE = "this repository is on no GitHub, so nobody can have approved anything"
_NONE = "there is no deployment on record whose approvals could be asked for"
