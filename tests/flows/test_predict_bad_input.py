"""Rows, files, models and stores that ``mlp-ci predict`` cannot take: each is told in one message, or left out."""

from __future__ import annotations

import http.server
import random
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.predicting import Cli, diary_of, expected, frame, left_behind, save, simple, told, workplace


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return workplace(tmp_path, monkeypatch)


# ---------------------------------------------------------------- bad rows


def spoilt(place: Path) -> None:
    """Five rows that no model can be given: two of them have another number of values than there are names."""
    lines = frame(40).to_csv(index=False).splitlines()
    lines[3] = "2,far away,2,UA,0"  # row 3
    lines.insert(8, "7,1.5")  # row 8
    lines[20] = "19,inf,4,UA,0"  # row 20
    lines[30] = "x,1.5,4,UA,0"  # row 30: the key
    lines.append("1,2,3,4,5,6,7")  # row 42
    lines[12] = "13,13,0,UA,0"  # row 12: the model refuses it
    (place / "in.csv").write_text("\n".join(lines) + "\n")


def test_a_bad_row_is_named_and_its_value_only_where_it_may_be(place: Path, cli: Cli) -> None:
    save(place / "model", simple())
    spoilt(place)
    asked = ("predict", "model", "--input", "in.csv", "--output", "out.parquet", "-C", "repo")
    done = cli(*asked)
    assert done.returncode == 2
    assert "in.csv, row 3: distance is a value that is not a finite number" in done.stderr
    assert "far away" not in done.stderr
    assert "--bad-rows skip" in done.stderr
    (place / "repo" / "model.yaml").unlink()
    assert 'row 3: distance is "far away", which is not a finite number' in cli(*asked).stderr
    assert not (place / "out.parquet").exists()
    assert not left_behind(place)


@pytest.mark.parametrize("parts", [[], ["--part-rows", "4", "--batch-rows", "3", "--workers", "2"]])
def test_bad_rows_are_left_out_and_listed_where_that_is_asked(place: Path, cli: Cli, parts: list[str]) -> None:
    save(place / "model", simple("refuses"))
    spoilt(place)
    asked = ("predict", "model", "--input", "in.csv", "--output", "out.parquet", "-C", "repo", "--bad-rows", "skip")
    report = told(cli(*asked, "--format", "json", *parts))
    assert report["outputs"]["skipped"] == "6"
    assert report["outputs"]["rows"] == "36"
    [warning] = report["findings"]
    assert "6 rows (0.14 of all) were left out" in warning["message"]
    left_out = pd.read_csv("out.parquet.skipped.csv")
    assert left_out.row.tolist() == [3, 8, 12, 20, 30, 42]
    assert left_out.column.fillna("").tolist() == ["distance", "", "", "distance", "flight_id", ""]
    assert left_out.reason[2] == "the model refused it (ValueError)"
    assert set(left_out.file) == {"in.csv"}
    made = pd.read_parquet("out.parquet")
    gone = {2, 10, 18, 28}  # by their keys
    assert made.flight_id.tolist() == [n for n in range(40) if n not in gone]


