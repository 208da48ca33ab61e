"""How long the policy takes to decide (at most 1 ms) over random pull requests, and where an oracle differs (0)."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlp_ci.promote.case import Case, Verdict

SEED = 4
COUNT = 100_000
BATCH = 1_000  # cases that are held at once, so that the garbage collector has nothing to do with the figure


def main() -> None:
    """Decide COUNT cases, and print the times and the differences."""
    from tests.histories import histories

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=COUNT, help=f"how many pull requests (default {COUNT:,})")
    count = options.parse_args().count
    cases = histories(SEED, count)
    times: list[float] = []
    allowed, different = 0, 0
    while batch := list(islice(cases, BATCH)):
        verdicts = list(_timed(batch, times))
        allowed += sum(v.allowed for v in verdicts)
        different += sum(map(_differs, batch, verdicts))
    times.sort()
    median, p99 = statistics.median(times), times[int(len(times) * 0.99)]
    print(f"policy: median {median:.2f} ms, p99 {p99:.2f} ms, mean {statistics.fmean(times):.2f} ms a decision", end="")
    print(f"   must be ≤ 1 ms ({count:,} pull requests, {allowed / count:.0%} of them allowed)")
    print(f"policy: {different} differences to the oracle   must be 0")


def _timed(cases: list[Case], times: list[float]) -> Iterator[Verdict]:
    from mlp_ci.promote.policy import decide

    clock = time.thread_time  # it waits for nothing, so what else the machine does is no part of the figure
    for case in cases:
        began = clock()
        verdict = decide(case)
        times.append((clock() - began) * 1000)
        yield verdict


def _differs(case: Case, verdict: Verdict) -> bool:
    from tests.histories import differences
    from tests.oracle import opinion

    return bool(differences(verdict, opinion(case)))


if __name__ == "__main__":
    main()
