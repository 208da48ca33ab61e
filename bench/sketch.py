"""Is a KLL sketch faster or more exact than counts in fixed reference-quantile bins? 1 M × 20 numbers, both ways.

What decides is the error: in the KS distance to the reference, which is what drift needs, and in rank over the 1 %…99 %
quantiles. The largest of all columns counts, on data like the reference, and on data whose first columns have moved and
changed their shape.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from peers import Measured, attempt, child, measure, python_of, setting

COLUMNS = [f"x{i}" for i in range(20)]
SHARES = [i / 100 for i in range(1, 100)]
RIVALS = Path(__file__).parent / "rivals"

OURS = """
import json, sys
from pathlib import Path
from mlp_ci.data.profiles.profile import Profile
from mlp_ci.data.profiles.profiling import profile_file
from mlp_ci.spec.data import Column
file, stored, shares = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
like = Profile.from_json(json.loads(Path(stored).read_text()))
found = profile_file(Path(file), {name: Column(type="float") for name in like.columns}, like=like)
def quantiles(column):
    # Straight lines through the bins; the open ends reach to the extremes.
    edges, below, wanted, found = [column.smallest, *column.edges, column.largest], 0, list(shares), []
    for i, n in enumerate(column.counts):
        while wanted and n and wanted[0] * column.count <= below + n:
            low, high = max(column.smallest, edges[i]), min(column.largest, edges[i + 1])
            found.append(low + (high - low) * (wanted.pop(0) * column.count - below) / n)
        below += n
    return found
def distance(then, now):
    a = b = worst = 0
    for x, y in zip(then.counts, now.counts):
        a, b = a + x / then.count, b + y / now.count
        worst = max(worst, abs(a - b))
    return worst
size = sum(len(json.dumps(list(c.counts))) for c in found.columns.values())
ks = {n: distance(like.columns[n], c) for n, c in found.columns.items()}
print(json.dumps({"bytes": size, "ks": ks, "quantiles": {n: quantiles(c) for n, c in found.columns.items()}}))
"""
TDIGEST = """
import json, sys, duckdb
file, shares = sys.argv[1], json.loads(sys.argv[2])
connection = duckdb.connect()
connection.execute("SET enable_progress_bar = false")
names = [row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM '{file}'").fetchall()]
chosen = ", ".join(f"approx_quantile({name}, {shares})" for name in names)
found = connection.execute(f"SELECT {chosen} FROM '{file}'").fetchone()
print(json.dumps({"bytes": 0, "ks": {}, "quantiles": dict(zip(names, found))}))
"""


def generate(file: str, rows: int, seed: int, *, changed: bool) -> None:
    """Uniform, exponential, skewed and whole numbers; ``changed`` moves or reshapes the first four."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    columns = []
    for k, name in enumerate(COLUMNS):
        u = f"((hash(i, {1000 * seed + k}) % 1000003) / 1000003.0 + 1e-7)"
        shape = [f"{u} * 100", f"-ln({u})", f"sqrt({u})", f"round({u} * 5000)"][k % 4]
        moved = {0: f"{shape} + 40", 1: f"-3 * ln({u})", 2: f"0.9 + {u} / 10", 3: f"round({u} * 200)"}
        columns.append(f"CAST({moved.get(k, shape) if changed else shape} AS DOUBLE) AS {name}")
    connection.execute(f"COPY (SELECT {', '.join(columns)} FROM range({rows}) t(i)) TO '{file}'")


def store_profile(file: str, stored: str) -> None:
    """The reference's bins."""
    from mlp_ci.data.profiles.profiling import profile_file
    from mlp_ci.spec.data import Column

    columns = {name: Column.model_validate({"type": "float"}) for name in COLUMNS}
    Path(stored).write_text(json.dumps(profile_file(Path(file), columns).to_json()), encoding="utf-8")


def errors(then: str, file: str, found: str) -> None:
    """Print the largest errors of what was told about a file: in rank, and in the KS distance to ``then``.

    The rank of a quantile is a stretch where values repeat; the error is how far the wanted rank lies outside of it.
    """
    import duckdb
    import numpy as np

    told, rank, distance = json.loads(Path(found).read_text()), 0.0, 0.0
    for name, quantiles in told["quantiles"].items():
        values, before = (np.sort(duckdb.sql(f"SELECT {name} FROM '{f}'").fetchnumpy()[name]) for f in (file, then))
        low, high = (np.searchsorted(values, quantiles, side=side) / len(values) for side in ("left", "right"))
        rank = max(rank, float(np.max(np.maximum(low - SHARES, 0) + np.maximum(np.asarray(SHARES) - high, 0))))
        every = np.concatenate([values, before])
        shares = [np.searchsorted(side, every, side="right") / len(side) for side in (values, before)]
        exact = float(np.max(np.abs(shares[0] - shares[1])))
        distance = max(distance, abs(told["ks"].get(name, exact) - exact))
    print(json.dumps([rank, distance if told["ks"] else None]))


def report(name: str, runs: list[tuple[str, Measured | None]], folder: str) -> None:
    """One line: what it costs on data like the reference, and the errors on both files."""
    wrong, first, size = [], runs[0][1], 0
    for file, done in runs:
        if done is None or first is None:
            return
        said = json.loads(done.said.splitlines()[-1])
        size = said.pop("bytes")
        Path(f"{folder}/found.json").write_text(json.dumps(said), encoding="utf-8")
        wrong.append(json.loads(child(__file__, f"errors('{folder}/then.parquet', {file!r}, '{folder}/found.json')")))
    kept = f"{size / 1024:4.0f} KB kept" if size else "nothing kept"
    ranks = " / ".join(f"{rank:.3%}" for rank, _ in wrong)
    distances = " / ".join("none" if d is None else f"{d:.3%}" for _, d in wrong)
    assert first is not None
    print(first.line(name, f"error of KS {distances}, of ranks {ranks}; {kept}"), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    shares = json.dumps(SHARES)
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        then, like, changed = (f"{folder}/{name}.parquet" for name in ("then", "like", "changed"))
        stored = f"{folder}/profile.json"
        for file, seed in ((then, 1), (like, 2), (changed, 3)):
            child(__file__, f"generate({file!r}, {rows}, {seed}, changed={file == changed})")
        child(__file__, f"store_profile({then!r}, {stored!r})")
        print(
            f"{rows:,} × {len(COLUMNS)} numbers, {setting()}; errors on data like the reference / changed", flush=True
        )
        files = (like, changed)
        ours = [(file, measure([sys.executable, "-c", OURS, file, stored, shares])) for file in files]
        report("mlp-ci: fixed bins", ours, folder)
        digests = [(file, measure([sys.executable, "-c", TDIGEST, file, shares])) for file in files]
        report("DuckDB: t-digest", digests, folder)
        python = python_of("datasketches")
        for k in (200, 800) if python else ():
            command = [str(python), str(RIVALS / "sketch_kll.py")]
            sketches = f"{folder}/kll-{k}"
            attempt("KLL", [*command, then, str(k), shares, sketches], repeats=1)
            found = [(file, attempt("KLL", [*command, file, str(k), shares, sketches])) for file in files]
            report(f"KLL sketch, k = {k}", found, folder)


if __name__ == "__main__":
    main()