def test_an_answer_that_is_no_number_is_refused_as_by_the_server(place: Path, cli: Cli) -> None:
    save(place / "model", simple("nan"))
    frame(30).assign(distance=[13.0 if n == 4 else 1.0 for n in range(30)]).to_parquet(place / "in.parquet")
    asked = ("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    done = cli(*asked)
    assert done.returncode == 2
    assert "NaN" in done.stderr
    assert cli(*asked, "--bad-rows", "skip").returncode == 0
    assert pd.read_parquet("out/part-00000.parquet").shape == (29, 2)


def test_semicolons_and_decimal_commas(place: Path, cli: Cli) -> None:
    """What a German Excel writes: semicolons separate, also where a name holds a comma; 1,5 is refused and named."""
    asked = ("predict", "model", "--input", "in.csv", "--output", "out.csv", "-C", "repo")
    save(place / "model", simple())
    (place / "in.csv").write_text('flight_id;"note, long";distance;hour;carrier\n1;x;1.5;2;UA\n2;y;2.5;3;AA\n')
    done = cli(*asked)
    assert done.returncode == 0, done.stderr
    assert pd.read_csv("out.csv").prediction.tolist() == [3.5, 5.5]
    (place / "in.csv").write_text("flight_id;distance;hour;carrier\n1;1,5;2;UA\n")
    done = cli(*asked, "--replace")
    assert done.returncode == 2
    assert "row 1: distance is a value that is not a finite number" in done.stderr


# ---------------------------------------------------------------- what cannot be predicted


def test_the_model_gets_none_of_the_jobs_secrets(place: Path, cli: Cli) -> None:
    diary = place / "diary"
    save(place / "model", simple(diary=diary))
    frame(10).to_parquet(place / "in.parquet")
    secrets = {"GITHUB_TOKEN": "t0p", "MLFLOW_TRACKING_PASSWORD": "s3cret", "MY_SECRET": "x", "HARMLESS": "yes"}
    asked = ("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    assert cli(*asked, **secrets).returncode == 0
    [batch] = diary_of(diary)
    assert batch["env"]["HARMLESS"] == "yes"
    assert not {"t0p", "s3cret", "x"} & set(batch["env"].values())


def test_an_input_that_changes_while_it_is_read_is_no_input(place: Path, cli: Cli) -> None:
    save(place / "model", simple(diary=place / "in.parquet"))  # what it writes down goes to the end of the input
    frame(10).to_parquet(place / "in.parquet")
    done = cli("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    assert done.returncode == 2
    assert "in.parquet changed while it was read" in done.stderr
    assert not (place / "out").exists()


@pytest.mark.parametrize(
    ("trouble", "code", "says"),
    [
        ("short", 2, "9 predictions for 10 rows"),
        ("killed", 7, "was killed (signal 9)"),
        ("exits", 2, "it ended with 3"),
        ("broken", 2, "the model cannot be loaded"),
        ("no mlflow model", 2, "is not an MLflow model"),
    ],
)
def test_a_model_that_is_at_fault(place: Path, cli: Cli, trouble: str, code: int, says: str) -> None:
    model = save(place / "model", simple(trouble))
    if trouble == "broken":
        (model / "model.pkl").write_bytes(b"not a pickle")
    if trouble == "no mlflow model":
        (model / "MLmodel").unlink()
    frame(10).to_parquet(place / "in.parquet")
    done = cli("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    assert (done.returncode, "Traceback (most recent call last)" in done.stdout) == (code, False), done.stderr
    assert says in done.stderr
    assert not (place / "out").exists()


def written(place: Path, name: str, content: Any) -> str:
    if isinstance(content, bytes):
        (place / name).write_bytes(content)
    else:
        content.to_parquet(place / name)
    return name


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "says"),
    [
        ("in.parquet", frame(3).drop(columns="hour"), [], 2, "has no column hour, and the model needs distance"),
        ("in.parquet", frame(3).drop(columns="flight_id"), [], 2, "no column flight_id, which the key of model.yaml"),
        ("in.parquet", frame(3), ["--keep", "gate"], 2, "has no column gate, which --keep names"),
        ("in.parquet", frame(3).rename(columns={"carrier": "prediction"}), ["--keep", "prediction"], 2, "rename it"),
        ("in.parquet", frame(0), [], 4, "holds no rows"),
        ("in.parquet", b"PAR1 not really", [], 2, "in.parquet cannot be read"),
        ("in.csv", b"", [], 2, "Empty CSV"),
        ("in.csv", b"a,a\n1,2\n", [], 2, "two columns called a"),
        ("in.csv", b"flight_id,distance,hour\n1,2.0,\xff\n", [], 2, "not in UTF-8"),
        ("in.csv", b"flight_id,distance,hour\n", [], 4, "holds no rows"),
        ("in.csv", b"flight_id,distance,hour\n1,x,1\n", ["--bad-rows", "skip"], 2, "not one row could be predicted"),
        ("in.jsonl", b'{"a": 1}\n', [], 2, "predict reads Parquet and CSV"),
        ("in.xlsx", b"PK", [], 2, "a format that mlp-ci does not read"),
        ("in.parquet", frame(3), ["--bad-rows", "ignore"], 2, "--bad-rows is fail or skip"),
        ("in.parquet", frame(3), ["--stage", "production"], 2, "not both"),
        ("in.parquet", frame(3), ["--output", "s3://bucket/out"], 2, "written to a disk"),
        ("in.parquet", frame(3), ["--output", "repo/model.yaml"], 2, "is a file"),
        ("in.parquet", frame(3), ["--input", "elsewhere.parquet"], 2, "there is no elsewhere.parquet"),
    ],
)
def test_bad_input_is_told_in_one_message(
    place: Path, cli: Cli, name: str, content: Any, options: list[str], code: int, says: str
) -> None:
    save(place / "model", simple())
    data = written(place, name, content)
    done = cli("predict", "model", "--input", data, "--output", "out", "-C", "repo", *options)
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (place / "out").exists()
    assert not left_behind(place)


def test_files_of_different_types_are_written_as_one(place: Path, cli: Cli) -> None:
    save(place / "model", simple())
    (place / "in").mkdir()
    frame(5).astype({"delayed": "int32"}).to_parquet(place / "in" / "a.parquet")
    frame(5, 5).astype({"delayed": "float64"}).to_parquet(place / "in" / "b.parquet")
    asked = (
        "predict",
        "model",
        "--input",
        "in/*.parquet",
        "--output",
        "out.parquet",
        "-C",
        "repo",
        "--keep",
        "delayed",
    )
    assert cli(*asked).returncode == 0
    assert pq.read_schema("out.parquet").field("delayed").type == pa.float64()
    frame(5, 5).astype({"delayed": "str"}).to_parquet(place / "in" / "b.parquet")
    done = cli(*asked, "--replace")
    assert done.returncode == 2
    assert "column delayed is of several types" in done.stderr


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that knows no ranges, as many do not."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_an_address_is_read_and_what_its_server_cannot_do_is_told(place: Path, cli: Cli) -> None:
    save(place / "model", simple())
    frame(400).to_csv(place / "in.csv", index=False)
    large = frame(400).assign(pad=[random.randbytes(20_000) for _ in range(400)])  # more than is fetched at once
    large.to_parquet(place / "in.parquet")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        line = ("predict", "model", "-C", "repo", "--output", "out.csv", "--input")
        assert cli(*line, f"{address}/in.csv").returncode == 0
        no_ranges, nothing = cli(*line, f"{address}/in.parquet"), cli(*line, f"{address}/none.csv")
        server.shutdown()
    assert pd.read_csv("out.csv").prediction.tolist() == expected(400)
    assert (no_ranges.returncode, nothing.returncode) == (7, 7)
    assert "fetch the file and predict it here" in no_ranges.stderr
