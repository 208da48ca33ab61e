"""Drift of 1 M × 20 against a stored profile (at most 1.2 s; at least 10 M cells a second and core), next to rivals.

Memory must not grow with the rows, so mlp-ci is measured on four times the rows as well. NannyML and whylogs get what
they can store of the reference; DuckDB and Evidently read both sides. alibi-detect is left out: its licence, the
Business Source License, forbids production use.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import attempt, child, measure, python_of, setting

RIVALS = Path(__file__).parent / "rivals"
NUMBERS = [f"x{i}" for i in range(16)]
TEXTS = [f"c{i}" for i in range(4)]
TYPES = {**dict.fromkeys(NUMBERS, "float"), **dict.fromkeys(TEXTS, "string")}
LARGER = 4

# The processor time is that of the profile and the comparison alone: cells per second and core.
OURS = """
import json, sys, time
from pathlib import Path
from mlp_ci.data.drift.compare import Sample, compare
from mlp_ci.data.profiles.profiling import profile_file
from mlp_ci.data.drift.reference import Reference
from mlp_ci.spec.data import Column
from mlp_ci.spec.model import Drift
stored, current, types = sys.argv[1:]
columns = {n: Column(type=t) for n, t in json.loads(types).items()}
then = Reference.from_json(json.loads(Path(stored).read_text()))
start = time.process_time()
now = Sample(profile=profile_file(Path(current), columns, like=then.profile))
found = compare(then, now, Drift.model_validate({"persistence": 1}))
spent = time.process_time() - start
print(json.dumps([spent, now.profile.rows, [d.column for d in found if d.decision == "drifted"]]))
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


def store_profile(then: str, file: str) -> None:
    """What registration does once."""
    from datetime import timedelta

    from mlp_ci.data.drift.reference import reference_of
    from mlp_ci.spec.data import Data

    columns = {name: {"type": kind} for name, kind in TYPES.items()}
    data = Data.model_validate({"train": "a.csv", "test": "b.csv", "target": "y", "columns": columns})
    reference = reference_of([Path(then)], data, timedelta(days=1))
    Path(file).write_text(json.dumps(reference.to_json()), encoding="utf-8")


def rivals(job: dict[str, Any], profile: str, folder: str) -> dict[str, list[str]]:
    """Who takes part → command. What a rival can store of the reference is stored before, as ours is."""
    edges = {name: json.loads(Path(profile).read_text())["columns"][name]["edges"] for name in NUMBERS}
    script = str(RIVALS / "drift_duckdb.py")
    found = {"DuckDB histograms of both sides": [sys.executable, script, json.dumps({**job, "edges": edges})]}
    for name, home in (("NannyML", "nannyml"), ("whylogs", "whylogs"), ("Evidently", "evidently")):
        python = python_of(home)
        if not python:
            continue
        command = [str(python), str(RIVALS / f"drift_{home}.py")]
        asked = {**job, "stored": f"{folder}/{home}"}
        if home != "evidently":
            attempt(name, [*command, json.dumps({**asked, "windows": []})], repeats=1)
        found[name] = [*command, json.dumps(asked)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        then, now, more = (f"{folder}/{name}.parquet" for name in ("then", "now", "more"))
        profile = f"{folder}/profile.json"
        child(__file__, f"generate({then!r}, {rows}, 1, 0.0)")
        child(__file__, f"generate({now!r}, {rows}, 2, 40.0)")
        child(__file__, f"generate({more!r}, {LARGER * rows}, 3, 40.0)")
        child(__file__, f"store_profile({then!r}, {profile!r})")
        size = Path(profile).stat().st_size / 1024
        print(f"{rows:,} × {len(TYPES)} against a profile of {size:.0f} KB, {setting()}", flush=True)
        for name, file, many in (("mlp-ci", now, rows), (f"mlp-ci, {LARGER} × the rows", more, LARGER * rows)):
            ours = measure([sys.executable, "-c", OURS, profile, file, json.dumps(TYPES)])
            processor, _, drifted = json.loads(ours.said)
            rate = many * len(TYPES) / processor / 1e6
            print(ours.line(name, f"{told(drifted)}; {rate:.1f} M cells a second and core"), flush=True)
        print("  must be at most 1.20 s, at least 10 M cells a second and core, the same memory for any rows")
        job = {"reference": then, "windows": [now], "numbers": NUMBERS, "texts": TEXTS}
        for name, command in rivals(job, profile, folder).items():
            if done := attempt(name, command):
                print(done.line(name, said(done.said)), flush=True)


def said(text: str) -> str:
    """What a rival found in the one window."""
    flagged = json.loads(text.splitlines()[-1])[0]["flagged"]
    return "no test, no decision" if flagged is None else told(flagged)


def told(flagged: list[str]) -> str:
    """How many columns drifted, and how many of them in truth did not: the first number alone has changed."""
    wrong = len(set(flagged) - {"x0"})
    return f"{len(flagged)} drifted" + (f", {wrong} of them wrongly" if wrong else "")


if __name__ == "__main__":
    main()
