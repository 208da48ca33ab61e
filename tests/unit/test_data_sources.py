"""Files, folders, globs and addresses, in every format, read as one."""

from __future__ import annotations

import functools
import gzip
import http.server
import shutil
import threading
from typing import TYPE_CHECKING, Any

import duckdb
import pytest

from mlp_ci.data.engines.duck import columns_of, open_file
from mlp_ci.data.plan import compile_plan, types_wanted
from mlp_ci.data.sources import Source, suffix_of, without_secrets
from mlp_ci.errors import InputError, OutsideError
from tests.unit.checked import ROWS, broken, look, section, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = section()


def parts(folder: Path, suffix: str, rows: int = 20, files: int = 3) -> Path:
    """A folder with the rows cut into files, whose names are not in the order in which they were written."""
    folder.mkdir()
    for i in reversed(range(files)):
        part = f"SELECT * FROM ({ROWS}) WHERE id % {rows} >= {i * 7} AND id % {rows} < {i * 7 + 7}"
        if suffix in (".arrow", ".feather"):
            arrow(folder / f"part-{i}{suffix}", part)
        else:
            write(folder, part, suffix, f"part-{i}")
    return folder


def arrow(file: Path, select: str) -> Path:
    import pyarrow as pa

    table = duckdb.connect().sql(f"SELECT * REPLACE (distance::DOUBLE AS distance) FROM ({select})").to_arrow_table()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return file


def facts(what: Any) -> dict[str, Any]:
    with open_file(what, "data", types_wanted(DATA)) as engine:
        plan = compile_plan(DATA, engine.schema())
        found = engine.facts(plan)
        first = engine.query("SELECT row_number, id FROM numbered WHERE id IN (0, 7, 19) ORDER BY id")
        return {"rows": found.rows, "ids": found.columns["id"].largest, "places": first.examples}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".jsonl", ".arrow"])
def test_a_folder_is_its_files_in_the_order_of_their_names(tmp_path: Path, suffix: str) -> None:
    folder = parts(tmp_path / "many", suffix)
    (folder / ".gitignore").write_text("x")
    (folder / "_SUCCESS").write_text("")
    found = facts(folder)
    assert (found["rows"], found["ids"]) == (20, 19)
    assert found["places"] == ((1, ("0",)), (8, ("7",)), (20, ("19",)))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_glob(tmp_path: Path, suffix: str) -> None:
    parts(tmp_path / "many", suffix)
    found = facts(str(tmp_path / "many" / f"part-[12]{suffix}"))
    assert found["rows"] == 13
    assert found["places"] == ((1, ("7",)), (13, ("19",)))


def test_rows_of_a_folder_are_named_by_their_number_over_all_files(tmp_path: Path) -> None:
    folder = parts(tmp_path / "many", ".csv")
    text = (folder / "part-2.csv").read_text().replace("28.5", "far")
    (folder / "part-2.csv").write_text(text)
    bad = broken(look(folder, section()))
    assert bad["type", "distance"].message == "1 value cannot be read as float: 'far' (row 20)"


@pytest.mark.parametrize("name", ["x.arrow", "x.feather", "x.ipc"])
def test_arrow_files(tmp_path: Path, name: str) -> None:
    assert broken(look(arrow(tmp_path / name, ROWS), section(key=["id"]))) == {}


def test_json_lines_with_gzip(tmp_path: Path) -> None:
    plain = write(tmp_path, ROWS, ".jsonl")
    zipped = tmp_path / "data.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    assert facts(zipped) == facts(plain)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no file"),
        ({"a.parquet": 1, "b.csv": 1}, "files of several formats: a.parquet and b.csv"),
        ({"a.parquet": 1, "b.xlsx": 1}, r"b\.xlsx in many is in a format that mlp-ci does not read"),
    ],
)
def test_folders_that_are_not_one_data_set(tmp_path: Path, files: dict[str, int], message: str) -> None:
    (tmp_path / "many").mkdir()
    for name in files:
        (tmp_path / "many" / name).write_text("x")
    with pytest.raises(InputError, match=message) as caught:
        look(tmp_path / "many", section())
    assert caught.value.fix


