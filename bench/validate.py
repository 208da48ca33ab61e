"""Validation of 1 M × 20 Parquet (at most 1.3 × the same aggregates by hand in DuckDB), whole processes.

`python bench/validate.py --rows 5000000` for the size of the design's table.
"""

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
FLOATS = [f"f{i}" for i in range(12)]
INTS = [f"n{i}" for i in range(4)]
TEXTS = ["c0", "c1", "c2"]
LEVELS = [f"level {i}" for i in range(40)]

OURS = """
import json, sys
from pathlib import Path
from mlp_ci.data.flow_validate import judge
from mlp_ci.spec.data import Data
found = judge(Path(sys.argv[1]), "data.parquet", Data.model_validate(json.loads(sys.argv[2])))
assert all(c.outcome == "pass" for c in found.checks), [c for c in found.checks if c.outcome != "pass"]
print(len(found.checks), found.rows)
"""
BY_HAND = """
import sys, duckdb
file, *statements = sys.argv[1:]
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
connection.execute("SET memory_limit = '300MB'")
for statement in statements:
    connection.execute(statement.replace("FILE", "read_parquet('" + file + "')")).fetchall()
"""


def generate(file: Path, rows: int) -> None:
    """Twelve floats, four integers, three categories and a key."""
    import duckdb

    columns = [f"(hash(i, {k}) % 1000000) / 1000.0 AS {name}" for k, name in enumerate(FLOATS)]
    columns += [f"(hash(i, {k + 50}) % 500)::BIGINT AS {name}" for k, name in enumerate(INTS)]
    columns += [f"'level ' || (hash(i, {k + 90}) % 40) AS {name}" for k, name in enumerate(TEXTS)]
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"COPY (SELECT i AS id, {', '.join(columns)} FROM range({rows}) t(i)) TO '{file}'")


def section() -> dict[str, object]:
    """The data section of a model.yaml that asks for everything."""
    columns: dict[str, object] = {name: {"type": "float", "nulls": 0.1, "min": 0, "max": 1000} for name in FLOATS}
    columns |= {name: {"type": "int", "nulls": 0.1, "min": 0, "max": 500} for name in INTS}
    columns |= {name: {"type": "string", "nulls": 0.1, "in": LEVELS} for name in TEXTS}
    return {"train": "a", "test": "b", "key": ["id"], "target": "n0", "columns": {**columns, "id": {"type": "int"}}}


def by_hand() -> list[str]:
    """What a person would write for the same answers."""
    aggregates = ["count(*)"]
    for name in [*FLOATS, *INTS]:
        aggregates += [f"count({name})", f"min({name})", f"max({name})"]
    aggregates += [f"count(*) FILTER (WHERE NOT isfinite({name}))" for name in FLOATS]
    aggregates += [f"count({name})" for name in [*TEXTS, "id"]]
    levels = ", ".join(f"('{v}')" for v in LEVELS)
    sets = [
        f"SELECT count(*), sum(n) FILTER (WHERE v NOT IN (VALUES {levels})) "
        f"FROM (SELECT {name} AS v, count(*) AS n FROM FILE GROUP BY v)"
        for name in TEXTS
    ]
    unique = "SELECT count(*) FROM (SELECT id FROM FILE GROUP BY id HAVING count(*) > 1)"
    return [f"SELECT {', '.join(aggregates)} FROM FILE", *sets, unique]


def timed(command: list[str]) -> tuple[float, float, str]:
    """Median seconds and largest memory (MB) of the whole process over the repeats, and what it printed last."""
    seconds, said = [], ""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    for _ in range(REPEATS):
        start = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return statistics.median(seconds), max(before, peak) / 1024, said.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        file = Path(folder) / "data.parquet"
        generate_in_process(file, rows)
        ours, memory, said = timed([sys.executable, "-c", OURS, str(file), json.dumps(section())])
        rival, _, _ = timed([sys.executable, "-c", BY_HAND, str(file), *by_hand()])
    checks = said.split()[0]
    print(f"{checks} checks on {rows:,} × 20, {os.cpu_count()} cores, median of {REPEATS}, whole process")
    print(f"  mlp-ci                {ours:6.2f} s   {memory:5.0f} MB at most")
    print(f"  DuckDB by hand        {rival:6.2f} s")
    print(f"  ratio                 {ours / rival:6.2f}     (must be at most 1.3)")


def generate_in_process(file: Path, rows: int) -> None:
    """Generate in a child, so that its memory does not count for anyone."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import validate; from pathlib import Path\n"
    )
    subprocess.run([sys.executable, "-c", f"{code}validate.generate(Path({str(file)!r}), {rows})"], check=True)


if __name__ == "__main__":
    main()
