"""Drift of 1 M × 20 against a stored profile (at least 10 M cells a second and core), next to DuckDB on raw data."""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPEATS = 3
NUMBERS = [f"x{i}" for i in range(16)]
TEXTS = [f"c{i}" for i in range(4)]

OURS = """
import json, os, sys, time
from pathlib import Path
from mlp_ci.data.drift import compare
from mlp_ci.data.profile import Profile, profile_file
from mlp_ci.spec.data import Column; from mlp_ci.spec.model import Drift
reference, current, types = sys.argv[1:]
columns = {n: Column(type=t) for n, t in json.loads(types).items()}
then = Profile.from_json(json.loads(Path(reference).read_text()))
start = time.process_time()
now = profile_file(Path(current), columns, like=then)
found = compare(then, now, Drift.model_validate({}))
print(time.process_time() - start, now.rows, sum(d.decision == "drifted" for d in found))
"""
# The rival has no profile: it reads both sides and counts both into the same bins, without any test or decision.
RIVAL = """
import json, sys, duckdb
reference, then, now = sys.argv[1:]
profile = json.loads(open(reference).read())["columns"]
connection = duckdb.connect()
for file in (then, now):
    parts, bins = [], []
    for name, column in profile.items():
        if column["kind"] == "number":
            parts.append(f"histogram({name}, ?::DOUBLE[])")
            bins.append(column["edges"])
        else:
            parts.append(f"histogram({name})")
    connection.execute(f"SELECT {', '.join(parts)} FROM read_parquet('{file}')", bins).fetchall()
"""


def generate(file: str, rows: int, seed: int, shift: float) -> None:
    """Sixteen numbers of different shapes and four categories; the first number is shifted."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    unit = "((hash(i, {}) % 1000003) / 1000003.0 + 1e-7)"
    columns = []
    for k, name in enumerate(NUMBERS):
        u = unit.format(1000 * seed + k)
        shape = [f"{u} * 100", f"-ln({u})", f"sqrt({u})", f"round({u} * 50)"][k % 4]
        columns.append(f"{shape}{f' + {shift}' if k == 0 else ''} AS {name}")
    columns += [f"'v' || (hash(i, {1000 * seed + k + 500}) % 60) AS {name}" for k, name in enumerate(TEXTS)]
    connection.execute(f"COPY (SELECT {', '.join(columns)} FROM range({rows}) t(i)) TO '{file}'")


def timed(command: list[str]) -> tuple[float, str]:
    """Median seconds of the whole process over the repeats, and what it printed last."""
    seconds, said = [], ""
    for _ in range(REPEATS):
        start = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), said.strip()


def child(code: str) -> None:
    """Run a function of this file in a process of its own, so that its memory does not count for anyone."""
    here = str(Path(__file__).parent)
    subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {here!r}); import drift; {code}"], check=True
    )


def store_profile(then: str, types: dict[str, str], reference: str) -> None:
    """What registration does once."""
    from mlp_ci.data.profile import profile_file
    from mlp_ci.spec.data import Column

    columns = {name: Column.model_validate({"type": kind}) for name, kind in types.items()}
    Path(reference).write_text(json.dumps(profile_file(Path(then), columns).to_json()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    types = {**dict.fromkeys(NUMBERS, "float"), **dict.fromkeys(TEXTS, "string")}
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        then, now, reference = f"{folder}/then.parquet", f"{folder}/now.parquet", f"{folder}/profile.json"
        child(f"drift.generate({then!r}, {rows}, 1, 0.0); drift.generate({now!r}, {rows}, 2, 40.0)")
        child(f"drift.store_profile({then!r}, {types!r}, {reference!r})")
        size = Path(reference).stat().st_size
        baseline = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        ours, said = timed([sys.executable, "-c", OURS, reference, now, json.dumps(types)])
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        rival, _ = timed([sys.executable, "-c", RIVAL, reference, then, now])
    processor, _, drifted = said.split()
    rate = rows * len(types) / float(processor) / 1e6
    memory = max(baseline, peak) / 1024
    setting = f"{os.cpu_count()} cores, median of {REPEATS}"
    print(f"{rows:,} × {len(types)} against a profile of {size / 1024:.0f} KB, {setting}")
    print(f"  mlp-ci, whole process         {ours:6.2f} s   {memory:5.0f} MB at most, {drifted} drifted")
    print(f"  DuckDB histograms, both sides {rival:6.2f} s   (no tests, no decision)")
    print(f"  ratio                         {ours / rival:6.2f}")
    print(f"  cells per second and core     {rate:6.1f} M (must be at least 10 M)")


if __name__ == "__main__":
    main()
