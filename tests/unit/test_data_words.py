"""Numbers, shares and texts as people read them."""

from __future__ import annotations

import pytest

from mlp_ci.data.words import cut, round_share, show_number, show_share


@pytest.mark.parametrize(
    ("share", "shown"), [(0, "0 %"), (0.0004, "<0.1 %"), (0.051, "5.1 %"), (0.33, "33 %"), (1, "100 %")]
)
def test_shares_beside_a_bar(share: float, shown: str) -> None:
    assert round_share(share) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, "0 %"), (0.00002, "<0.01 %"), (0.02486, "2.486 %"), (0.5, "50 %"), (0.99996, ">99.99 %"), (1, "100 %")],
)
def test_shares_that_a_bound_is_held_against(share: float, shown: str) -> None:
    assert show_share(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), (3.0, "3"), (-12345.0, "-12,345"), (1 / 3, "0.3333"), (1e16, "1e+16"), (-1e308, "-1e+308")],
)
def test_numbers(value: float | None, shown: str) -> None:
    assert show_number(value) == shown


def test_a_text_is_cut_to_one_line() -> None:
    assert cut(" two\n lines\t") == "two lines"
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcd", 4) == "abcd"
