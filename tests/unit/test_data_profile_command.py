"""``mlp-ci data profile``: the table, the page, and what neither may show."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlp_ci.data.describe.flow_profile import profile
from mlp_ci.data.describe.view import sparkline
from mlp_ci.data.profiles.histogram import heights, histogram, is_whole
from mlp_ci.data.profiles.profile import profile_values
from mlp_ci.data.profiles.shapes import NumberProfile
from mlp_ci.errors import InputError
from mlp_ci.report import markdown

SELECT = (
    "SELECT i AS id, (i % 97)::DOUBLE AS speed, ['UA', 'AA', 'B6'][i % 3 + 1] AS carrier, "
    "CASE WHEN i % 2 = 0 THEN NULL ELSE i % 5 END AS n, TIMESTAMP '2013-01-01' + INTERVAL 1 HOUR * i AS at, "
    "'mia' || i || '@example.org' AS contact, [i] AS nested, 7 AS same FROM range(2000) t(i)"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    duckdb.connect().execute(f"COPY ({SELECT}) TO '{tmp_path / 'data.parquet'}' (FORMAT parquet)")
    return tmp_path / "data.parquet"


class Reader(HTMLParser):
    """Collects what a page refers to, and holds it to closing what it opens."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.paths = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.paths += tag == "path"
        if tag not in ("meta", "br", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_table_has_every_column(file: Path) -> None:
    report = profile(file.parent, str(file))
    shown = markdown(report)
    assert report.headline.endswith("2,000 rows, 8 columns, 1 of them hidden as sensitive")
    for name in ("id", "speed", "carrier", "n", "at", "contact", "nested", "same"):
        assert f"| {name} |" in shown
    assert "| n | 50 % |" in shown
    assert "2013-01-01 00:00 … 2013-03-25 07:00" in shown
    found = {c["name"]: c for c in report.data["columns"]}
    assert found["speed"]["profile"]["mean"] == pytest.approx(sum(i % 97 for i in range(2000)) / 2000)
    assert found["carrier"]["profile"]["counts"] == {"AA": 667, "UA": 667, "B6": 666}


def test_the_page_stands_alone_and_draws_what_can_be_drawn(file: Path, tmp_path: Path) -> None:
    profile(file.parent, str(file), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.links == []
    assert reader.paths >= 1
    assert "http" not in text
    assert "<script" not in text
    assert "prefers-color-scheme: dark" in text


def test_sensitive_values_are_on_no_page_and_in_no_report(file: Path, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("data:\n  columns:\n    speed: {type: float, sensitive: true}\n")
    report = profile(tmp_path, str(file), tmp_path / "page.html")
    for text in ((tmp_path / "page.html").read_text(), json.dumps(report.as_dict(), default=str), markdown(report)):
        assert "example.org" not in text
        assert "47.8" not in text, "the mean of a sensitive column"


def test_hostile_names_and_values_do_not_reach_the_page_as_markup(tmp_path: Path) -> None:
    select = "SELECT '<script>alert(1)</script>' AS \"<b>bold\", i % 3 AS n FROM range(100) t(i)"
    duckdb.connect().execute(f"COPY ({select}) TO '{tmp_path / 'x.parquet'}' (FORMAT parquet)")
    profile(tmp_path, str(tmp_path / "x.parquet"), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold" in text


@pytest.mark.parametrize("select", ["SELECT 1 AS a WHERE false", "SELECT NULL::DOUBLE AS a", "SELECT [1] AS a"])
def test_files_with_nothing_to_draw(tmp_path: Path, select: str) -> None:
    duckdb.connect().execute(f"COPY ({select}) TO '{tmp_path / 'x.parquet'}' (FORMAT parquet)")
    profile(tmp_path, str(tmp_path / "x.parquet"), tmp_path / "page.html")
    assert "</html>" in (tmp_path / "page.html").read_text()


def test_a_page_in_no_folder_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="there is no folder"):
        profile(file.parent, str(file), file.parent / "nowhere" / "page.html")


@given(st.lists(st.one_of(st.floats(-1e300, 1e300), st.integers(-50, 50)), min_size=1), st.integers(1, 50))
def test_the_cells_of_a_histogram_hold_all_values(values: list[float], cells: int) -> None:
    shape = profile_values([float(v) for v in values])
    assert isinstance(shape, NumberProfile)
    found, low, high = histogram(shape, cells)
    assert sum(found) == pytest.approx(1.0)
    assert low < high
    assert all(h >= 0 for h in found)
    assert len(sparkline(shape)) <= 12


@pytest.mark.parametrize("whole", [True, False])
def test_many_values_at_the_smallest_stand_in_the_first_cell_alone(whole: bool) -> None:
    rest = [float(i) if whole else i + 0.5 for i in range(1, 1001)]
    shape = profile_values([0.0] * 1000 + rest)
    assert isinstance(shape, NumberProfile)
    found, low, high = histogram(shape, 40)
    assert low == 0
    assert high == pytest.approx(rest[-1], abs=5)
    assert found[0] == pytest.approx(0.5 + 0.5 / 40, abs=0.005)
    assert found[1:] == pytest.approx([0.5 / 40] * 39, abs=0.005)


def test_values_outside_of_what_is_drawn_count_in_the_outermost_cells() -> None:
    shape = profile_values([float(i) for i in range(100)])
    assert isinstance(shape, NumberProfile)
    assert heights(shape, [40.0, 50.0, 60.0]) == pytest.approx([0.51, 0.49], abs=0.01)


def test_of_few_values_a_quantile_is_one_of_them() -> None:
    shape = profile_values([1.0] * 10 + [2.0] * 10 + [30.0])
    assert isinstance(shape, NumberProfile)
    assert [shape.quantile(at) for at in (0.0, 0.3, 0.5, 0.95, 0.99, 1.0)] == [1.0, 1.0, 2.0, 2.0, 30.0, 30.0]


@pytest.mark.parametrize("most", [5, 100, 5000])
def test_whole_numbers_are_known_by_their_bins(most: int) -> None:
    whole, halves = profile_values([float(i) for i in range(most)] * 2), profile_values([i / 2 for i in range(most)])
    assert isinstance(whole, NumberProfile)
    assert isinstance(halves, NumberProfile)
    assert is_whole(whole)
    assert not is_whole(halves)
