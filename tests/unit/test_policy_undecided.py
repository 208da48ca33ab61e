"""Versions whose gates the held-out rows did not decide: who has to approve them, and who lets none of them on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mlp_ci.promote.gather import said_in
from mlp_ci.promote.policy import decide
from mlp_ci.promote.requirement import strictest_care
from mlp_ci.spec import PlatformSpec
from mlp_ci.tracking import VersionFact
from tests.deciding import broken, case, message, registered

UNDECIDED: dict[str, Any] = {"gate": "inconclusive", "shown": "inconclusive", "on_inconclusive": "ask"}


def lax(**low: Any) -> PlatformSpec:
    """A platform whose tier low needs nobody, and where a machine merges."""
    none = {"staging": 0, "production": 0}
    tiers = {"low": {"approvals": none, "merge": "machine", **low}, "standard": {"approvals": none}}
    return PlatformSpec.model_validate({"apiVersion": "mlp-ci/v1", "tiers": tiers})


def low(**changes: Any) -> Any:
    return case(tier="low", platform=lax(), reviews=(), **changes)


def test_a_person_has_to_approve_it_where_a_machine_could_merge() -> None:
    decided = decide(low())
    assert decided.allowed
    assert decided.machine
    undecided = decide(low(registered=registered(**UNDECIDED)))
    assert broken(undecided) == {"approvals"}
    assert (undecided.needed, undecided.machine, undecided.waiting) == (1, False, True)
    assert "a person has to approve it" in message(undecided, "gate")
    approved = decide(case(tier="low", platform=lax(), registered=registered(**UNDECIDED)))
    assert approved.allowed
    assert not approved.machine


def test_a_tag_that_says_more_than_the_evidence_is_refused() -> None:
    forged = decide(case(registered=registered(**{**UNDECIDED, "gate": "pass"})))
    assert broken(forged) == {"gate"}
    assert "its evidence says inconclusive" in message(forged, "gate")
    assert broken(decide(case(registered=registered(shown="fail")))) == {"gate"}
    assert broken(decide(case(registered=registered(shown="nothing")))) == {"gate"}


@pytest.mark.parametrize(
    ("evidence", "model", "tier", "expected"),
    [
        ("pass", "pass", "pass", set()),
        ("ask", "pass", "pass", {"approvals"}),
        ("pass", "ask", "pass", {"approvals"}),
        ("pass", "pass", "ask", {"approvals"}),
        ("pass", "block", "pass", {"approvals", "gate"}),
        ("pass", "pass", "block", {"approvals", "gate"}),
    ],
)
def test_the_strictest_word_counts(evidence: str, model: str, tier: str, expected: set[str]) -> None:
    gate = "pass" if evidence == "pass" else "inconclusive"
    version = registered(gate=gate, shown="inconclusive", on_inconclusive=evidence)
    judged = case(tier="low", platform=lax(on_inconclusive=tier), reviews=(), registered=version, on_inconclusive=model)
    assert broken(decide(judged)) == expected


def test_what_an_evidence_file_says() -> None:
    assert said_in(json.dumps({"outcome": "inconclusive", "on_inconclusive": "ask"}).encode()) == (
        "inconclusive",
        "ask",
    )
    assert said_in(b'{"outcome": "pass"}') == ("pass", "")  # as older versions have it
    for content in (b"", b"[]", b"{", b'{"outcome": "great"}', b'{"outcome": 1}'):
        assert said_in(content)[0] == "nothing"
    assert strictest_care("pass", "nonsense") == "ask"


def test_where_a_versions_evidence_lies() -> None:
    from datetime import UTC, datetime

    def of(evaluation: str) -> str:
        made = datetime(2026, 1, 1, tzinfo=UTC)
        return VersionFact(model="m", number=1, run_id="r", evaluation=evaluation, created=made).evidence_file

    assert of("") == "evidence.json"
    assert of("evaluations/0123456789abcdef") == "evaluations/0123456789abcdef/evidence.json"
    for odd in ("../../secret", "evaluations/..", "evaluations/0123456789abcdef/../x"):
        assert of(odd) == "evidence.json"
