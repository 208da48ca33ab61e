"""25 checks on 13,000 rows, the whole `mlp-ci validate` in a DVC repository (at most 0.8 s), next to two rivals.

Great Expectations and pandera get the plain files and the same 25 checks. The second line is `mlp-ci validate` as it
comes, with checks that the others do not have: between train and test, and against the last version of the data.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import attempt, child, measure, python_of, setting

BIN = Path(sys.executable).parent
RIVALS = Path(__file__).parent / "rivals"
ROWS = {"train": 10_000, "test": 3_000}
TYPES = {"id": "int", "ts": "timestamp", "amount": "float", "paid": "int"}
EXTRAS = {"leakage": {"rows": False, "predictive": None}, "schema": "off"}


def generate(folder: str) -> None:
    """Train and test: a key, a time of the last days, an amount and a target of two classes."""
    import duckdb

    start = 0
    for name, rows in ROWS.items():
        chosen = f"""
            SELECT i + {start} AS id, now()::TIMESTAMP - to_minutes(i) AS ts,
                (hash(i, {start}) % 100000) / 100.0 AS amount, (hash(i, {start + 1}) % 2)::BIGINT AS paid
            FROM range({rows}) t(i)"""
        duckdb.execute(f"COPY ({chosen}) TO '{folder}/{name}.parquet'")
        start += rows


def checks() -> list[dict[str, Any]]:
    """Twelve for each file, and one on train alone."""
    found: list[dict[str, Any]] = [{"rule": "rows", "column": "", "value": 1000}]
    for name, kind in TYPES.items():
        found += [{"rule": "type", "column": name, "value": kind}, {"rule": "nulls", "column": name, "value": 0}]
    found += [{"rule": "finite", "column": "amount", "value": None}, {"rule": "key", "column": "id", "value": None}]
    found += [{"rule": "in", "column": "paid", "value": [0, 1]}]
    return [*found, {"rule": "fresh", "column": "ts", "value": 30, "file": 0}]


def model(checks: dict[str, Any]) -> str:
    """A model.yaml that asks for the same; JSON is YAML as well."""
    columns: dict[str, Any] = {name: {"type": kind, "nulls": 0} for name, kind in TYPES.items()}
    columns["paid"]["in"] = [0, 1]
    data = {"train": "train.parquet", "test": "test.parquet", "key": ["id"], "time": "ts", "target": "paid"}
    asked = {"rows": {"min": 1000}, "freshness": "30d", **checks}
    whole: dict[str, Any] = {
        "apiVersion": "mlp-ci/v1",
        "name": "bench",
        "team": "bench",
        "train": {"command": "python train.py"},
    }
    whole["evaluate"] = {"gates": [{"metric": "roc_auc", "min": 0.5}]}
    return json.dumps({**whole, "data": {**data, "columns": columns, "checks": asked}})


def make_repository(repo: Path) -> None:
    """A git repository whose data DVC tracks and has pushed to a remote."""
    repo.mkdir()
    child(__file__, f"generate({str(repo)!r})")
    (repo / "model.yaml").write_text(model(EXTRAS), encoding="utf-8")
    identity = ["-c", "user.name=bench", "-c", "user.email=bench@example.com"]
    dvc = str(BIN / "dvc")
    for command in (
        ["git", "init", "-q", "-b", "main"],
        [dvc, "init", "-q"],
        [dvc, "config", "core.analytics", "false"],
        [dvc, "remote", "add", "-q", "-d", "store", str(repo.parent / "store")],
        [dvc, "add", "-q", "train.parquet", "test.parquet"],
        [dvc, "push", "-q"],
        ["git", "add", "--all"],
        ["git", *identity, "commit", "-q", "-m", "Start"],
    ):
        environ = {**os.environ, "HOME": str(repo.parent), "DVC_NO_ANALYTICS": "true"}
        subprocess.run(command, cwd=repo, env=environ, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    wanted = 2 * len(checks()) - 1
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        repo = Path(folder) / "repo"
        make_repository(repo)
        print(f"{wanted} checks on {sum(ROWS.values()):,} rows in two Parquet files, {setting()}", flush=True)
        command = [str(BIN / "mlp-ci"), "validate", "--format", "json"]
        for name, asked in (("mlp-ci validate", EXTRAS), ("mlp-ci validate, as it comes", {})):
            (repo / "model.yaml").write_text(model(asked), encoding="utf-8")
            done = measure(command, folder=repo)
            data = json.loads(done.said)["data"]
            count = sum(len(file["checks"]) for file in data["files"].values()) + 1
            assert count == wanted or not asked, f"mlp-ci did {count} checks"
            bound = "   must be at most 0.80 s" if asked else ""
            print(done.line(name, f"{count} checks{bound}"), flush=True)
        files = ",".join(str(repo / f"{name}.parquet") for name in ROWS)
        for name, home, script, kind in (
            ("pandera, pandas", "pandera", "validate_pandera.py", "pandas"),
            ("Great Expectations, pandas", "great-expectations", "validate_gx.py", ""),
        ):
            python = python_of(home)
            asked_of = [str(python), str(RIVALS / script), files, json.dumps(checks()), kind]
            if python and (measured := attempt(name, asked_of)):
                said = json.loads(measured.said.splitlines()[-1])
                assert said == {"checks": wanted, "failed": []}, f"{name}: {said}"
                print(measured.line(name, f"{said['checks']} checks"), flush=True)


if __name__ == "__main__":
    main()
