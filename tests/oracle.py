"""What the issue says about promotions, told in the plainest way, to hold the policy engine against.

Nothing in here is shared with ``mlp_ci.promote``: it reads the values of a case and loops over everything, slowly,
without asking in which order rules are best judged. Where the engine answers something else, one of the two is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from mlp_ci.github.facts import ReviewFact
    from mlp_ci.promote.case import Case
    from mlp_ci.spec import Freeze

LIFT = "quarantine lift"
STRICTNESS = ["low", "standard", "critical"]


@dataclass(frozen=True)
class Opinion:
    """``broken``: the rules that do not hold. ``approvers`` in lower case."""

    broken: frozenset[str]
    approvers: frozenset[str] = frozenset()
    needed: int = 0
    machine: bool = False

    @property
    def allowed(self) -> bool:
        return not self.broken


def opinion(case: Case) -> Opinion:
    """On the change of one stage's entry, or on the lift of a quarantine."""
    tier = effective_tier(case)
    if tier not in case.platform.tiers:
        return Opinion(frozenset({"tier"}))
    if case.stage != LIFT and case.stage not in [s.name for s in case.platform.stages]:
        return Opinion(frozenset({"stage"}))
    count, teams = asked_for(case, tier)
    if case.stage != LIFT and case.stage in case.after.stages and meaning_of_undecided(case, tier) in ("ask", "block"):
        count = max(count, 1)
    yes = approvers(case)
    entry = case.after.stages.get(case.stage)
    broken = shape(case) | authorship(case) | objections(case)
    if case.stage != LIFT and entry is not None:
        broken |= the_version(case)
    urgent = entry is not None and entry.emergency != ""
    if urgent:
        if not emergency_holds(case, yes):
            broken.add("emergency")
        return Opinion(frozenset(broken), frozenset(yes))
    if len(yes) < count:
        broken.add("approvals")
    for team in teams:
        members = {lower(m) for m in case.teams.get(team, ())}
        if not yes & members:
            broken.add(f"team:{team}")
    broken |= the_time(case)
    by_machine = tier == "low" and case.platform.tiers["low"].merge == "machine"
    machine = by_machine and count == 0 and entry is not None and not broken
    return Opinion(frozenset(broken), frozenset(yes), count, machine)


def opinion_on_guarded(case: Case) -> Opinion:
    """On a pull request that changes the policy, the owners or the workflows."""
    team = case.platform.platform_team
    if team is None:
        return Opinion(frozenset())  # nobody is named: said, and for GitHub's own settings to catch
    broken = whole_and_open(case) | authorship(case) | objections(case)
    yes = approvers(case)
    if not yes:
        broken.add("approvals")
    if not yes & {lower(m) for m in case.teams.get(team, ())}:
        broken.add(f"team:{team}")
    return Opinion(frozenset(broken), frozenset(yes), 1)


def lower(login: str) -> str:
    return login.lower()


# ---------------------------------------------------------------- what is asked for


def effective_tier(case: Case) -> str:
    floor = case.platform.models.get(case.before.model)
    if floor is None or case.tier not in STRICTNESS:
        return case.tier
    return max(case.tier, floor.tier, key=STRICTNESS.index)


def asked_for(case: Case, tier: str) -> tuple[int, set[str]]:
    if case.stage == LIFT:
        stages = [s.name for s in case.platform.stages]
        count = 1
    else:
        stages = [case.stage]
        count = 0
    teams: set[str] = set()
    for stage in stages:
        for wanted in (case.platform.tiers[tier].approvals.get(stage), case.own.approvals.get(stage)):
            if wanted is not None:
                count = max(count, wanted.count)
                teams |= set(wanted.teams)
    return count, teams


# ---------------------------------------------------------------- the pull request


def whole_and_open(case: Case) -> set[str]:
    pull, broken = case.pull, set()
    if not pull.complete:
        broken.add("whole")
    if pull.head_repo.lower() != case.repository.lower():
        broken.add("same-repository")
    if pull.base_ref != case.default_branch:
        broken.add("base")
    if pull.state not in ("open", "merged") or pull.draft:
        broken.add("state")
    return broken


