"""The command line: `python -m benchmarks.guard`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from threadpoolctl import threadpool_limits

from ..machine import about_machine, about_versions
from ..tables import add_data_option
from . import __doc__ as about
from .report import Row, equal_bits, named, summary, worst
from .rounding import Rounding, Table
from .rules import RULES, models
from .suite import LARGE, NAMED, QUICK, suite

_ALL_BITS, _FEW_BITS = (2, 3, 4, 5, 6), (3, 4, 5)
# Eight decompositions and 82 models of each: too slow for wide tables.
_SLOW, _SLOW_VALUES = "validation", 2_000_000


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard", description=about.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="a few tables and seeds: a minute")
    add_data_option(parser)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--figure", type=Path, help="draw it to this SVG")
    arguments = parser.parse_args()
    print(f"{about_machine()}, one thread\n{about_versions()}\n")
    began = time.perf_counter()
    with threadpool_limits(1):
        rows = list(measure(arguments.data, arguments.seeds, quick=arguments.quick))
    print_report(rows)
    print(f"\n{time.perf_counter() - began:.0f} s, {arguments.seeds} seeds")
    if arguments.figure is not None:
        from .figure import draw

        draw(rows, arguments.figure)
        print(f"wrote {arguments.figure}")


def measure(data: Path | None, seeds: int, *, quick: bool) -> Iterator[Row]:
    """All tables, precisions, kinds of levels."""
    for name, make in suite(data).items():
        if quick and name not in QUICK:
            continue
        table, large = Table(*make()), name in LARGE
        count = min(seeds, 3) if quick or large else seeds
        bits = _FEW_BITS if quick or large else _ALL_BITS
        rules = list(RULES)
        if quick or table.rows * table.columns > _SLOW_VALUES:
            rules.remove(_SLOW)
        for levels in ("optimal",) if quick or large else ("optimal", "uniform"):
            for samples in (2, 1):
                for b in bits:
                    yield measure_case(name, table, b, samples, levels, count, rules)
        print(f"{name}: {table.rows:,} x {table.columns}", file=sys.stderr, flush=True)


def measure_case(
    name: str, table: Table, bits: int, samples: int, levels: str, seeds: int, rules: list[str]
) -> Row:
    """One table at one precision."""
    rounding = Rounding(table, bits, samples, levels)
    excess: dict[str, list[float]] = {}
    for seed in range(seeds):
        draw = rounding.draw(seed)
        for rule, model in models(draw, rules).items():
            excess.setdefault(rule, []).append(draw.excess(model))
    return Row(name, levels, bits, samples, excess)


def print_report(rows: list[Row]) -> None:
    """All tables of numbers."""
    further = [r for r in rows if r.table not in NAMED and r.levels == "optimal"]
    few = [r for r in further if r.bits in _FEW_BITS]
    tables = len({r.table for r in further})
    parts = [named(rows)]
    for samples in (2, 1):
        chosen = [r for r in few if r.samples == samples]
        head = f"{tables} further tables, 3 to 5 bits x {samples}, levels fitted: loss over the"
        parts.append(summary(chosen, f"{head} better of naive, full and split [%]"))
        parts.append(worst(chosen, "least risk"))
    for levels in ("optimal", "uniform"):
        chosen = [r for r in rows if r.levels == levels and r.table not in LARGE]
        if chosen:
            parts.append(
                summary(
                    chosen, f"all tables but {' and '.join(LARGE)}, all bits and samples, {levels}"
                )
            )
            parts.append(worst(chosen, "least risk", 5))
    parts.append(equal_bits(rows))
    print("\n\n".join(parts))


if __name__ == "__main__":
    main()
