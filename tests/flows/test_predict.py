"""``mlp-ci predict`` as people and workflows run it: real files, real processes, killed and run again."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from mlp_ci.tracking import Tracking, artifact_digest
from tests.predicting import MODEL_YAML, Cli, diary_of, expected, frame, left_behind, save, simple, told, workplace
from tests.serving import save_model, wait_until


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return workplace(tmp_path, monkeypatch)


def test_a_folder_of_parquet_becomes_parts_with_the_key_and_what_was_predicted_is_not_again(
    place: Path, cli: Cli
) -> None:
    save(place / "model", simple())
    for day, first in (("01", 0), ("02", 2000)):
        (place / "in" / f"date=2013-01-{day}").mkdir(parents=True)
        made = frame(2000, first)
        made.to_parquet(place / "in" / f"date=2013-01-{day}" / "a.parquet", row_group_size=700)
    line = ("predict", "model", "--input", "in", "--output", "out", "-C", "repo", "--format", "json")
    asked = (*line, "--keep", "carrier,date", "--part-rows", "1500", "--batch-rows", "400", "--workers", "2")
    report = told(cli(*asked))
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
    assert told(cli(*asked))["outputs"]["predicted"] == "false"
    assert {p.name: p.stat().st_mtime_ns for p in (place / "out").iterdir()} == before

    other = (*line, "--keep", "none")
    refused = cli(*other)
    assert refused.returncode == 2
    assert "say --replace" in refused.stderr
    assert told(cli(*other, "--replace"))["outputs"]["predicted"] == "true"
    [part] = (place / "out").glob("part-*.parquet")
    assert pq.read_schema(part).names == ["prediction"]
    assert not left_behind(place)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_file_from_a_csv(place: Path, cli: Cli, ending: str) -> None:
    save(place / "model", simple())
    frame(3000).to_csv(place / "in.csv.gz", index=False, sep=";")
    asked = ("predict", "model", "--input", "in.csv.gz", "--output", f"out.{ending}", "-C", "repo")
    assert cli(*asked, "--part-rows", "1000", "--batch-rows", "300", "--keep", "all").returncode == 0
    made = pd.read_csv("out.csv") if ending == "csv" else pd.read_parquet("out.parquet")
    # All but what is marked sensitive; the key as model.yaml describes it.
    assert list(made.columns) == ["flight_id", "hour", "carrier", "delayed", "prediction"]
    assert made.prediction.tolist() == expected(3000)
    assert made.flight_id.tolist() == list(range(3000))
    assert made.flight_id.dtype == "int64"
    manifest = json.loads((place / f"out.{ending}.manifest.json").read_text())
    assert len(manifest["parts"]) == 3
    assert not left_behind(place)


def test_a_batch_says_what_the_server_says(place: Path, cli: Cli) -> None:
    from mlp_ci.serve.model import load

    save_model(place / "model")
    frame(500).to_parquet(place / "in.parquet")
    report = told(
        cli("predict", "model", "--input", "in.parquet", "--output", "out.parquet", "-C", "repo", "--format", "json")
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
def test_predictions_of_several_values(place: Path, cli: Cli, trouble: str, names: list[str]) -> None:
    save(place / "model", simple(trouble))
    frame(50).to_parquet(place / "in.parquet")
    for output in ("out.parquet", "out.csv"):
        assert cli("predict", "model", "--input", "in.parquet", "--output", output, "-C", "repo").returncode == 0
    made = pd.read_parquet("out.parquet")
    assert list(made.columns) == ["flight_id", *names]
    written = pd.read_csv("out.csv")
    if trouble == "lists":
        assert [json.loads(text) for text in written.prediction] == [list(v) for v in made.prediction]
    else:
        assert written.prediction_high.tolist() == made.prediction_high.tolist()


# ---------------------------------------------------------------- killed, twice at once, no room


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


# ---------------------------------------------------------------- versions


@pytest.mark.slow
def test_a_version_a_stage_and_data_that_dvc_tracks(place: Path, cli: Cli, mlflow_server: str) -> None:
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

    nobody = cli(*line, "--stage", "production", **env)
    assert nobody.returncode == 2
    assert f"no version of {name} is live in production" in nobody.stderr
    missing = cli(*line[:1], "7", *line[1:], **env)
    assert missing.returncode == 2
    assert "7" in missing.stderr

    tracking.set_alias(name, "production", 1)
    (repo / "promotion.yaml").write_text(
        f"apiVersion: mlp-ci/v1\nmodel: {name}\nstages:\n  production: {{version: 1, digest: 'sha256:{'0' * 64}'}}\n"
    )
    swapped = cli(*line, "--stage", "production", **env)
    assert swapped.returncode == 2
    assert "these bytes are others than were approved" in swapped.stderr

    (repo / "promotion.yaml").write_text(
        f"apiVersion: mlp-ci/v1\nmodel: {name}\nstages:\n  production: {{version: 1, digest: '{digest}'}}\n"
    )
    output = place / "output"
    job = {"GITHUB_ACTIONS": "true", "GITHUB_OUTPUT": str(output)}
    report = told(cli(*line, "--stage", "production", **env, **job))
    assert (report["outputs"]["version"], report["outputs"]["digest"]) == ("1", digest)
    assert "rows<<" in output.read_text()
    metadata = pq.read_schema("out.parquet").metadata
    assert (metadata[b"mlp.version"], metadata[b"mlp.model"].decode()) == (b"1", name)
    assert pd.read_parquet("out.parquet").prediction.tolist() == expected(100)

    changed = {**env, "MLP_CACHE": str(place / "other-cache")}
    tracking.set_version_tags(name, 1, {"mlp.digest": f"sha256:{'1' * 64}"})
    forged = cli(*line[:1], "1", *line[1:], "--replace", **changed)
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
