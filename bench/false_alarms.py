"""False alarms on data in which nothing drifts, and the power to see what does: 100 features, an hourly look, 30 days.

Three worlds. In `independent` every row is drawn alone. In `rhythm` all rows of an hour move together: a daily cycle, a
weekly one, and disturbances that last for hours. In `days` whole days differ at random, as weather and campaigns make
them. In none of them does anything drift: every alarm is false. Then one feature of the hundred is changed by PSI 0.2.

`python bench/false_alarms.py --models 200` is the size of the design's table (some minutes).
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtrc
from scipy.stats import norm

from mlp_ci.data.drift.calibration import SCALES, Series, Variation, nulls_of, variations_of
from mlp_ci.data.drift.decision import Decision, Measured, decide
from mlp_ci.data.drift.null_windows import MOST, RUN
from mlp_ci.data.profiles.groups import Groups
from mlp_ci.data.profiles.statistics import stability_indices
from mlp_ci.monitor.risk import risk_of_a_look
from mlp_ci.spec.model import Drift, Monitor

FEATURES = 100
GROUPS = 10
HOURS = 24
DECILES = Groups(edges=tuple(range(GROUPS - 2)))
REFERENCE_DAYS = 60
LIVE_DAYS = 30


@dataclass(frozen=True)
class World:
    """How the mean of each feature moves, in standard deviations of its rows."""

    name: str
    daily: float = 0.0
    weekly: float = 0.0
    hours: float = 0.0
    days: float = 0.0


WORLDS = (
    World("independent"),
    World("rhythm", daily=0.4, weekly=0.15, hours=0.2),
    World("days", days=0.25),
)


def movement(world: World, hours: int, rng: np.random.Generator) -> np.ndarray:
    """The mean of every feature in every hour: hours × features."""
    t = np.arange(hours)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (2, 1, FEATURES))
    mean = world.daily * np.sin(2 * np.pi * t / 24 + phase[0]) + world.weekly * np.sin(2 * np.pi * t / 168 + phase[1])
    if world.hours:
        disturbance = np.zeros((hours, FEATURES))
        shocks = rng.normal(0, world.hours * np.sqrt(1 - 0.8**2), (hours, FEATURES))
        for i in range(1, hours):
            disturbance[i] = 0.8 * disturbance[i - 1] + shocks[i]
        mean = mean + disturbance
    if world.days:
        mean = mean + np.repeat(rng.normal(0, world.days, (hours // 24 + 1, FEATURES)), 24, axis=0)[:hours]
    return mean


def shift_of(psi: float) -> float:
    """By how many standard deviations a normal must move for this PSI over the reference's deciles."""
    edges = norm.ppf(np.arange(1, GROUPS) / GROUPS)
    low, high = 0.0, 3.0
    for _ in range(60):
        middle = (low + high) / 2
        q = np.diff(np.concatenate([[0], norm.cdf(edges - middle), [1]]))
        low, high = (middle, high) if np.sum((q - 0.1) * np.log(q / 0.1)) < psi else (low, middle)
    return low