def shape(case: Case) -> set[str]:
    broken = whole_and_open(case)
    if list(case.pull.files) != ["promotion.yaml"]:
        broken.add("one-file")
    if case.after.model != case.before.model:
        broken.add("model")
    for stage in set(case.before.stages) | set(case.after.stages):
        if stage != case.stage and case.before.stages.get(stage) != case.after.stages.get(stage):
            broken.add("one-entry")
    held = {q.digest for q in case.before.quarantine}
    kept = {q.digest for q in case.after.quarantine}
    if case.stage != LIFT and held - kept:
        broken.add("one-entry")
    return broken


def authorship(case: Case) -> set[str]:
    broken = set()
    if not case.pull.commits:
        broken.add("commit-authors")
    for commit in case.pull.commits:
        if commit.author in ("", "web-flow") or not commit.committer:
            broken.add("commit-authors")
    if case.history.unresolved:
        broken.add("co-authors")
    if not case.history.push_known:
        broken.add("pushers")
    return broken


# ---------------------------------------------------------------- people


def own_people(case: Case) -> set[str]:
    people = {lower(case.pull.author)}
    for commit in case.pull.commits:
        people.add(lower(commit.author))
        people.add(lower(commit.committer))
    for names in case.history.co_authors.values():
        for name in names:
            people.add(lower(name))
    for name in case.history.pushers:
        people.add(lower(name))
    return people - {"", "web-flow"}


