"""The one retraining pull request of a model: newer data, and in its body why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from mlp_ci import clock, git
from mlp_ci.data.drift.decision import Decision
from mlp_ci.errors import InputError, NothingToDo
from mlp_ci.github import PullRequest, connect, platform_of
from mlp_ci.monitor.comment import BRANCH, columns_of, short_table, window_of
from mlp_ci.monitor.refresh import bring_up_to_date
from mlp_ci.monitor.verdict import ALARM, unique
from mlp_ci.monitor.watch import live_version
from mlp_ci.promote.files import promotion_at
from mlp_ci.report import Report, Table, markdown_cell, markdown_table
from mlp_ci.spec import PROMOTION_FILE, load_model
from mlp_ci.train.environment import alone
from mlp_ci.train.key import train_key

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlp_ci.context import Context
    from mlp_ci.github import Hub
    from mlp_ci.spec import ModelSpec, Quarantined
    from mlp_ci.tracking import Tracking, VersionFact

LABEL = "retraining"
NOTE = "retrain.json"
# A body with more is not read, and the report has all of them.
MOST_COLUMNS = 20


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """What the newest look of `mlp-ci monitor` at a stage said about the version that is live there."""

    version: VersionFact
    raised: bool = False
    window: str = ""
    columns: tuple[Mapping[str, Any], ...] = ()
    report: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """The columns that drifted, in all rows or in a segment."""
        return unique([str(c.get("column")) for c in self.columns])


def retrain(ctx: Context, stage: str, *, force: bool, reason: str) -> Report:
    """Open or update the retraining pull request when the stage has an alarm, or when ``force`` says so.

    Raises NothingToDo without an alarm, when model.yaml says never, when the data did not change, when a version
    trained on other data already waits for its promotion, and when training would give again what was rolled back.
    """
    from mlp_ci.tracking import connect as connect_tracking

    model = load_model(ctx.repo)
    if model.monitor.retrain == "never" and not force:
        msg = "model.yaml says `retrain: never`"
        raise NothingToDo(msg, fix="set monitor.retrain to on_alarm, or pass --force")
    hub = connect(ctx.require_github("a retraining"))
    git.require_repository(ctx.repo)
    tracking = connect_tracking(ctx, platform_of(ctx))
    alarm = alarm_of(ctx, tracking, model, stage)
    held = {q.digest: q for q in promotion_at(hub, hub.default_branch, model.name).quarantine}
    if not force:
        free = [v for v in tracking.versions(model.name) if v.digest not in held]
        _require_reason(free, stage, alarm)
    with alone(ctx.work / "refresh"):  # another one here would take our files for a person's
        note = _Note.begin(ctx, model)
        changed = _changed_by_refresh(ctx, model)
        note.end(ctx, changed)
        files = {path: (ctx.repo / path).read_bytes() for path in changed}
    if not hub.trees.different(hub.default_branch, files):
        msg = "the data did not change, so a new training would give the same model"
        fix = "check that data.refresh.command writes newer rows for the time in MLP_NOW"
        raise NothingToDo(msg, fix=fix)
    if held:
        _respect_quarantine(train_key(ctx, model).digest, tracking.versions(model.name), held)
    if not force:
        _respect_refusal(hub, files)
    counts = row_counts(note.rows, _profiled_rows(tracking, alarm), _rows(ctx, model))
    body = retraining_body(model, stage, alarm, reason, counts, sorted(files))
    fact = hub.open_or_update_pull(
        PullRequest(branch=BRANCH, title=_title(model, alarm), body=body, files=files, labels=(LABEL,))
    )
    said = "opened" if fact.created else "updated" if fact.changed else "already open and up to date"
    return Report(
        command="retrain",
        headline=f"retraining of {model.name}: pull request #{fact.number} is {said}",
        outputs={"pull-request": str(fact.number)},
        data={"pull_request": fact.number, "created": fact.created, "files": sorted(files), "drifted": _names(alarm)},
        links=[(f"pull request #{fact.number}", fact.url)],
    )


# ---------------------------------------------------------------- whether


def alarm_of(ctx: Context, tracking: Tracking, model: ModelSpec, stage: str) -> Alarm | None:
    """The newest look at the stage; None where nothing is live or nobody looked yet."""
    try:
        live = live_version(ctx, tracking, model, stage)
    except NothingToDo:
        return None
    version = tracking.version(model.name, live)
    look = f"monitor/{stage}-latest.json"
    if not tracking.has_artifact(version.run_id, look):
        return Alarm(version=version)
    facts = tracking.read_json(version.run_id, look)
    report, page = str(facts.get("report") or ""), tracking.run_page(version.run_id)
    return Alarm(
        version=version,
        raised=facts.get("verdict") == ALARM,
        window=window_of(facts.get("window")),
        columns=tuple(columns_of(facts, Decision.DRIFTED)),
        report=f"{page}/artifacts/{report}" if report and "://" in page else "",
        facts=facts,
    )


GATED = ("pass", "inconclusive")


def _require_reason(versions: Sequence[VersionFact], stage: str, alarm: Alarm | None) -> None:
    """``versions`` are those that could take the place of the live one: a quarantined one waits for nothing."""
    if alarm is None:
        msg = f"nothing is live in {stage}, so nothing can have drifted"
        raise NothingToDo(msg, fix="pass --force to retrain all the same")
    if not alarm.raised:
        msg = f"no alarm: the newest look at {stage} found version {alarm.version.number} as it should be"
        if not alarm.facts:
            msg = f"no alarm: `mlp-ci monitor --stage {stage}` has not looked at version {alarm.version.number} yet"
        raise NothingToDo(msg, fix="pass --force to retrain all the same")
    newer = [
        v
        for v in versions
        if v.number > alarm.version.number and v.gate in GATED and dict(v.data) != dict(alarm.version.data)
    ]
    if newer:
        number = newer[-1].number
        msg = f"version {number}, trained on other data, already waits to take the place of {alarm.version.number}"
        raise NothingToDo(msg, fix=f"promote it (`mlp-ci promote {stage}`), or pass --force")


def _respect_quarantine(key: str, versions: Sequence[VersionFact], held: Mapping[str, Quarantined]) -> None:
    """The same code, parameters and data are not trained twice: the run is found, and its bytes may not be promoted."""
    same = [v for v in versions if v.train_key == key]
    bad = next((held[v.digest] for v in same if v.digest in held), None)
    if bad is None or any(v.digest not in held for v in same):
        return
    msg = f"training on this data gives version {bad.version} again, which was rolled back: {bad.reason or 'no reason'}"
    why = "its bytes are quarantined, so the pull request could only fail"
    fix = f"change the code or wait for newer data, or lift the quarantine in a reviewed change of {PROMOTION_FILE}"
    raise NothingToDo(msg, why=why, fix=fix)


def _respect_refusal(hub: Hub, files: Mapping[str, bytes]) -> None:
    """People who closed the same proposal without merging it do not want to see it again every hour."""
    newest = next(iter(hub.pulls_of_branch(BRANCH, "all")), None)
    if newest is None or newest["state"] != "closed" or newest.get("merged_at"):
        return
    if not hub.trees.different(newest["head"]["sha"], files):
        msg = f"#{newest['number']} proposed the same data and was closed without a merge"
        raise NothingToDo(msg, fix="reopen it, or pass --force")


# ---------------------------------------------------------------- what


def _changed_by_refresh(ctx: Context, model: ModelSpec) -> list[str]:
    """Refresh the data; the tracked files that differ from the commit afterwards."""
    paths = bring_up_to_date(ctx, model, clock.now())
    known = git.tracked_files(ctx.repo)
    # DVC writes a .gitignore beside what it tracks; without it git would offer to add the data itself.
    ours = {f"{path}.dvc" for path in paths} | {str(PurePosixPath(path).parent / ".gitignore") for path in paths}
    differ = [p for p in git.changed_files(ctx.repo) if (p in known or p in ours) and (ctx.repo / p).is_file()]
    return [path for path in differ if path != PROMOTION_FILE]


@dataclass
class _Note:
    """What a run of ours left in the working tree, so that the next one can tell it from a person's changes.

    ``files``: what the refresh changed (path → blob id); None while it runs, and so after a run that was killed.
    ``rows``: the rows of the data files before the first refresh at this commit.
    """

    head: str
    rows: dict[str, int | None]
    files: dict[str, str] | None = None

    @staticmethod
    def begin(ctx: Context, model: ModelSpec) -> _Note:
        """Raises InputError when a person has uncommitted changes: they must not slip into the pull request."""
        head = git.head(ctx.repo)
        note = _Note.read(ctx)
        blobs = git.tracked_blobs(ctx.repo)
        known = git.tracked_files(ctx.repo)
        dirty = [path for path in git.changed_files(ctx.repo) if path in known]
        if note is None or note.head != head:
            note = _Note(head, _rows(ctx, model), {})
        if note.files is not None:
            dirty = [path for path in dirty if note.files.get(path) != blobs.get(path)]
            if dirty:
                msg = f"there are uncommitted changes: {', '.join(dirty[:3])}"
                why = "they would become part of the retraining pull request"
                raise InputError(msg, why=why, fix="commit or stash them, then run again")
        note.files = None
        note.write(ctx)
        return note

    def end(self, ctx: Context, changed: list[str]) -> None:
        blobs = git.tracked_blobs(ctx.repo)
        self.files = {path: blobs[path] for path in changed if path in blobs}
        self.write(ctx)

    @staticmethod
    def read(ctx: Context) -> _Note | None:
        file = ctx.work / NOTE
        try:
            return _Note(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, ctx: Context) -> None:
        ctx.work.mkdir(parents=True, exist_ok=True)
        (ctx.work / NOTE).write_text(json.dumps(asdict(self)), encoding="utf-8")


def _rows(ctx: Context, model: ModelSpec) -> dict[str, int | None]:
    """Rows of each data file that lies here."""
    from mlp_ci.data.engines.duck import open_file

    found: dict[str, int | None] = {}
    for path in (model.data.train, model.data.test):
        file = ctx.repo / path
        if not file.is_file():
            continue
        with open_file(file, path, {}) as data:
            found[path] = int(data.connection.execute("SELECT count(*) FROM data").fetchone()[0])
    return found


def _profiled_rows(tracking: Tracking, alarm: Alarm | None) -> int | None:
    """Rows of training and held-out data together that the live version knew, by its profile."""
    if alarm is None or not tracking.has_artifact(alarm.version.run_id, "profile.json"):
        return None
    rows = tracking.read_json(alarm.version.run_id, "profile.json").get("rows")
    return rows if isinstance(rows, int) else None


def row_counts(
    before: Mapping[str, int | None], profiled: int | None, now: Mapping[str, int | None]
) -> dict[str, tuple[int | None, int | None]]:
    """What → rows before and now: by file where the files of before lie here, else both files together.

    A checkout of a job has no data before the refresh; then the profile of the live version knows the sum.
    """
    if set(now) <= set(before) or profiled is None:
        return {path: (before.get(path), after) for path, after in now.items()}
    known = [rows for rows in now.values() if rows is not None]
    return {"train and test together": (profiled, sum(known) if len(known) == len(now) else None)}


# ---------------------------------------------------------------- saying it


def _names(alarm: Alarm | None) -> list[str]:
    return alarm.names if alarm and alarm.raised else []


def _title(model: ModelSpec, alarm: Alarm | None) -> str:
    names = _names(alarm)
    if not names:
        return f"Retrain {model.name} on newer data"
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return f"Retrain {model.name}: {', '.join(names[:2])}{more} drifted"


def retraining_body(
    model: ModelSpec,
    stage: str,
    alarm: Alarm | None,
    reason: str,
    rows: Mapping[str, tuple[int | None, int | None]],
    files: list[str],
) -> str:
    """Markdown: why, the evidence, what changes, what happens next."""
    lines = [f"Brings newer data to **{model.name}** so that it is trained again.", ""]
    if reason:
        lines += [f"**Asked for by hand:** {markdown_cell(reason)}", ""]
    if alarm and alarm.raised:
        during = f" ({markdown_cell(alarm.window)})" if alarm.window else ""
        lines += [
            f"**Why:** `mlp-ci monitor` raised an alarm on version {alarm.version.number} in {stage}{during}.",
            "",
        ]
        sentence = str(alarm.facts.get("sentence") or "")
        lines += [markdown_cell(sentence), ""] if sentence else []
        lines += [markdown_table(_drift_table(alarm)), ""] if alarm.columns else []
        lines += [f"[Drift report]({alarm.report})", ""] if alarm.report else []
    table = Table(
        title="Data",
        columns=("data", "rows before", "rows now"),
        rows=tuple((path, before, after) for path, (before, after) in rows.items()),
    )
    lines += [markdown_table(table), ""]
    changed = ", ".join(f"`{markdown_cell(f)}`" for f in files)
    lines += [f"Changes {changed}. The data itself is in the DVC remote.", "", _NEXT]
    return "\n".join(lines) + "\n"


_NEXT = (
    "The checks of this pull request train and judge the new version. After the merge it is registered, and its "
    "promotion is asked for as always. One such pull request is kept per model; a later alarm updates it."
)


def _drift_table(alarm: Alarm) -> Table:
    """The columns that drifted; numbers as the monitor wrote them."""
    more = f", the first {MOST_COLUMNS} of {len(alarm.columns)}" if len(alarm.columns) > MOST_COLUMNS else ""
    return short_table(alarm.columns[:MOST_COLUMNS], f"What drifted{more}")
