"""What a promotion needs: approvals, teams, soak, freezes. Shared by platform.yaml and, to be stricter, model.yaml."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BeforeValidator, Field, WithJsonSchema, model_validator

from mlp_ci.spec.quantities import Duration, Name, Strict

# ASCII only: a name that merely looks like somebody's must not be taken for theirs.
Login = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,98})(?:\[bot\])?$")]
Team = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9_.-]{0,98})$")]
MOST_APPROVALS = 10


class Need(Strict):
    """How many people must approve, and from which teams there must be at least one of them."""

    count: int = Field(
        strict=True, ge=0, le=MOST_APPROVALS, description="How many people other than its authors must approve."
    )
    teams: tuple[Team, ...] = Field((), description="Slugs of teams: at least one approval from each of them.")

    @model_validator(mode="after")
    def _teams_need_people(self) -> Self:
        if self.teams and not self.count:
            msg = "an approval from a team is an approval: count must be at least 1"
            raise ValueError(msg)
        return self


def _plain_number(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"count": value}
    if isinstance(value, dict | Need):
        return value
    msg = "approvals are a number of people, or {count: 2, teams: [risk]}"
    raise ValueError(msg)


Approvals = Annotated[
    Need,
    BeforeValidator(_plain_number),
    WithJsonSchema(
        {
            "description": "A number of people, or {count, teams}: a number, and teams that must each be among them.",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": MOST_APPROVALS},
                {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["count"],
                    "properties": {
                        "count": {"type": "integer", "minimum": 0, "maximum": MOST_APPROVALS},
                        "teams": {"type": "array", "items": {"type": "string"}},
                    },
                },
            ],
        }
    ),
]


def _cron(value: Any) -> Any:
    from cronsim import CronSim, CronSimError

    try:
        CronSim(str(value), datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        msg = f"a cron expression has five fields, such as `0 16 * * 5` (Fridays at 16:00): {error}"
        raise ValueError(msg) from error
    return value


def _zone(value: Any) -> Any:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(str(value))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        msg = "a time zone is a name such as UTC or Europe/Berlin"
        raise ValueError(msg) from error
    return value


class Freeze(Strict):
    """A time in which nothing is promoted: once (from, until), or again and again (cron, for)."""

    reason: str = Field(min_length=1, description="Why; it is shown to whoever is refused.")
    begins: AwareDatetime | None = Field(None, alias="from", description="Start, with its offset from UTC.")
    until: AwareDatetime | None = Field(None, description="End, with its offset from UTC.")
    cron: Annotated[str, BeforeValidator(_cron)] | None = Field(None, description="Its start, as five cron fields.")
    lasts: Duration | None = Field(None, alias="for", description="With cron: how long it lasts.")
    zone: Annotated[str, BeforeValidator(_zone)] = Field("UTC", description="With cron: the time zone of its fields.")
    stages: tuple[Name, ...] = Field((), description="Stages that it closes; all, if not given.")

    @model_validator(mode="after")
    def _once_or_again(self) -> Self:
        once = self.begins is not None and self.until is not None
        again = self.cron is not None and self.lasts is not None
        if once == again or (once and (self.cron or self.lasts)) or (again and (self.begins or self.until)):
            msg = "a freeze has either from and until, or cron and for"
            raise ValueError(msg)
        if self.begins and self.until and self.begins >= self.until:
            msg = "from is not before until"
            raise ValueError(msg)
        if self.lasts is not None and self.lasts > timedelta(days=366):
            msg = "a freeze that comes again lasts at most a year"
            raise ValueError(msg)
        return self

    def end(self, at: datetime) -> datetime | None:
        """When the freeze that holds at the instant ``at`` (aware) ends; None where none holds."""
        if self.begins is not None and self.until is not None:
            return self.until if self.begins <= at < self.until else None
        from zoneinfo import ZoneInfo

        from cronsim import CronSim

        # The newest start that is not after `at`. The walk goes backwards, and begins some hours later: begun in the
        # hour that the change of the clocks repeats, it would miss what started in that hour's first round.
        later = at.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(hours=3)
        starts = CronSim(str(self.cron), later.astimezone(ZoneInfo(self.zone)), reverse=True)
        started = next((s for s in starts if s.astimezone(UTC) <= at), None)
        if started is None:
            return None
        end = started.astimezone(UTC) + (self.lasts or timedelta())
        return end if at < end else None


class Emergency(Strict):
    """Who may roll forward in an emergency, without the usual approvals, stage order, soak and freezes."""

    team: Team = Field(description="Slug of the team; its members may, and are asked for a review afterwards.")


class Promote(Strict):
    """Where a model is stricter than the platform. Whatever is laxer here has no effect."""

    approvals: dict[Name, Approvals] = Field({}, description="Stage → approvals, as in platform.yaml.")
    cannot_approve: tuple[Login, ...] = Field((), description="Logins whose approval does not count for this model.")
    soak: dict[Name, Duration] = Field({}, description="Stage → how long a version runs there before it goes on.")
    freezes: tuple[Freeze, ...] = Field((), description="Times in which nothing of this model is promoted.")
