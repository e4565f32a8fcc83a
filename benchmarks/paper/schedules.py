"""Any precision from one copy: schedules of bits beside fixed ones, in bytes read."""

from __future__ import annotations

import math
import statistics
from contextlib import ExitStack
from pathlib import Path

from ..weaved import WAYS, WITHIN, reached
from .runs import made_sources, median_excess, real_sources
from .text import Claim, Findings

__all__ = ["measure"]


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """All ways of reading a weaved copy of each table, as `benchmarks.weaved` measures them."""
    seeds = 1 if quick else 5
    ways = ("2", "4", "8", "2:4:8", "auto") if quick else WAYS
    findings = Findings(
        f"Weaved copies: bytes read until the loss is within {WITHIN - 1:.0%} of the optimum",
        "one copy of 8 bits, one sample, equally spaced levels; the shortest of the runs of 2 to\n"
        f"64 epochs that gets there, bytes of X read without a cache; medians of {seeds} seeds.\n"
        "last: loss over the optimum, less 1 [%], of the shortest run, or of 64 epochs",
        {"table": "", "bits": "", "kB": ".1f", "epochs": ".0f", "last": ".2f"},
    )
    with ExitStack() as stack:
        sources = stack.enter_context(real_sources(data))
        sources += stack.enter_context(made_sources((100,), 2000 if quick else 10_000))
        for source in sources:
            table = source.table
            for way in ways:
                runs = [
                    reached(source.weaved(seed), way, table.x, table.y, table.least)
                    for seed in range(seeds)
                ]
                size = median_excess([math.nan if r[0] is None else r[0] / 1e3 for r in runs])
                epochs = median_excess([math.nan if r[1] is None else float(r[1]) for r in runs])
                last = 100 * statistics.median(run[2] for run in runs)
                findings.rows.append((source.name, way, size, epochs, last))
    findings.claims.extend(_claims(findings, [s.name for s in sources]))
    return [findings]


def _claims(findings: Findings, names: list[str]) -> list[Claim]:
    least: dict[str, tuple[float, float]] = {}
    for name in names:
        size = {str(r["bits"]): float(r["kB"]) for r in findings.where(table=name)}
        reaching = {way: kilobytes for way, kilobytes in size.items() if not math.isnan(kilobytes)}
        fixed, rising = (
            min((b for way, b in reaching.items() if way.isdigit() is kind), default=math.nan)
            for kind in (True, False)
        )
        least[name] = fixed, rising
    eight = {n: float(findings.where(table=n, bits="8")[0]["kB"]) for n in names}
    return [
        Claim(
            "the best schedule reads fewer bytes than 8 bits throughout",
            all(least[n][1] < eight[n] for n in names),
            ", ".join(f"{n} {least[n][1]:.1f} and {eight[n]:.1f} kB" for n in names),
        ),
        Claim(
            "the best schedule reads fewer bytes than the best fixed precision",
            all(least[n][1] < least[n][0] for n in names),
            ", ".join(f"{n} {least[n][1]:.1f} and {least[n][0]:.1f} kB" for n in names),
        ),
    ]
