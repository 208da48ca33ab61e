"""``mlp-ci predict`` as people and workflows run it: real files, real processes, killed and run again."""

from __future__ import annotations

import hashlib
import http.server
import json
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlp_ci import cli as command_line
from mlp_ci.tracking import Tracking, artifact_digest
from tests.predicting import MODEL_YAML, frame, save, simple
from tests.serving import save_model, wait_until

Run = subprocess.CompletedProcess[str]
Cli = Callable[..., Run]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model repository in it whose key is flight_id."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "repo").mkdir()
    (tmp_path / "repo" / "model.yaml").write_text(MODEL_YAML.format(name="flights"))
    return tmp_path


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in this process: what it imports is imported once for all tests."""

    def call(*arguments: str, **env: str) -> Run:
        with monkeypatch.context() as settings:
            for name, value in env.items():
                settings.setenv(name, value)
            capsys.readouterr()
            code = command_line.run(list(arguments))
            out, err = capsys.readouterr()
            return Run(arguments, code, out, err)

    return call


def expected(rows: int) -> list[float]:
    made = frame(rows)
    return (made.distance + made.hour).tolist()


def told(done: Run) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def left_behind(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


def test_a_folder_of_parquet_becomes_parts_with_the_key_and_what_was_predicted_is_not_again(
    place: Path, here: Cli
) -> None:
    save(place / "model", simple())
    for day, first in (("01", 0), ("02", 2000)):
        (place / "in" / f"date=2013-01-{day}").mkdir(parents=True)
        made = frame(2000, first)
        made.to_parquet(place / "in" / f"date=2013-01-{day}" / "a.parquet", row_group_size=700)
    line = ("predict", "model", "--input", "in", "--output", "out", "-C", "repo", "--format", "json")
    asked = (*line, "--keep", "carrier,date", "--part-rows", "1500", "--batch-rows", "400", "--workers", "2")
    report = told(here(*asked))
    assert report["outputs"]["rows"] == "4000"
    assert report["outputs"]["predicted"] == "true"
    parts = sorted((place / "out").glob("part-*.parquet"))
    assert len(parts) == 3
    whole = pd.concat([pd.read_parquet(part) for part in parts])
    assert list(whole.columns) == ["flight_id", "carrier", "date", "prediction"]
    assert whole.flight_id.tolist() == list(range(4000))
    assert whole.prediction.tolist() == expected(4000)
    assert whole.date.tolist() == ["2013-01-01"] * 2000 + ["2013-01-02"] * 2000
    metadata = pq.read_schema(parts[1]).metadata
    assert metadata[b"mlp.digest"].decode() == artifact_digest(place / "model")
    manifest = json.loads((place / "out" / "_manifest.json").read_text())
    assert (manifest["rows"], manifest["digest"]) == (4000, artifact_digest(place / "model"))
    assert not left_behind(place)
    assert not left_behind(place / "out")

    before = {p.name: p.stat().st_mtime_ns for p in (place / "out").iterdir()}
    assert told(here(*asked))["outputs"]["predicted"] == "false"
    assert {p.name: p.stat().st_mtime_ns for p in (place / "out").iterdir()} == before

    other = (*line, "--keep", "none")
    refused = here(*other)
    assert refused.returncode == 2
    assert "say --replace" in refused.stderr
    assert told(here(*other, "--replace"))["outputs"]["predicted"] == "true"
    [part] = (place / "out").glob("part-*.parquet")
    assert pq.read_schema(part).names == ["prediction"]
    assert not left_behind(place)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_file_from_a_csv(place: Path, here: Cli, ending: str) -> None:
    save(place / "model", simple())
    frame(3000).to_csv(place / "in.csv.gz", index=False, sep=";")
    asked = ("predict", "model", "--input", "in.csv.gz", "--output", f"out.{ending}", "-C", "repo")
    assert here(*asked, "--part-rows", "1000", "--batch-rows", "300", "--keep", "all").returncode == 0
    made = pd.read_csv("out.csv") if ending == "csv" else pd.read_parquet("out.parquet")
    # All but what is marked sensitive; the key as model.yaml describes it.
    assert list(made.columns) == ["flight_id", "hour", "carrier", "delayed", "prediction"]
    assert made.prediction.tolist() == expected(3000)
    assert made.flight_id.tolist() == list(range(3000))
    assert made.flight_id.dtype == "int64"
    manifest = json.loads((place / f"out.{ending}.manifest.json").read_text())
    assert len(manifest["parts"]) == 3
    assert not left_behind(place)


def test_a_batch_says_what_the_server_says(place: Path, here: Cli) -> None:
    from mlp_ci.serve.model import load

    save_model(place / "model")
    frame(500).to_parquet(place / "in.parquet")
    report = told(
        here("predict", "model", "--input", "in.parquet", "--output", "out.parquet", "-C", "repo", "--format", "json")
    )
    served = load(place / "model")
    rows = frame(500)
    columns = {
        name: rows[name].astype(object).where(rows[name].notna(), None).tolist() for name in served.signature.names
    }
    assert pd.read_parquet("out.parquet").prediction.tolist() == served.predict(served.signature.frame(columns))
    assert report["outputs"]["version"] == ""


@pytest.mark.parametrize(
    ("trouble", "names"), [("columns", ["prediction_low", "prediction_high"]), ("lists", ["prediction"])]
)
def test_predictions_of_several_values(place: Path, here: Cli, trouble: str, names: list[str]) -> None:
    save(place / "model", simple(trouble))
    frame(50).to_parquet(place / "in.parquet")
    for output in ("out.parquet", "out.csv"):
        assert here("predict", "model", "--input", "in.parquet", "--output", output, "-C", "repo").returncode == 0
    made = pd.read_parquet("out.parquet")
    assert list(made.columns) == ["flight_id", *names]
    written = pd.read_csv("out.csv")
    if trouble == "lists":
        assert [json.loads(text) for text in written.prediction] == [list(v) for v in made.prediction]
    else:
        assert written.prediction_high.tolist() == made.prediction_high.tolist()


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


def test_a_bad_row_is_named_and_its_value_only_where_it_may_be(place: Path, here: Cli) -> None:
    save(place / "model", simple())
    spoilt(place)
    asked = ("predict", "model", "--input", "in.csv", "--output", "out.parquet", "-C", "repo")
    done = here(*asked)
    assert done.returncode == 2
    assert "in.csv, row 3: distance is a value that is not a finite number" in done.stderr
    assert "far away" not in done.stderr
    assert "--bad-rows skip" in done.stderr
    (place / "repo" / "model.yaml").unlink()
    assert 'row 3: distance is "far away", which is not a finite number' in here(*asked).stderr
    assert not (place / "out.parquet").exists()
    assert not left_behind(place)


@pytest.mark.parametrize("parts", [[], ["--part-rows", "4", "--batch-rows", "3", "--workers", "2"]])
def test_bad_rows_are_left_out_and_listed_where_that_is_asked(place: Path, here: Cli, parts: list[str]) -> None:
    save(place / "model", simple("refuses"))
    spoilt(place)
    asked = ("predict", "model", "--input", "in.csv", "--output", "out.parquet", "-C", "repo", "--bad-rows", "skip")
    report = told(here(*asked, "--format", "json", *parts))
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


def test_an_answer_that_is_no_number_is_refused_as_by_the_server(place: Path, here: Cli) -> None:
    save(place / "model", simple("nan"))
    frame(30).assign(distance=[13.0 if n == 4 else 1.0 for n in range(30)]).to_parquet(place / "in.parquet")
    asked = ("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    done = here(*asked)
    assert done.returncode == 2
    assert "NaN" in done.stderr
    assert here(*asked, "--bad-rows", "skip").returncode == 0
    assert pd.read_parquet("out/part-00000.parquet").shape == (29, 2)


# ---------------------------------------------------------------- killed, twice at once, no room


def diary_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize("output", ["out", pytest.param("out.csv", marks=pytest.mark.slow)])
def test_killed_anywhere_it_goes_on_and_says_the_same(place: Path, cli: Cli, output: str) -> None:
    diary = place / "diary"
    save(place / "model", simple(diary=diary, seconds=0.04))
    frame(3000).to_csv(place / "in.csv", index=False)
    line = ("predict", "model", "--input", "in.csv", "--output", output, "-C", "repo")
    asked = (*line, "--part-rows", "200", "--batch-rows", "100", "--workers", "2")
    chance = random.Random(6)
    for _ in range(3):
        run = subprocess.Popen([sys.executable, "-m", "mlp_ci", *asked], stdout=subprocess.DEVNULL)
        before = len(diary_of(diary))
        wait_until(lambda before=before: len(diary_of(diary)) > before)
        time.sleep(chance.uniform(0, 0.25))
        run.send_signal(signal.SIGKILL)
        run.wait()
        wait_until(lambda: not [d for d in diary_of(diary) if Path(f"/proc/{d['pid']}/cmdline").exists()])
        assert not (place / output).exists()
    before = sum(d["rows"] for d in diary_of(diary))
    assert cli(*asked).returncode == 0
    again = sum(d["rows"] for d in diary_of(diary)) - before
    assert again < 3000, "the last run began anew"
    files = sorted((place / "out").glob("part-*.parquet")) if output == "out" else []
    made = pd.concat([pd.read_parquet(f) for f in files]) if files else pd.read_csv("out.csv")
    assert made.flight_id.tolist() == list(range(3000))
    assert made.prediction.tolist() == expected(3000)
    assert not left_behind(place)


def test_two_at_once_and_an_interruption(place: Path, cli: Cli) -> None:
    diary = place / "diary"
    save(place / "model", simple(diary=diary, seconds=0.3))
    frame(5000).to_parquet(place / "in.parquet")
    asked = ("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo", "--batch-rows", "100")
    run = subprocess.Popen([sys.executable, "-m", "mlp_ci", *asked], stderr=subprocess.PIPE, text=True)
    wait_until(lambda: diary_of(diary))
    second = cli(*asked)
    assert second.returncode == 2
    assert "another process is writing" in second.stderr
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=30)
    assert run.returncode == 130
    assert "run the same command again to go on" in said
    wait_until(lambda: not [d for d in diary_of(diary) if Path(f"/proc/{d['pid']}/cmdline").exists()])
    assert not (place / "out").exists()


def test_a_full_disk_says_so_and_the_next_run_finishes(place: Path, cli: Cli) -> None:
    save(place / "model", simple())
    frame(40_000).to_parquet(place / "in.parquet")
    line = "-m mlp_ci predict model --input in.parquet --output out -C repo --keep all"
    limited = f"ulimit -f 64; exec {sys.executable} {line}"  # 64 KB for a file, and the part is larger
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "raise the limit of file sizes" in done.stderr
    assert not (place / "out").exists()
    assert cli(*line.split()[2:]).returncode == 0
    assert pq.read_table(place / "out" / "part-00000.parquet").num_rows == 40_000


# ---------------------------------------------------------------- what cannot be predicted


def test_the_model_gets_none_of_the_jobs_secrets(place: Path, here: Cli) -> None:
    diary = place / "diary"
    save(place / "model", simple(diary=diary))
    frame(10).to_parquet(place / "in.parquet")
    secrets = {"GITHUB_TOKEN": "t0p", "MLFLOW_TRACKING_PASSWORD": "s3cret", "MY_SECRET": "x", "HARMLESS": "yes"}
    asked = ("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
    assert here(*asked, **secrets).returncode == 0
    [batch] = diary_of(diary)
    assert batch["env"]["HARMLESS"] == "yes"
    assert not {"t0p", "s3cret", "x"} & set(batch["env"].values())


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
def test_a_model_that_is_at_fault(place: Path, here: Cli, trouble: str, code: int, says: str) -> None:
    model = save(place / "model", simple(trouble))
    if trouble == "broken":
        (model / "model.pkl").write_bytes(b"not a pickle")
    if trouble == "no mlflow model":
        (model / "MLmodel").unlink()
    frame(10).to_parquet(place / "in.parquet")
    done = here("predict", "model", "--input", "in.parquet", "--output", "out", "-C", "repo")
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
    place: Path, here: Cli, name: str, content: Any, options: list[str], code: int, says: str
) -> None:
    save(place / "model", simple())
    data = written(place, name, content)
    done = here("predict", "model", "--input", data, "--output", "out", "-C", "repo", *options)
    assert done.returncode == code, done.stderr
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (place / "out").exists()
    assert not left_behind(place)


def test_files_of_different_types_are_written_as_one(place: Path, here: Cli) -> None:
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
    assert here(*asked).returncode == 0
    assert pq.read_schema("out.parquet").field("delayed").type == pa.float64()
    frame(5, 5).astype({"delayed": "str"}).to_parquet(place / "in" / "b.parquet")
    done = here(*asked, "--replace")
    assert done.returncode == 2
    assert "column delayed is of several types" in done.stderr


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A web server that knows no ranges, as many do not."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_an_address_is_read_and_what_its_server_cannot_do_is_told(place: Path, here: Cli) -> None:
    save(place / "model", simple())
    frame(400).to_csv(place / "in.csv", index=False)
    large = frame(400).assign(pad=[random.randbytes(20_000) for _ in range(400)])  # more than is fetched at once
    large.to_parquet(place / "in.parquet")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(place))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        line = ("predict", "model", "-C", "repo", "--output", "out.csv", "--input")
        assert here(*line, f"{address}/in.csv").returncode == 0
        no_ranges, nothing = here(*line, f"{address}/in.parquet"), here(*line, f"{address}/none.csv")
        server.shutdown()
    assert pd.read_csv("out.csv").prediction.tolist() == expected(400)
    assert (no_ranges.returncode, nothing.returncode) == (7, 7)
    assert "fetch the file and predict it here" in no_ranges.stderr


# ---------------------------------------------------------------- versions


def test_a_version_a_stage_and_data_that_dvc_tracks(place: Path, here: Cli, mlflow_server: str) -> None:
    name = f"flights-{uuid.uuid4().hex[:8]}"
    repo = place / "repo"
    (repo / "model.yaml").write_text(MODEL_YAML.format(name=name))
    tracking = Tracking(mlflow_server)
    experiment = tracking.experiment(name, create=True)
    assert experiment
    run = tracking.start_run(experiment, "run", {}, datetime(2013, 4, 1, tzinfo=UTC))
    model = save(place / "made", simple())
    tracking.log_folder(run, model, "model")
    tracking.register_model(name, "", {})
    digest = artifact_digest(model)
    tracking.create_version(name, run, {"mlp.digest": digest, "mlp.gate": "pass"}, "")
    track(repo, "data/new.parquet", frame(100))
    env = {"MLFLOW_TRACKING_URI": mlflow_server}
    line = ("predict", "--input", "data/new.parquet", "--output", "out.parquet", "-C", "repo", "--format", "json")

    nobody = here(*line, "--stage", "production", **env)
    assert nobody.returncode == 2
    assert f"no version of {name} is live in production" in nobody.stderr
    missing = here(*line[:1], "7", *line[1:], **env)
    assert missing.returncode == 2
    assert "7" in missing.stderr

    tracking.set_alias(name, "production", 1)
    (repo / "promotion.yaml").write_text(
        f"apiVersion: mlp-ci/v1\nmodel: {name}\nstages:\n  production: {{version: 1, digest: 'sha256:{'0' * 64}'}}\n"
    )
    swapped = here(*line, "--stage", "production", **env)
    assert swapped.returncode == 2
    assert "these bytes are others than were approved" in swapped.stderr

    (repo / "promotion.yaml").write_text(
        f"apiVersion: mlp-ci/v1\nmodel: {name}\nstages:\n  production: {{version: 1, digest: '{digest}'}}\n"
    )
    output = place / "output"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output)}
    report = told(here(*line, "--stage", "production", **env, **job))
    assert (report["outputs"]["version"], report["outputs"]["digest"]) == ("1", digest)
    assert "rows<<" in output.read_text()
    metadata = pq.read_schema("out.parquet").metadata
    assert (metadata[b"mlp.version"], metadata[b"mlp.model"].decode()) == (b"1", name)
    assert pd.read_parquet("out.parquet").prediction.tolist() == expected(100)

    changed = {**env, "MLP_CACHE": str(place / "other-cache")}
    tracking.set_version_tags(name, 1, {"mlp.digest": f"sha256:{'1' * 64}"})
    forged = here(*line[:1], "1", *line[1:], "--replace", **changed)
    assert forged.returncode == 2
    assert "has digest" in forged.stderr


def track(repo: Path, path: str, made: pd.DataFrame) -> None:
    """As ``dvc add``, ``dvc push`` and a fresh checkout leave it: the bytes are in the remote alone."""
    storage = repo.parent / "storage"
    made.to_parquet(repo.parent / "pushed.parquet")
    content = (repo.parent / "pushed.parquet").read_bytes()
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    object_ = storage / "files" / "md5" / md5[:2] / md5[2:]
    object_.parent.mkdir(parents=True)
    object_.write_bytes(content)
    (repo / ".dvc").mkdir()
    (repo / ".dvc" / "config").write_text(
        f"[core]\n    remote = s\n    no_scm = true\n['remote \"s\"']\n    url = {storage}\n"
    )
    (repo / path).parent.mkdir()
    pointer = f"outs:\n- md5: {md5}\n  size: {len(content)}\n  hash: md5\n  path: {Path(path).name}\n"
    (repo / f"{path}.dvc").write_text(pointer)
