"""Who worked on a pull request, whose approval counts, who objects. Pure: it sees a :class:`Case`, no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlp_ci.github.facts import WEB_FLOW
from mlp_ci.promote.case import APPROVALS, Case, failed, passed, skipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlp_ci.github.facts import DismissalFact, ReviewFact
    from mlp_ci.promote.requirement import Requirement
    from mlp_ci.report import Finding

WRITERS = ("write", "maintain", "admin")
OPINIONS = ("APPROVED", "CHANGES_REQUESTED", "DISMISSED")


def own_people(case: Case) -> frozenset[str]:
    """Who cannot approve because it is their own work, in lower case.

    The author of the pull request; author, committer and co-authors of every commit, as their addresses say; and who
    pushed the commits, as GitHub recorded it: an address can be anybody's, a push needs the person's own credentials.
    """
    logins = {case.pull.author, *case.history.pushers}
    for commit in case.pull.commits:
        logins |= {commit.author, commit.committer, *case.history.co_authors.get(commit.sha, ())}
    return frozenset(login.lower() for login in logins if login and login != WEB_FLOW)


def latest_reviews(reviews: Iterable[ReviewFact]) -> dict[str, ReviewFact]:
    """Login in lower case → that person's last review that says yes, no or was dismissed."""
    latest: dict[str, ReviewFact] = {}
    for review in sorted(reviews, key=lambda r: (r.submitted, r.id)):
        if review.state in OPINIONS:
            latest[review.person.lower()] = review
    return latest


def may(case: Case, login: str) -> str:
    """What a person may do in the repository: admin, write, read or none."""
    return next((p for who, p in case.permissions.items() if who.lower() == login.lower()), "none")


def members(case: Case, team: str) -> frozenset[str]:
    """The members of a team, in lower case."""
    return frozenset(login.lower() for login in case.teams.get(team, ()))


def why_not(case: Case, review: ReviewFact, own: frozenset[str], barred: frozenset[str]) -> str:
    """Why an approval does not count; empty when it does."""
    login = review.person.lower()
    if not login:
        return "GitHub no longer knows who gave it"
    if review.bot:
        return "a bot's approval never counts"
    if login in own:
        return "it is their own work"
    if login in barred:
        return "they are on the list cannot_approve"
    if may(case, login) not in WRITERS:
        return "they may not write to this repository"
    if review.commit != case.pull.head_sha:
        return f"it is for {review.commit[:12]}, not for the newest commit {case.pull.head_sha[:12]}"
    if case.history.restarted and review.submitted <= case.history.restarted:
        return f"it is older than the reopening or change of base at {case.history.restarted}"
    return ""


def counted_approvers(case: Case, needs: Requirement) -> tuple[str, ...]:
    """The people whose approval counts."""
    own = own_people(case)
    return tuple(
        review.person
        for _, review in sorted(latest_reviews(case.reviews).items())
        if review.state == "APPROVED" and not why_not(case, review, own, needs.cannot_approve)
    )


def people_rules(case: Case, needs: Requirement, approvers: tuple[str, ...], *, waived: str = "") -> Iterator[Finding]:
    """Nobody objects, enough people approved, and each team is among them; ``waived`` says why that is not asked."""
    own = own_people(case)
    yield from _objections(case, own)
    for _, review in sorted(latest_reviews(case.reviews).items()):
        if review.state == "APPROVED" and (why := why_not(case, review, own, needs.cannot_approve)):
            name = review.person or "somebody"
            yield skipped("approval-counts", f"the approval of {name} does not count: {why}", name)
    if waived:
        yield skipped(APPROVALS, waived)
        return
    yield _enough(case, needs, approvers)
    for team in needs.teams:
        theirs = [who for who in approvers if who.lower() in members(case, team)]
        if theirs:
            yield passed(f"team:{team}", f"{', '.join(theirs)} approved for the team {team}")
        else:
            asked = sorted(members(case, team) - own - needs.cannot_approve)
            whom = f"{', '.join(asked[:5])}{' …' if len(asked) > 5 else ''}" if asked else "it has nobody who could"
            fix = f"ask one of the team to approve the newest commit: {whom}"
            yield failed(f"team:{team}", f"nobody of the team {team} has approved", fix=fix)


