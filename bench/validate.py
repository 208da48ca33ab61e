"""71 checks on 5 M × 20 Parquet (at most 1.3 × the same aggregates by hand in DuckDB, and 300 MB), next to rivals.

Everybody gets the same 71 checks, finds nothing in the data, and should find eight faults planted in another file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import Measured, attempt, child, measure, python_of, setting

RIVALS = Path(__file__).parent / "rivals"
FLOATS = [f"f{i}" for i in range(8)]
INTS = [f"n{i}" for i in range(6)]
TEXTS = [f"c{i}" for i in range(5)]
LEVELS = [f"level {i}" for i in range(40)]
LARGEST = 1000
FEWEST = 10_000
# One fault of every kind: missing, too small, too large, infinite, not allowed, repeated, of another type, too few.
PLANTED = [
    *(["nulls", "f0"], ["min", "f1"], ["max", "f2"], ["finite", "f3"], ["in", "c0"], ["key", "id"]),
    *(["type", "n5"], ["rows", ""]),
]

OURS = """
import json, sys
from pathlib import Path
from mlp_ci.data.checks.flow_validate import judge
from mlp_ci.spec.data import Data
found = judge(Path(sys.argv[1]), "data.parquet", Data.model_validate(json.loads(sys.argv[2])))
failed = [[c.rule, c.column] for c in found.checks if c.outcome != "pass"]
print(json.dumps({"checks": len(found.checks), "failed": failed}))
"""


def generate(file: str, rows: int, *, faults: bool) -> None:
    """Eight measurements, six whole numbers, five categories and a key; with faults, one row with each of them."""
    import duckdb

    columns = ["i AS id"] + [f"(hash(i, {k}) % 1000000) / 1000.0 AS {name}" for k, name in enumerate(FLOATS)]
    columns += [f"(hash(i, {k + 50}) % 500)::BIGINT AS {name}" for k, name in enumerate(INTS)]
    columns += [f"'level ' || (hash(i, {k + 90}) % 40) AS {name}" for k, name in enumerate(TEXTS)]
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET preserve_insertion_order = true")
    chosen = f"SELECT {', '.join(columns)} FROM range({rows}) t(i)"
    if faults:
        wrong = {"f0": "NULL", "f1": "-1.0", "f2": "1e9", "f3": "'inf'::DOUBLE", "c0": "'other'", "id": "0"}
        replaced = [f"CASE WHEN id = 7000 THEN {value} ELSE {name} END AS {name}" for name, value in wrong.items()]
        chosen = f"SELECT * REPLACE ({', '.join(replaced)}, n5 + 0.5::DOUBLE AS n5) FROM ({chosen})"
    connection.execute(f"COPY ({chosen}) TO '{file}'")


def checks() -> list[dict[str, Any]]:
    """All 71, as every rival's script reads them."""
    types = {**dict.fromkeys(FLOATS, "float"), **dict.fromkeys(INTS, "int"), **dict.fromkeys(TEXTS, "string")}
    found: list[dict[str, Any]] = [{"rule": "rows", "column": "", "value": FEWEST}]
    for name, kind in {"id": "int", **types}.items():
        found += [{"rule": "type", "column": name, "value": kind}, {"rule": "nulls", "column": name, "value": 0}]
    for name in FLOATS:
        found.append({"rule": "finite", "column": name, "value": None})
        found += [{"rule": "min", "column": name, "value": 0}, {"rule": "max", "column": name, "value": LARGEST}]
    found += [{"rule": "in", "column": name, "value": LEVELS} for name in TEXTS]
    return [*found, {"rule": "key", "column": "id", "value": None}]


def section() -> dict[str, Any]:
    """The data section of a model.yaml that asks for the same."""
    columns: dict[str, Any] = {"id": {"type": "int", "nulls": 0}}
    columns |= {name: {"type": "float", "nulls": 0, "min": 0, "max": LARGEST} for name in FLOATS}
    columns |= {name: {"type": "int", "nulls": 0} for name in INTS}
    columns |= {name: {"type": "string", "nulls": 0, "in": LEVELS} for name in TEXTS}
    rows = {"rows": {"min": FEWEST}}
    return {"train": "a.csv", "test": "b.csv", "key": ["id"], "target": "n0", "columns": columns, "checks": rows}


def commands() -> dict[str, tuple[list[str], list[str]]]:
    """Who takes part → the command, and what follows after the file: what to check."""
    asked = json.dumps(checks())
    found = {
        "mlp-ci": ([sys.executable, "-c", OURS], [json.dumps(section())]),
        "DuckDB by hand": ([sys.executable, str(RIVALS / "validate_duckdb.py")], [asked]),
    }
    for name, home, script, kind in (
        ("pandera, polars", "pandera", "validate_pandera.py", "polars"),
        ("pandera, LazyFrame, told to check", "pandera", "validate_pandera.py", "deep"),
        ("pandera, LazyFrame as it comes", "pandera", "validate_pandera.py", "lazy"),
        ("pandera, ibis on DuckDB", "pandera-ibis", "validate_pandera.py", "ibis"),
        ("pandera, pandas", "pandera", "validate_pandera.py", "pandas"),
        ("Great Expectations, pandas", "great-expectations", "validate_gx.py", ""),
    ):
        python = python_of(home)
        if python:
            found[name] = ([str(python), str(RIVALS / script)], [asked, kind])
    return found


def found_of(name: str, command: list[str]) -> list[list[str]] | None:
    """Which of the planted faults a command finds; None when it does not run at all."""
    done = attempt(name, command, repeats=1)
    if done is None:
        return None
    failed = json.loads(done.said.splitlines()[-1])["failed"]
    return [fault for fault in PLANTED if fault in failed]


def told(measured: Measured, name: str, faults: list[list[str]]) -> str:
    """What a result says about itself: how many checks, what it missed."""
    said = json.loads(measured.said.splitlines()[-1])
    assert not said["failed"], f"{name} finds faults where there are none: {said['failed']}"
    assert said["checks"] == len(checks()), f"{name} did {said['checks']} checks"
    missed = ", ".join(" ".join(f).strip() for f in PLANTED if f not in faults)
    return f"{said['checks']} checks, {len(faults)} of {len(PLANTED)} faults" + (f" (not: {missed})" if missed else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    rows = max(FEWEST, parser.parse_args().rows)
    wanted = len(checks())
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        file, broken = f"{folder}/data.parquet", f"{folder}/broken.parquet"
        child(__file__, f"generate({file!r}, {rows}, faults=False)")
        child(__file__, f"generate({broken!r}, {FEWEST - 1}, faults=True)")
        everybody = commands()
        print(f"{wanted} checks on {rows:,} × 20 Parquet, {setting()}", flush=True)
        results: dict[str, Measured] = {}
        for name, (command, asked) in everybody.items():
            faults = found_of(name, [*command, broken, *asked])
            whole = [*command, file, *asked]
            done = None if faults is None else measure(whole) if name == "mlp-ci" else attempt(name, whole)
            if done is None or faults is None:
                continue
            results[name] = done
            print(done.line(name, told(done, name, faults)), flush=True)
    ours, hand = results["mlp-ci"], results["DuckDB by hand"]
    ratios = f"{ours.seconds / hand.seconds:.2f} (of CPU {ours.processor / hand.processor:.2f})"
    print(f"  mlp-ci ÷ DuckDB by hand: {ratios}, must be at most 1.3; memory of mlp-ci at most 300 MB")


if __name__ == "__main__":
    main()