def may(case: Case, login: str) -> str:
    for person, right in case.permissions.items():
        if lower(person) == lower(login):
            return right
    return "none"


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def last_words(case: Case) -> dict[str, ReviewFact]:
    """Person → the newest of their reviews that says yes, no, or was taken back."""
    words: dict[str, ReviewFact] = {}
    said = [r for r in case.reviews if r.state in ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")]
    for review in sorted(said, key=lambda r: (instant(r.submitted), r.id)):
        words[lower(review.person)] = review
    return words


def approvers(case: Case) -> set[str]:
    barred = {lower(p) for p in (*case.platform.cannot_approve, *case.own.cannot_approve)}
    found = set()
    for person, review in last_words(case).items():
        said_yes = review.state == "APPROVED" and review.commit == case.pull.head_sha
        stale = case.history.restarted != "" and instant(review.submitted) <= instant(case.history.restarted)
        eligible = may(case, person) in ("admin", "write") and not review.bot and person not in barred
        if said_yes and not stale and eligible and person not in own_people(case):
            found.add(person)
    return found


def objections(case: Case) -> set[str]:
    broken = set()
    for person, review in last_words(case).items():
        if review.bot or may(case, person) not in ("admin", "write"):
            continue
        if review.state == "CHANGES_REQUESTED":
            broken.add("changes-requested")
        if review.state == "DISMISSED" and not rightly_dismissed(case, review.id):
            broken.add("dismissal")
    return broken


def rightly_dismissed(case: Case, review: int) -> bool:
    """An approval may be taken back by anybody; an objection by a human admin who did not work on it."""
    known = [d for d in case.history.dismissals if d.review == review]
    for d in known:
        if d.was == "APPROVED":
            continue
        admin = may(case, d.by) == "admin" and not d.by_bot
        if not admin or lower(d.by) in own_people(case):
            return False
    return bool(known)


def emergency_holds(case: Case, yes: set[str]) -> bool:
    """One of the team asks, and nobody else had a hand in it; or one of the team approves."""
    if case.platform.emergency is None:
        return False
    team = {lower(m) for m in case.teams.get(case.platform.emergency.team, ())}
    asked = not case.pull.author_bot and own_people(case) <= team
    return asked or bool(yes & team)


# ---------------------------------------------------------------- the version


def meaning_of_undecided(case: Case, tier: str) -> str:
    """Empty where the version's gates were decided; else the strictest of what anybody says that it means."""
    known = case.registered
    if known.gate != "inconclusive" and known.shown != "inconclusive":
        return ""
    said = {case.on_inconclusive, case.platform.tiers[tier].on_inconclusive}
    if known.on_inconclusive:
        said.add(known.on_inconclusive)
    for word in ("block", "ask"):
        if word in said:
            return word
    return "pass"


def the_version(case: Case) -> set[str]:
    entry, known = case.after.stages[case.stage], case.registered
    broken = set()
    for q in (*case.before.quarantine, *case.after.quarantine):
        if q.digest == entry.digest:
            broken.add("quarantine")
    if case.lifted and "quarantine" not in broken:
        broken.add("quarantine-lift")
    if not known.exists:
        return broken | {"version"}
    if known.gate not in ("pass", "inconclusive") or known.shown in ("fail", "nothing") or known.evidence == "":
        broken.add("gate")
    if known.gate == "pass" and known.shown == "inconclusive" and known.on_inconclusive != "pass":
        broken.add("gate")  # somebody wrote another tag
    if meaning_of_undecided(case, effective_tier(case)) == "block":
        broken.add("gate")
    if known.digest != entry.digest:
        broken.add("digest")
    if known.evidence == "" or known.evidence != known.evidence_found:
        broken.add("evidence")
    if entry.evidence is not None and entry.evidence != known.evidence:
        broken.add("evidence")
    if known.commit == "" or not known.commit_known or not known.data:
        broken.add("lineage")
    return broken


# ---------------------------------------------------------------- order and time


def the_time(case: Case) -> set[str]:
    if case.stage == LIFT:
        return set()
    broken = set()
    entry = case.after.stages.get(case.stage)
    names = [s.name for s in case.platform.stages]
    if entry is not None and names[0] != case.stage:
        earlier = names[names.index(case.stage) - 1]
        there = case.before.stages.get(earlier)
        if there is None or there.version != entry.version or there.digest != entry.digest:
            broken.add("stage-order")
        soaks = [s.soak for s in case.platform.stages if s.name == earlier and s.soak is not None]
        if earlier in case.own.soak:
            soaks.append(case.own.soak[earlier])
        for soak in soaks:
            if case.stay.longest < soak:
                broken.add("soak")
    for freeze in (*case.platform.freezes, *case.own.freezes):
        closes = not freeze.stages or case.stage in freeze.stages
        if closes and frozen(freeze, case.at):
            broken.add("freeze")
    return broken


def frozen(freeze: Freeze, at: datetime) -> bool:
    if freeze.begins is not None:
        return freeze.begins <= at < freeze.until
    return frozen_again(freeze.cron, freeze.zone, freeze.lasts, at.astimezone(UTC))


@cache
def frozen_again(cron: str, zone: str, lasts: timedelta, at: datetime) -> bool:
    """Whether a minute that the expression names lies at most ``lasts`` back: look at every minute."""
    wanted, place = [numbers(field) for field in cron.split()], ZoneInfo(zone)
    minute = at.replace(second=0, microsecond=0)
    while minute + lasts > at:
        if names_minute(wanted, minute.astimezone(place)):
            return True
        minute -= timedelta(minutes=1)
    return False


def names_minute(wanted: list[set[int] | None], local: datetime) -> bool:
    minute, hour, day, month, weekday = wanted
    for allowed, value in ((minute, local.minute), (hour, local.hour), (month, local.month)):
        if allowed is not None and value not in allowed:
            return False
    on_day = day is not None and local.day in day
    on_weekday = weekday is not None and local.isoweekday() % 7 in {w % 7 for w in weekday}
    if day is not None and weekday is not None:
        return on_day or on_weekday
    return (day is None or on_day) and (weekday is None or on_weekday)


def numbers(field: str) -> set[int] | None:
    """``5``, ``1-5``, ``0,30``; None for ``*``."""
    if field == "*":
        return None
    found: set[int] = set()
    for part in field.split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found
