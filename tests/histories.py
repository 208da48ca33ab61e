"""Random pull requests with all that can be wrong with them, as cases for the policy; the same for the same seed.

Each begins as an honest promotion, and each thing about it goes wrong with a probability of its own, so that a good
part is allowed: a wrong "yes" of the policy would hide behind other reasons if everything was wrong at once.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from mlp_ci.github.facts import CommitFact, DismissalFact, PullDetail, PullHistory, ReviewFact
from mlp_ci.promote.case import Case, Registered, Stay
from mlp_ci.spec import PlatformSpec, Promote, PromotionSpec, Quarantined, StageEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.promote.case import Verdict
    from tests.oracle import Opinion

T = TypeVar("T")

PEOPLE = ("alice", "Bob", "carol", "Dave", "erin", "frank")
ROBOT = "robot[bot]"
TEAMS = ("risk", "legal", "on-call", "platform")
MODEL, REPOSITORY, LIFT = "flight-delay", "acme/flight-delay", "quarantine lift"
DIGESTS = tuple(f"sha256:{c * 64}" for c in "0123456789")
EVIDENCE, SWAPPED = (f"sha256:{c * 64}" for c in "ef")
HEAD, OLD = "a" * 40, "0" * 40
SINCE = datetime(2026, 5, 1, tzinfo=UTC)
POLICIES = 400
# Around the year's end, a weekend, both changes of the clocks in Berlin, and in between; with seconds.
INSTANTS = tuple(
    datetime.fromisoformat(text).astimezone(UTC)
    for text in (
        "2026-12-19T23:59:59+00:00", "2026-12-20T00:00:00+00:00", "2026-12-28T12:00:00+01:00",
        "2027-01-01T23:59:59+00:00", "2027-01-02T00:00:00+00:00", "2026-11-20T14:59:59+00:00",
        "2026-11-20T15:00:00+00:00", "2026-11-21T09:00:30+00:00", "2026-11-23T04:59:59+00:00",
        "2026-11-23T05:00:00+00:00", "2026-10-23T14:00:10+00:00", "2026-10-26T04:30:00+00:00",
        "2026-10-26T03:30:00+00:00", "2026-03-27T15:30:00+00:00", "2026-03-30T04:30:00+00:00",
        "2026-11-18T12:00:00+00:00", "2026-11-18T23:30:00+00:00", "2026-11-19T00:30:40+00:00",
        "2026-08-03T09:15:00+00:00", "2026-02-10T17:45:01+00:00", "2026-06-17T08:00:00+00:00",
    )
)  # fmt: skip
FREEZES: tuple[dict[str, Any], ...] = (
    {"reason": "Year end", "from": "2026-12-20T00:00:00Z", "until": "2027-01-02T00:00:00Z"},
    {"reason": "Audit", "from": "2026-11-18T13:00:00+01:00", "until": "2026-11-18T14:00:00+01:00"},
    {"reason": "Weekends", "cron": "0 16 * * 5", "for": "62h", "zone": "Europe/Berlin"},
    {"reason": "Nights", "cron": "0 23 * * *", "for": "2h", "zone": "UTC"},
    {"reason": "Closing", "cron": "30 8 1-3,17 * *", "for": "1h", "zone": "America/New_York"},
    {"reason": "Lunch", "cron": "0,1 9,15 * * 1-5", "for": "90s", "zone": "UTC"},
)


def histories(seed: int, count: int) -> Iterator[Case]:
    """``count`` cases; the same ones for the same seed."""
    draw = Draw(seed)
    for _ in range(count):
        yield draw.case()


def differences(engine: Verdict, naive: Opinion) -> list[str]:
    """What the two say differently; empty when they agree."""
    from mlp_ci.report import Outcome

    failed = {r.check for r in engine.reasons if r.outcome is Outcome.FAIL}
    found = []
    if engine.allowed != naive.allowed:
        found.append(f"allowed: engine {engine.allowed}, oracle {naive.allowed}")
    if naive.broken & {"tier", "stage"}:
        return found if naive.broken <= failed else [*found, f"rules: engine {failed}, oracle {naive.broken}"]
    # Where a version is not in the stage before at all, the engine does not add that it has not been there for long.
    aside = {"soak"} if "stage-order" in failed else set()
    if failed - aside != naive.broken - aside:
        found.append(f"rules: engine {sorted(failed)}, oracle {sorted(naive.broken)}")
    if {a.lower() for a in engine.approvers} != naive.approvers:
        found.append(f"approvers: engine {engine.approvers}, oracle {sorted(naive.approvers)}")
    if engine.needed != naive.needed:
        found.append(f"needed: engine {engine.needed}, oracle {naive.needed}")
    if engine.allowed and engine.machine != naive.machine:
        found.append(f"machine: engine {engine.machine}, oracle {naive.machine}")
    return found


class Draw:
    """One stream of random cases."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.platforms = [self.platform() for _ in range(POLICIES)]
        self.owns = [Promote(), *(self.own() for _ in range(POLICIES // 2))]  # type: ignore[call-arg]

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def one(self, *options: T) -> T:
        return options[int(self.random.random() * len(options))]

    def some(self, options: tuple[T, ...], share: float) -> list[T]:
        return [o for o in options if self.chance(share)]

    def login(self) -> str:
        """Somebody, written in one way or another: GitHub ignores case in logins."""
        name = self.one(*PEOPLE)
        return self.one(name.upper(), name.lower()) if self.chance(0.1) else name

    # ------------------------------------------------------------ policies

    def need(self, most: int) -> dict[str, Any]:
        count = self.random.randint(0, most)
        return {"count": count, "teams": self.some(("risk", "legal"), 0.2) if count else []}

    def freezes(self, stages: tuple[str, ...], share: float) -> list[dict[str, Any]]:
        chosen = [dict(f) for f in FREEZES if self.chance(share)]
        return [{**f, "stages": self.some(stages, 0.5)} if self.chance(0.5) else f for f in chosen]

    def platform(self) -> PlatformSpec:
        names = self.one(("staging", "production"), ("staging", "production"), ("dev", "staging", "production"))
        stages = [{"name": n, "soak": self.one("1h", "24h", "2d")} if self.chance(0.5) else {"name": n} for n in names]
        tiers = {
            tier: {"approvals": {n: self.need(most) for n in names}}
            for tier, most in (("low", 1), ("standard", 2), ("critical", 3))
            if tier != "critical" or self.chance(0.97)
        }
        if self.chance(0.5):
            tiers["low"] |= {"merge": "machine", "approvals": dict.fromkeys(names, 0)}
        for tier in tiers.values():
            tier["on_inconclusive"] = self.one("pass", "pass", "pass", "ask", "block")
        spec: dict[str, Any] = {"apiVersion": "mlp-ci/v1", "stages": stages, "tiers": tiers}
        spec["freezes"] = self.freezes(names, 0.06)
        spec["cannot_approve"] = self.some(PEOPLE, 0.07)
        if self.chance(0.85):
            spec["emergency"] = {"team": "on-call"}
        if self.chance(0.85):
            spec["platform_team"] = "platform"
        if self.chance(0.3):
            spec["models"] = {self.one(MODEL, MODEL, "another"): {"tier": self.one("low", "standard", "critical")}}
        return PlatformSpec.model_validate(spec)

    def own(self) -> Promote:
        stages = ("dev", "staging", "production")
        return Promote.model_validate(
            {
                "approvals": {s: self.need(2) for s in self.some(stages, 0.25)},
                "cannot_approve": self.some(PEOPLE, 0.06),
                "soak": {s: self.one("30m", "12h", "3d") for s in self.some(stages, 0.2)},
                "freezes": self.freezes(stages, 0.05),
            }
        )

    # ------------------------------------------------------------ one case

    def case(self) -> Case:
        platform, own = self.one(*self.platforms), self.owns[0] if self.chance(0.5) else self.one(*self.owns)
        names = platform.stage_names()
        stage = LIFT if self.chance(0.06) else "canary" if self.chance(0.01) else self.one(names[-1], *names)
        before, after = self.change(stage, names)
        detail = self.pull()
        reviews = self.reviews()
        return Case(
            stage=stage,
            tier=self.one("low", "standard", "standard", "critical"),
            platform=platform,
            own=own,
            on_inconclusive=self.one("ask", "ask", "pass", "pass", "block"),
            repository=self.one(REPOSITORY, REPOSITORY.upper()),
            default_branch="main",
            pull=detail,
            history=self.history(detail, reviews),
            reviews=reviews,
            permissions=self.permissions(),
            teams={team: self.members() for team in TEAMS if not self.chance(0.02)},
            before=before,
            after=after,
            registered=self.registered(),
            stay=self.stay(),
            at=self.one(*INSTANTS),
            lifted="the quarantine of these bytes was lifted without a pull request" if self.chance(0.012) else "",
            guarded=(".github/workflows/deploy.yml",),
        )

    def members(self) -> frozenset[str]:
        return frozenset(p.lower() if self.chance(0.3) else p for p in PEOPLE if self.chance(0.6))

    def permissions(self) -> dict[str, str]:
        rights = {p.lower() if self.chance(0.2) else p: self.one("write", "write", "write", "admin") for p in PEOPLE}
        for person in list(rights):
            if self.chance(0.06):
                rights[person] = self.one("read", "none")
            elif self.chance(0.02):
                del rights[person]
        return rights

    def change(self, stage: str, names: tuple[str, ...]) -> tuple[PromotionSpec, PromotionSpec]:
        """promotion.yaml before and after: one entry moves, or a quarantine is lifted; sometimes more than that."""
        wanted = StageEntry(version=4, digest=DIGESTS[4], evidence=self.bound(), emergency=self.urgent())
        stages = {n: StageEntry(version=3, digest=DIGESTS[3]) for n in names if self.chance(0.9)}
        if stage in names[1:] and not self.chance(0.03):
            stages[names[names.index(stage) - 1]] = wanted.model_copy(update={"emergency": "", "evidence": None})
        elif stage in names[1:]:
            stages[names[names.index(stage) - 1]] = StageEntry(version=4, digest=self.one(DIGESTS[3], DIGESTS[4]))
        quarantine = tuple(self.quarantined(d) for d in DIGESTS[5:] if self.chance(0.08))
        if self.chance(0.015):
            quarantine += (self.quarantined(DIGESTS[4]),)
        then = dict(stages)
        kept = list(quarantine)
        if stage == LIFT:
            quarantine += (self.quarantined(DIGESTS[2]),)
        else:
            then[stage] = wanted
            if self.chance(0.05):
                then.pop(stage)
        if self.chance(0.02):
            then[self.one(*names)] = StageEntry(version=5, digest=DIGESTS[5])
        if kept and self.chance(0.04):
            kept.pop()
        if self.chance(0.015):
            kept.append(self.quarantined(self.one(DIGESTS[3], DIGESTS[4])))
        return self.file(MODEL, stages, quarantine), self.file(self.model(), then, tuple(kept))

    def model(self) -> str:
        return "another" if self.chance(0.012) else MODEL

    def bound(self) -> str | None:
        return None if self.chance(0.3) else SWAPPED if self.chance(0.02) else EVIDENCE

    def urgent(self) -> str:
        return "customers are down" if self.chance(0.08) else ""

    @staticmethod
    def quarantined(digest: str) -> Quarantined:
        return Quarantined(version=2, digest=digest, reason="late", since=SINCE)

    @staticmethod
    def file(model: str, stages: dict[str, StageEntry], quarantine: tuple[Quarantined, ...]) -> PromotionSpec:
        return PromotionSpec(apiVersion="mlp-ci/v1", model=model, stages=stages, quarantine=quarantine)

    # ------------------------------------------------------------ people

    def pull(self) -> PullDetail:
        author = ROBOT if self.chance(0.15) else self.login()
        return PullDetail(
            number=7,
            url="http://forge/acme/flight-delay/pull/7",
            title="Promote",
            author=author,
            author_bot=author == ROBOT,
            state=self.one("open", "merged") if not self.chance(0.01) else "closed",
            head_sha=HEAD,
            head_ref="mlp-ci/promote-production",
            head_repo=REPOSITORY if not self.chance(0.015) else self.one("mallory/flight-delay", ""),
            base_ref="main" if not self.chance(0.015) else "release",
            base_sha=OLD,
            draft=self.chance(0.01),
            files=self.files(),
            commits=tuple(self.commits(author)) if not self.chance(0.004) else (),
            complete=not self.chance(0.012),
        )

    def files(self) -> tuple[str, ...]:
        if not self.chance(0.02):
            return ("promotion.yaml",)
        return self.one(
            ("model.yaml", "promotion.yaml"), ("Promotion.yaml",), ("promotion.yaml", "x/promotion.yaml"), ()
        )

    def commits(self, author: str) -> Iterator[CommitFact]:
        count = self.one(1, 1, 1, 2, 3)
        for number in range(count):
            who = author if not self.chance(0.08) else self.one("", "web-flow") if self.chance(0.1) else self.login()
            committer = who if not self.chance(0.2) else self.one("web-flow", "web-flow", "web-flow", "", self.login())
            bots = frozenset({ROBOT} & {who, committer})
            yield CommitFact(
                sha=HEAD if number == count - 1 else f"{number}" * 40, author=who, committer=committer, bots=bots
            )

    def history(self, detail: PullDetail, reviews: tuple[ReviewFact, ...]) -> PullHistory:
        pushers = [detail.author] if not self.chance(0.05) else []
        pushers += [self.login()] if self.chance(0.06) or not pushers else []
        pushers += [ROBOT] if self.chance(0.04) else []
        co_authors = {c.sha: (self.login(),) for c in detail.commits if self.chance(0.05)}
        return PullHistory(
            pushers=tuple(pushers),
            push_known=not self.chance(0.015),
            dismissals=tuple(self.dismissals(reviews)),
            restarted=self.time(self.random.randint(0, 30)) if self.chance(0.08) else "",
            co_authors=co_authors,
            unresolved=("aaaaaaaaaaaa: Eve <eve@example.com>",) if self.chance(0.012) else (),
        )

    def reviews(self) -> tuple[ReviewFact, ...]:
        """Most people approve the head once; some say something else, or more than one thing."""
        found, second = [], 0
        for person in self.random.sample((*PEOPLE, ROBOT), len(PEOPLE) + 1):
            for _ in range(self.one(0, 1, 1, 1, 1, 2, 3) if person != ROBOT else self.one(0, 0, 1)):
                second += 0 if self.chance(0.05) else self.random.randint(1, 4)
                state = self.one("DISMISSED", "CHANGES_REQUESTED", "COMMENTED", "PENDING")
                found.append(
                    ReviewFact(
                        id=100 + len(found),
                        person=person.upper() if self.chance(0.04) and person != ROBOT else person,
                        state="APPROVED" if not self.chance(0.12) else state,
                        commit=HEAD if not self.chance(0.05) else OLD,
                        submitted=self.time(second),
                        bot=person == ROBOT,
                    )
                )
        times = self.random.sample(range(len(found)), len(found)) if self.chance(0.5) else range(len(found))
        stamps = [r.submitted for r in found]
        found = [replace(r, submitted=stamps[i]) for r, i in zip(found, times, strict=True)]
        self.random.shuffle(found)
        return tuple(found)

    def dismissals(self, reviews: tuple[ReviewFact, ...]) -> Iterator[DismissalFact]:
        for review in reviews:
            if review.state == "DISMISSED" and not self.chance(0.08):
                was = self.one("APPROVED", "CHANGES_REQUESTED", "CHANGES_REQUESTED") if not self.chance(0.03) else ""
                robot = self.chance(0.05)
                by = ROBOT if robot else self.login()
                yield DismissalFact(review=review.id, was=was, by=by, by_bot=robot, at=self.time(40))

    @staticmethod
    def time(second: int) -> str:
        return f"2026-11-18T10:{second // 60:02}:{second % 60:02}Z"

    # ------------------------------------------------------------ the version

    def registered(self) -> Registered:
        evidence = EVIDENCE if not self.chance(0.006) else ""
        undecided, care = self.chance(0.15), self.one("ask", "ask", "pass", "block")
        gate = "inconclusive" if undecided and care != "pass" else "pass"
        shown = "inconclusive" if undecided else "pass"
        return Registered(
            exists=not self.chance(0.015),
            gate=gate if not self.chance(0.02) else self.one("fail", "", "pass", "inconclusive"),
            shown=shown if not self.chance(0.01) else self.one("fail", "nothing", "", "inconclusive"),
            on_inconclusive=care if not self.chance(0.2) else "",
            digest=DIGESTS[4] if not self.chance(0.015) else self.one(DIGESTS[3], ""),
            evidence=evidence,
            evidence_found=evidence if not self.chance(0.01) else self.one(SWAPPED, ""),
            commit="c" * 40 if not self.chance(0.006) else "",
            commit_known=not self.chance(0.006),
            data=not self.chance(0.006),
        )

    def stay(self) -> Stay:
        """Mostly long enough; sometimes just not, interrupted, or never there."""
        exact = self.one(timedelta(minutes=30), timedelta(hours=1), timedelta(hours=24), timedelta(days=2))
        longest = timedelta(days=9) if not self.chance(0.3) else exact - timedelta(seconds=self.one(0, 1))
        if self.chance(0.03):
            return Stay()
        return Stay(longest=longest, since=None if self.chance(0.1) else SINCE)