def _objections(case: Case, own: frozenset[str]) -> Iterator[Finding]:
    dismissals = {d.review: d for d in case.history.dismissals}
    for login, review in sorted(latest_reviews(case.reviews).items()):
        if review.bot or may(case, login) not in WRITERS:
            continue
        if review.state == "CHANGES_REQUESTED":
            fix = f"settle it with {review.person}; their approval, or an admin's dismissal of their review, ends this"
            yield failed("changes-requested", f"{review.person} asked for changes", subject=review.person, fix=fix)
        elif review.state == "DISMISSED":
            yield from _dismissed(case, review, dismissals.get(review.id), own)


def _dismissed(case: Case, review: ReviewFact, by: DismissalFact | None, own: frozenset[str]) -> Iterator[Finding]:
    """A dismissed request for changes is settled only where an admin who did not work on this dismissed it."""
    fix = f"ask {review.person} to review again, or an admin who did not work on this to dismiss it"
    if by is None:
        what = f"a review of {review.person} was dismissed, and GitHub does not say what it was, or by whom"
        yield failed("dismissal", what, subject=review.person, fix=fix)
    elif by.was != "APPROVED":  # where GitHub does not say what it was, it may have been an objection
        who = by.by or "somebody"
        if not by.by_bot and may(case, who) == "admin" and who.lower() not in own:
            yield passed("dismissal", f"{who}, an admin, dismissed what {review.person} had asked to change")
        else:
            why = "whose own work this is" if who.lower() in own else "who is no admin"
            what = f"{review.person} asked for changes, and {who}, {why}, dismissed it"
            yield failed("dismissal", what, subject=review.person, fix=fix)


def _enough(case: Case, needs: Requirement, approvers: tuple[str, ...]) -> Finding:
    noun = "approval" if needs.count == 1 else "approvals"
    if needs.count == 0:
        return passed(APPROVALS, f"tier {needs.tier} needs no approval here")
    if len(approvers) >= needs.count:
        return passed(APPROVALS, f"{len(approvers)} of {needs.count} {noun} of this head: {', '.join(approvers)}")
    missing = needs.count - len(approvers)
    whom = "someone" if missing == 1 else f"{missing} people"
    others = _others(case, approvers)
    what = f"{missing} of {needs.count} {noun} missing: {whom} with write access other than {others}"
    return failed(APPROVALS, what, fix="ask them to approve the newest commit of the pull request")


def _others(case: Case, approvers: tuple[str, ...]) -> str:
    """Who cannot be among the missing, as people are shown: nobody's bot, everybody once."""
    commits = case.pull.commits
    bots = {b for c in commits for b in c.bots} | ({case.pull.author} if case.pull.author_bot else set())
    logins = [case.pull.author, *(c.author for c in commits), *(c.committer for c in commits)]
    logins += [who for c in commits for who in case.history.co_authors.get(c.sha, ())]
    logins += [who for who in case.history.pushers if not who.endswith("[bot]")]
    people = [p for p in dict.fromkeys([*logins, *approvers]) if p and p != WEB_FLOW and p not in bots]
    return ", ".join(people) or "bots"


def people_rows(case: Case, needs: Requirement) -> list[tuple[str, str, str, str]]:
    """Everybody who reviewed: person, last word, commit, and whether it counts or why not."""
    own, rows = own_people(case), []
    for _, review in sorted(latest_reviews(case.reviews).items()):
        why = why_not(case, review, own, needs.cannot_approve) if review.state == "APPROVED" else ""
        said = review.state.lower().replace("_", " ")
        counts = "" if review.state != "APPROVED" else f"no: {why}" if why else "yes"
        rows.append((review.person or "somebody", said, review.commit[:12], counts))
    return rows
