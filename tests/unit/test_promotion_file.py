"""promotion.yaml is changed as little as possible: what people wrote beside it stays, and it says what was asked."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlp_ci.errors import SpecError
from mlp_ci.spec import PromotionSpec, Quarantined, StageEntry, edited_promotion, parse_promotion, render_promotion

A, B, C = (f"sha256:{c * 64}" for c in "abc")
KEPT = f"""\
# Ours.
apiVersion: mlp-ci/v1
model: flight-delay
x-ticket: OPS-12 # who asked
stages:
  # the first
  staging: # team growth
    version: 1 # tried on Monday
    digest: '{A}'
  production:
    version: 1
    digest: {A}
    x-since: Monday
"""


def spec(quarantine: tuple[Quarantined, ...] = (), **stages: StageEntry) -> PromotionSpec:
    return PromotionSpec(apiVersion="mlp-ci/v1", model="flight-delay", stages=stages, quarantine=quarantine)


def held(version: int, digest: str, reason: str = "late") -> Quarantined:
    return Quarantined(version=version, digest=digest, reason=reason, since=datetime(2026, 1, 2, tzinfo=UTC))


def test_a_promotion_changes_two_lines_and_keeps_every_comment() -> None:
    now = parse_promotion(KEPT.encode())
    moved = {**now.stages, "production": StageEntry(version=2, digest=B, evidence=C)}
    text = edited_promotion(KEPT, now.model_copy(update={"stages": moved}))
    gone = [line for line in KEPT.splitlines() if line not in text.splitlines()]
    assert gone == ["    version: 1", f"    digest: {A}"]
    assert text.splitlines()[-4:] == [
        "    version: 2",
        f'    digest: "{B}"',
        "    x-since: Monday",
        f'    evidence: "{C}"',
    ]


def test_a_quarantine_is_added_and_lifted_and_the_rest_stays() -> None:
    now = parse_promotion(KEPT.encode())
    text = edited_promotion(KEPT, now.model_copy(update={"quarantine": (held(2, B),)}))
    assert text.startswith(KEPT)
    noted = text.replace("quarantine:", "quarantine: # ask carol")
    both = edited_promotion(noted, now.model_copy(update={"quarantine": (held(2, B), held(3, C))}))
    assert both.startswith(noted)
    assert parse_promotion(both.encode()).quarantine == (held(2, B), held(3, C))
    one = edited_promotion(both, now.model_copy(update={"quarantine": (held(3, C),)}))
    assert parse_promotion(one.encode()).quarantine == (held(3, C),)
    assert edited_promotion(one, now) == KEPT


def test_the_same_again_changes_nothing() -> None:
    text = render_promotion(spec((held(2, B),), staging=StageEntry(version=1, digest=A)))
    assert edited_promotion(text, parse_promotion(text.encode())) == text
    assert edited_promotion(KEPT, parse_promotion(KEPT.encode())) == KEPT
    assert edited_promotion("", spec()) == render_promotion(spec())


digests = st.sampled_from([A, B, C])
words = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")), max_size=40)
entries = st.builds(
    StageEntry,
    version=st.integers(1, 2**31 - 1),
    digest=digests,
    evidence=st.none() | digests,
    emergency=words.map(str.strip),
)
names = st.sampled_from(["staging", "production", "on", "null", "1", "0x1", "yes", "dev-1"])
quarantines = st.lists(st.builds(held, st.integers(1, 9), digests, words), unique_by=lambda q: q.digest, max_size=3)
specs = st.builds(
    lambda stages, quarantine: PromotionSpec(
        apiVersion="mlp-ci/v1", model="m", stages=stages, quarantine=tuple(quarantine)
    ),
    st.dictionaries(names, entries, max_size=4),
    quarantines,
)


@settings(max_examples=150, deadline=None)
@given(specs, specs)
def test_it_says_what_was_asked_whatever_was_there(old: PromotionSpec, new: PromotionSpec) -> None:
    text = render_promotion(old)
    assert parse_promotion(text.encode()) == old
    said = parse_promotion(edited_promotion(text, new).encode())
    assert (said.stages, {q.digest for q in said.quarantine}) == (new.stages, {q.digest for q in new.quarantine})


@pytest.mark.parametrize("hidden", ["\u202e", "\u2066", "\u200b", "\u200e", "\u2060", "\ufeff", "\U000e0041"])
def test_what_a_reviewer_cannot_see_is_refused_with_its_place(hidden: str) -> None:
    text = KEPT.replace("# tried on", f"# tried{hidden} on")
    with pytest.raises(SpecError) as refused:
        parse_promotion(text.encode())
    [problem] = refused.value.problems
    assert f"U+{ord(hidden):04X}" in problem.what
    assert (problem.line, problem.column) == (8, 23)
    assert parse_promotion(KEPT.replace("Monday", "דוֹב 👩\u200d🔬").encode())