@pytest.mark.parametrize(
    ("suffix", "other"),
    [
        (".parquet", ROWS.replace("AS distance", "AS distanze")),
        (".parquet", ROWS.replace("i * 1.5 AS distance", "'far' AS distance")),
        (".parquet", ROWS.replace("i * 1.5 AS distance", "i * 1.5 AS distance, 1 AS more")),
        (".csv", ROWS.replace("AS distance", "AS distanze")),
        (".arrow", ROWS.replace("AS distance", "AS distance, 1 AS more")),
    ],
)
def test_files_of_a_folder_whose_columns_differ(tmp_path: Path, suffix: str, other: str) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for name, select in (("a", ROWS), ("b", ROWS), ("c", other)):
        arrow(folder / f"{name}{suffix}", select) if suffix == ".arrow" else write(folder, select, suffix, name)
    with pytest.raises(InputError, match=rf"many/c\{suffix} has other columns than many/a\{suffix}") as caught:
        look(folder, section())
    assert "same columns" in caught.value.fix


def test_the_columns_of_a_csv_need_no_look_at_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2,3\n")
    assert [c.name for c in columns_of(Source.parse(file))] == ["a", "b"]


# ---------------------------------------------------------------- addresses


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with ranges as storages have them."""

    def do_GET(self) -> None:
        file = self.translate_path(self.path)
        wanted = self.headers.get("Range")
        if not wanted:
            return super().do_GET()
        try:
            with open(file, "rb") as stream:  # noqa: PTH123
                content = stream.read()
        except OSError:
            return self.send_error(404)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(content) - 1), len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.send_header("Content-Length", str(end - start + 1))
        self.end_headers()
        self.wfile.write(content[start : end + 1])
        return None

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz", ".jsonl", ".arrow"])
def test_an_http_address_is_read_like_a_file(tmp_path: Path, served: tuple[Path, str], suffix: str) -> None:
    folder, address = served
    here = arrow(tmp_path / "data.arrow", ROWS) if suffix == ".arrow" else write(tmp_path, ROWS, suffix)
    shutil.copy(here, folder)
    assert facts(f"{address}/data{suffix}") == facts(here)


def test_an_address_that_does_not_answer_or_has_no_such_file(served: tuple[Path, str]) -> None:
    _, address = served
    for name in ("nothing.parquet", "nothing.csv"):
        with pytest.raises(OutsideError, match="data cannot be read") as caught:
            facts(f"{address}/{name}")
        assert "credentials" in caught.value.fix
    with pytest.raises(OutsideError, match="cannot be read"):
        facts("http://127.0.0.1:1/x.parquet")


def test_secrets_of_an_address_are_not_shown(served: tuple[Path, str]) -> None:
    _, address = served
    with pytest.raises(OutsideError) as caught:
        facts(f"{address.replace('//', '//user:hunter2@')}/no.parquet?signature=hunter2")
    assert "hunter2" not in caught.value.what + caught.value.fix
    assert without_secrets("https://me:pw@h/x.csv?sig=1") == "https://h/x.csv"


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_storage_whose_package_is_missing(scheme: str, package: str) -> None:
    pytest.importorskip("fsspec")
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(InputError, match=f"need the package {package}") as caught:
            facts(f"{scheme}://bucket/x.parquet")
        assert caught.value.fix == f"pip install {package}"


def test_an_unknown_kind_of_address() -> None:
    with pytest.raises(InputError, match="does not read ftp:// addresses"):
        Source.parse("ftp://host/x.parquet")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a/b.CSV.GZ", ".csv.gz"), ("s3://b/x.parquet", ".parquet"), ("https://h/x.csv?a=b.zip", ".csv"), ("x", "")],
)
def test_what_a_name_says_of_the_format(name: str, suffix: str) -> None:
    assert suffix_of(name) == suffix
