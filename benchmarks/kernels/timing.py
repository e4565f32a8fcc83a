"""Times taken in pairs."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..machine import caches

ALLOWED = frozenset(os.sched_getaffinity(0))
LARGEST = 1 << 30
"""Bytes of the float32 table at most, so that all tables stay below 4 GB."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: seconds for each comparison, and the bounds of its rounds."""

    seconds: float
    least: int
    most: int


FULL = Effort(seconds=0.6, least=3, most=11)
QUICK = Effort(seconds=0.25, least=3, most=5)


@dataclass(frozen=True)
class Paired:
    """Times of two functions that took turns. `ratio`: how many times as fast as the base."""

    ratio: float
    lowest: float
    highest: float
    seconds: float
    base_seconds: float
    rounds: int


def paired(
    run: Callable[[], Any],
    base: Callable[[], Any],
    effort: Effort,
    clock: Callable[[], float] = time.process_time,
    before: Callable[[], Any] = lambda: None,
) -> Paired:
    """Take turns; the first turn warms up and tells how many there is time for.

    On one core the time of the process (all its threads) is the time on the clock, less what other
    programs take of the core. What runs on two cores needs `time.perf_counter`. `before` runs
    ahead of each timed call: where neither of the two empties the caches of what the other one
    reads, it has to.
    """

    def timed(function: Callable[[], Any]) -> float:
        before()
        return seconds(function, clock)

    first = seconds(base) + seconds(run)
    rounds = max(effort.least, min(effort.most, int(effort.seconds / first)))
    turns = [(timed(base), timed(run)) for _ in range(rounds)]
    ratios = [base_time / own_time for base_time, own_time in turns]
    return Paired(
        ratio=statistics.median(ratios),
        lowest=min(ratios),
        highest=max(ratios),
        seconds=statistics.median(own for _, own in turns),
        base_seconds=statistics.median(base_time for base_time, _ in turns),
        rounds=rounds,
    )


def seconds(run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """How long one call takes."""
    began = clock()
    run()
    return clock() - began


def fastest(runs: dict[str, Callable[[], Any]], turns: int = 6) -> str:
    """The name of the run with the shortest time, the runs taking turns."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(turns):
        for name, run in runs.items():
            best[name] = min(best[name], seconds(run, time.process_time))
    return min(best, key=lambda name: best[name])


@contextmanager
def cores(count: int) -> Iterator[int]:
    """Keep this thread, and those it starts, on at most `count` cores; yields how many."""
    before = os.sched_getaffinity(0)
    chosen = set(sorted(ALLOWED, reverse=True)[:count])
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen)
    finally:
        os.sched_setaffinity(0, before)


def table_bytes() -> int:
    """Bytes of a float32 table five times larger than the last-level cache, within bounds."""
    largest_cache = max(caches().values(), default=32 << 20)
    return min(5 * largest_cache, LARGEST)