def counts_of(mean: np.ndarray, edges: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Rows in each group: hours × features × groups."""
    below = norm.cdf(edges[None] - mean[:, :, None])
    shares = np.diff(np.concatenate([np.zeros((*mean.shape, 1)), below, np.ones((*mean.shape, 1))], axis=2), axis=2)
    return rng.multinomial(rows, np.maximum(shares, 0))


def rolling(counts: np.ndarray, window: int) -> np.ndarray:
    """Sums over the last ``window`` hours, for every hour that has as many."""
    total = np.concatenate([np.zeros((1, *counts.shape[1:]), dtype=counts.dtype), np.cumsum(counts, axis=0)])
    return total[window:] - total[:-window]


@dataclass(frozen=True)
class Seen:
    """What one model's month brought: ``looks`` with an alarm, ``episodes`` of them, the naive tests' daily alarms."""

    looks: int
    episodes: int
    naive: float
    delay: int | None


def alarms_of(then: np.ndarray, windows: np.ndarray, variations: dict[int, list[Variation]], step: int) -> list[bool]:
    """Whether each look is an alarm; ``windows`` end an hour apart, and those ``step`` apart follow each other.

    All looks are measured at once, which is the same and much faster; each is decided as the monitor does.
    """
    spec = Drift.model_validate({})
    risk = risk_of_a_look(Monitor.model_validate({"schedule": "hourly"}))
    longest = (SCALES[-1] - 1) * step
    scales = {}
    for scale in SCALES:
        back = sum(windows[longest - k * step : len(windows) - k * step] for k in range(scale))
        scales[scale] = measured(then, back, variations[scale])
    earlier = [measured(then, windows[longest - step : len(windows) - step], variations[1])]
    alarms = []
    for i in range(len(windows) - longest):
        now, *more = (at(m, i) for m in scales.values())
        together = dict(zip(SCALES[1:], more, strict=True))
        before = [at(m, i) for m in earlier]
        alarms.append(Decision.DRIFTED in decide(now, before, spec, risk, together).codes)
    return alarms


def measured(then: np.ndarray, windows: np.ndarray, variations: list[Variation]) -> Measured:
    """All windows measured: windows × features entries."""
    looks, features, groups = windows.shape
    counts, many_then = windows.reshape(-1, groups).astype(float), np.tile(then, (looks, 1))
    psi = stability_indices(many_then, counts)
    nulls = nulls_of(many_then, counts, variations * looks)
    # A PSI below the usual one has a p-value above 0.05, which decides nothing: it is not worth working out.
    some = psi > nulls.mean
    part = replace(nulls, mean=nulls.mean[some], shift=nulls.shift[:, some], scale=nulls.scale[:, some])
    part = replace(part, freedom=nulls.freedom[:, some])
    p_values = np.ones_like(psi)
    p_values[some] = part.p_values(psi[some])
    shape = (looks, features)
    rows = counts.sum(axis=1).reshape(shape)
    nulls = replace(nulls, mean=nulls.mean.reshape(shape))
    return Measured(counts=windows, psi=psi.reshape(shape), nulls=nulls, p_values=p_values.reshape(shape), rows=rows)


def at(whole: Measured, i: int) -> Measured:
    """One of the windows."""
    nulls = replace(whole.nulls, mean=whole.nulls.mean[i])
    return replace(
        whole, counts=whole.counts[i], psi=whole.psi[i], p_values=whole.p_values[i], rows=whole.rows[i], nulls=nulls
    )


def month(world: World, rows: int, window: int, seed: int, *, psi: float = 0.0) -> Seen:
    """One model over a month; with ``psi`` feature 0 is changed by that much from hour 0 of the month on."""
    rng = np.random.default_rng(seed)
    before = REFERENCE_DAYS * HOURS
    mean = movement(world, before + LIVE_DAYS * HOURS, rng)
    shift = np.zeros_like(mean)
    shift[before:, 0] = shift_of(psi) if psi else 0.0
    spread = np.sqrt(1 + mean[:before].var(axis=0))
    edges = norm.ppf(np.arange(1, GROUPS) / GROUPS)[None, :] * spread[:, None] + mean[:before].mean(axis=0)[:, None]
    counts = counts_of(mean + shift * spread, edges, rows, rng)
    # What came just before the month is live as well, so that the first look has windows to look back on.
    reference, live = counts[:before], counts[before - SCALES[-1] * window + 1 :]
    then = reference.sum(axis=0).astype(float)
    whole = reference[: before // window * window].reshape(-1, window, FEATURES, GROUPS).sum(axis=1)
    # As a reference is cut: all windows while they are few, else runs of neighbours spread over the time.
    starts = range(0, len(whole) - RUN + 1, max(RUN, len(whole) // (MOST // RUN))) if len(whole) > MOST else [0]
    run = RUN if len(whole) > MOST else len(whole)
    chosen = np.concatenate([whole[start : start + run] for start in starts])
    each = [variations_of(Series(groups=DECILES, counts=chosen[:, f], run=run)) for f in range(FEATURES)]
    variations = {scale: [v[scale] for v in each] for scale in SCALES}
    alarms, naive = alarms_of(then, rolling(live, window), variations, window), 0
    shares = then / then.sum(axis=1, keepdims=True)
    for hour in counts[before:]:
        statistic = ((hour - rows * shares) ** 2 / (rows * shares)).sum(axis=1)
        naive += int((chdtrc(GROUPS - 1, statistic) <= 0.05).sum())
    flags = np.asarray(alarms)
    # Alarms less than a day apart are one: they end up in the same pull request.
    when = np.flatnonzero(flags)
    starts = int(np.count_nonzero(np.diff(when) > HOURS) + 1) if when.size else 0
    delay = int(np.argmax(flags)) + 1 if flags.any() else None
    return Seen(looks=int(flags.sum()), episodes=starts, naive=naive / LIVE_DAYS, delay=delay)


def many(world: World, models: int, given: tuple[int, int], *, psi: float = 0.0) -> list[Seen]:
    """The months of many models; ``given`` are rows an hour and hours a window."""
    rows, window = given
    seeds = range(1000, 1000 + models) if psi else range(models)
    with ProcessPoolExecutor() as pool:
        waiting = [pool.submit(month, world, rows, window, seed, psi=psi) for seed in seeds]
        return [one.result() for one in waiting]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--rows", type=int, default=250, help="rows an hour")
    parser.add_argument("--window", type=int, action="append", help="hours a window; 24 and 1, if not given")
    given = parser.parse_args()
    print(f"{FEATURES} features, an hourly look, {LIVE_DAYS} days, {given.models} models, {given.rows} rows an hour;")
    print(f"reference: {REFERENCE_DAYS} days before. Nothing drifts:")
    print("  world         window   false alarms per model-month   looks in alarm   chi-square at 0.05, per day")
    start = time.perf_counter()
    for world in WORLDS:
        for window in given.window or (24, 1):
            rows = given.rows if window >= 24 else max(600, given.rows)
            seen = many(world, given.models, (rows, window))
            episodes, looks, naive = (np.mean([getattr(s, k) for s in seen]) for k in ("episodes", "looks", "naive"))
            print(
                f"  {world.name:<12} {window:>4} h   {episodes:>20.3f}           {looks:>14.2f}   {naive:>20.0f}",
                flush=True,
            )
    print("One feature of the hundred changes by PSI 0.2; seen within two windows (must be 95 %):")
    for world in WORLDS:
        found = many(world, given.models, (given.rows, 24), psi=0.2)
        within = np.mean([s.delay is not None and s.delay <= 48 for s in found])
        hours = [s.delay for s in found if s.delay is not None]
        median = f"after {np.median(hours):.0f} h" if hours else "never"
        print(
            f"  {world.name:<12}   24 h   {within:>6.1%}   seen {median} (median), {24 * given.rows:,} rows a window",
            flush=True,
        )
    print(f"  ({time.perf_counter() - start:.0f} s)")


if __name__ == "__main__":
    main()
