"""The files that people write: what is accepted, and what a person sees when it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlp_ci.errors import SpecError
from mlp_ci.spec import PromotionSpec, parse_model, parse_platform, parse_promotion, render_promotion
from mlp_ci.spec.quantities import parse_duration, show_duration

MODEL = """\
apiVersion: mlp-ci/v1
name: flight-delay
team: growth
tier: standard
data:
  train: data/train.parquet
  test: data/test.parquet
  key: [flight_id]
  target: delayed
  columns:
    distance: {type: float, min: 0, max: 5000, nulls: 0.0}
    carrier: {type: string, in: [UA, AA]}
  checks: {rows: {min: 10}, freshness: 45d}
train:
  command: python train.py
  timeout: 2h
  seed: 17
evaluate:
  gates:
    - {metric: roc_auc, min: 0.7, versus: production, max_drop: 0.005}
"""
DIGEST = "sha256:" + "0a" * 32


def problems_of(text: str) -> list[tuple[int, int, str, str]]:
    with pytest.raises(SpecError) as caught:
        parse_model(text.encode())
    return [(p.line, p.column, p.what, p.fix) for p in caught.value.problems]


def test_a_good_file_is_typed_and_frozen() -> None:
    model = parse_model(MODEL.encode())
    assert model.train.timeout == timedelta(hours=2)
    assert model.data.columns["carrier"].in_ == ("UA", "AA")
    assert model.data.features == ("distance", "carrier")
    with pytest.raises(ValueError, match="frozen"):
        model.name = "other"  # type: ignore[misc]


def test_every_problem_is_shown_at_once_with_place_and_cure() -> None:
    broken = (
        MODEL.replace("tier: standard", "tier: standrd")
        .replace("  seed: 17", "  sed: 17")
        .replace("rows:", "rowz:")
        .replace("min: 0.7,", "min: high,")
    )
    found = problems_of(broken)
    assert [(line, column) for line, column, _, _ in found] == [(4, 7), (13, 12), (17, 3), (20, 30)]
    assert [fix for *_, fix in found[:3]] == [
        "did you mean `standard`?",
        "did you mean `rows`?",
        "did you mean `seed`?",
    ]
    assert "write a number" in found[3][3]


@pytest.mark.parametrize(
    ("change", "line", "what"),
    [
        (("name: flight-delay", "name: Flight Delay"), 2, "name"),
        (("team: growth", "team: growth\nteam: other"), 4, "stands twice; the first is on line 3"),
        (("  seed: 17", "  seed: 17\n<<<<<<< HEAD"), 18, "merge conflict"),
        (("distance: {type: float", "distance: &a {type: float"), 11, "anchors"),
        (("train: data/train.parquet", "train: ../train.parquet"), 6, "inside the repository"),
        (("train: data/train.parquet", "train: data/test.parquet"), 5, "the same file"),
        (("timeout: 2h", "timeout: 2"), 16, "a duration is a number with a unit"),
        (("max: 5000", "max: -1"), 11, "larger than max"),
        ((", max_drop: 0.005", ""), 20, "versus and max_drop go together"),
        (("team: growth", "team: !!python/object:os.system x"), 3, "not allowed"),
        (("seed: 17", "seed: 99999999999"), 17, "less than or equal"),
        (("team: growth", "team: [growth"), 4, "not valid YAML"),
        (("  seed: 17", "\tseed: 17"), 17, "not valid YAML"),
        ((MODEL[MODEL.index("evaluate:") :], ""), 1, "'evaluate' is missing"),
    ],
)  # fmt: skip
def test_bad_files(change: tuple[str, str], line: int, what: str) -> None:
    assert change[0] in MODEL
    found = problems_of(MODEL.replace(*change))
    assert any(what in w for _, _, w, _ in found), found
    assert found[0][0] == line


def test_extension_keys_are_the_users_own() -> None:
    assert parse_model((MODEL + "x-notes: {anything: [1, 2]}\n").encode()).name == "flight-delay"


def test_bytes_that_are_not_utf8_and_files_that_are_huge() -> None:
    with pytest.raises(SpecError, match="UTF-8"):
        parse_model(b"name: caf\xe9\n")
    with pytest.raises(SpecError, match="bytes"):
        parse_model(b"#" * 300_000)
    with pytest.raises(SpecError, match="empty"):
        parse_model(b"")


@pytest.mark.parametrize("opening", [b"[", b"{", b"- ", b"{a: "])
def test_what_is_nested_too_deeply_is_refused_where_it_gets_too_deep(opening: bytes) -> None:
    """A page of brackets in a pull request took the parser minutes."""
    with pytest.raises(SpecError) as caught:
        parse_model(opening * (20_000 // len(opening)))
    assert caught.value.problems[0].line == 1
    assert "nested" in caught.value.problems[0].what


def test_promotion_digests_and_versions() -> None:
    good = f'apiVersion: mlp-ci/v1\nmodel: m\nstages:\n  staging: {{version: 1, digest: "{DIGEST}"}}\n'
    assert parse_promotion(good.encode()).stages["staging"].version == 1
    for bad in ("version: 0", "version: true", "version: 1e9", 'version: "1"', "version: 99999999999999999999"):
        with pytest.raises(SpecError):
            parse_promotion(good.replace("version: 1", bad).encode())
    with pytest.raises(SpecError) as caught:
        parse_promotion(good.replace(DIGEST, "sha256:…").encode())
    assert "64 hexadecimal digits" in caught.value.problems[0].fix


digests = st.binary(min_size=32, max_size=32).map(lambda b: "sha256:" + b.hex())
entries = st.fixed_dictionaries({"version": st.integers(1, 2**31 - 1), "digest": digests})
names = st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?\Z")


@given(
    st.fixed_dictionaries(
        {
            "apiVersion": st.just("mlp-ci/v1"),
            "model": names,
            "stages": st.dictionaries(names, entries, max_size=4),
            "quarantine": st.lists(
                st.fixed_dictionaries(
                    {
                        "version": st.integers(1, 1000),
                        "digest": digests,
                        "reason": st.text(max_size=80),
                        "since": st.just("2013-08-01T00:00:00+00:00"),
                    }
                ),
                max_size=3,
            ),
        }
    )
)
@settings(max_examples=200, deadline=None)
def test_a_rendered_promotion_reads_back_as_itself(raw: dict[str, object]) -> None:
    promotion = PromotionSpec.model_validate(raw)
    assert parse_promotion(render_promotion(promotion).encode()) == promotion


@given(st.binary(max_size=400) | st.text(max_size=400).map(str.encode))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_bytes_lead_to_a_traceback(raw: bytes) -> None:
    for parse in (parse_model, parse_promotion, parse_platform):
        try:
            parse(raw)
        except SpecError as error:
            assert error.problems


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["data", "train", "evaluate", "serve", "monitor", "cost", "name", "owners"]), plain)
@settings(max_examples=300, deadline=None)
def test_no_value_in_any_section_leads_to_a_traceback(key: str, value: object) -> None:
    whole = {**yaml.safe_load(MODEL), key: value}
    try:
        parse_model(yaml.safe_dump(whole).encode())
    except SpecError as error:
        assert all(p.line >= 1 for p in error.problems)


@given(st.integers(0, 10**7))
def test_durations_read_back_as_themselves(seconds: int) -> None:
    duration = timedelta(seconds=seconds)
    assert parse_duration(show_duration(duration)) == duration


def test_platform_policies_must_cover_every_stage() -> None:
    with pytest.raises(SpecError, match="does not say how many approvals production needs"):
        parse_platform(b"apiVersion: mlp-ci/v1\ntiers:\n  standard: {approvals: {staging: 0}}\n")
    with pytest.raises(SpecError, match="cannot merge by machine"):
        parse_platform(
            b"apiVersion: mlp-ci/v1\ntiers:\n  critical: {approvals: {staging: 0, production: 0}, merge: machine}\n"
        )
