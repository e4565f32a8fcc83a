"""The tables of the study, as text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from .suite import NAMED

__all__ = ["Row", "equal_bits", "named", "summary", "worst"]


@dataclass(frozen=True)
class Row:
    """Excess losses of each rule over the seeds, for one table, precision and kind of levels."""

    table: str
    levels: str
    bits: int
    samples: int
    excess: dict[str, list[float]]

    def median(self, rule: str) -> float:
        """Median excess loss over the seeds."""
        return float(np.median(self.excess[rule]))

    def worse(self, rule: str, than: Sequence[str] = ("naive", "full", "split")) -> float:
        """Loss of a rule over that of the best of these, by medians, less 1."""
        best = min(self.median(name) for name in than if name in self.excess)
        return (1 + self.median(rule)) / (1 + best) - 1


def percent(value: float) -> str:
    """Three digits or so, and no more than six characters before the point."""
    share = 100 * value
    return f"{share:.3g}" if abs(share) >= 1e4 else f"{share:.{3 if abs(share) < 10 else 1}f}"


def summary(rows: Iterable[Row], title: str) -> str:
    """How much worse each rule is than the better of its ends, over all rows."""
    chosen = list(rows)
    rules = list(dict.fromkeys(name for row in chosen for name in row.excess))
    lines = [
        title,
        f"  {'rule':<20}{'median':>9}{'90 %':>9}{'worst':>10}   {'>0.3 %':>7}{'>1 %':>7}"
        f"{'better by 0.3 %':>17}   in how many of the cases",
    ]
    for rule in rules:
        found = np.array([row.worse(rule) for row in chosen if rule in row.excess])
        lines.append(
            f"  {rule:<20}{percent(np.median(found)):>9}{percent(np.percentile(found, 90)):>9}"
            f"{percent(found.max()):>10}   {np.mean(found > 0.003):>7.1%}"
            f"{np.mean(found > 0.01):>7.1%}{np.mean(found < -0.003):>17.1%}   of {len(found)}"
        )
    return "\n".join(lines)


def worst(rows: Iterable[Row], rule: str, count: int = 8) -> str:
    """The cases in which a rule does worst."""
    ordered = sorted((r for r in rows if rule in r.excess), key=lambda r: -r.worse(rule))[:count]
    lines = [f"Where {rule!r} does worst: loss over the better of naive, full and split [%]"]
    for row in ordered:
        shown = ("naive", "full", "split", rule, "oracle")
        ends = ", ".join(f"{n} {percent(row.median(n))}" for n in shown if n in row.excess)
        lines.append(
            f"  {percent(row.worse(rule)):>7}  {row.table}, {row.bits} bits x {row.samples}, "
            f"{row.levels}: excess {ends}"
        )
    return "\n".join(lines)


def named(rows: Iterable[Row]) -> str:
    """Medians (and worst seeds) for the two tables that everybody knows."""
    rules = ("naive", "full", "split", "margin 5", "least risk", "lifted", "oracle")
    lines = ["Excess loss [%], median (worst seed), levels fitted", ""]
    lines.append(f"  {'table':<10}{'bits':>5}{'samples':>8}" + "".join(f"{r:>20}" for r in rules))
    for row in rows:
        if row.table not in NAMED or row.levels != "optimal":
            continue
        cells = ""
        for rule in rules:
            cell = "-"
            if rule in row.excess:
                cell = f"{percent(row.median(rule))} ({percent(max(row.excess[rule]))})"
            cells += f"{cell:>20}"
        lines.append(f"  {row.table:<10}{row.bits:>5}{row.samples:>8}{cells}")
    return "\n".join(lines)


def equal_bits(rows: Iterable[Row], rule: str = "least risk") -> str:
    """One sample of b + 1 bits beside two samples of b bits: the same size on disk."""
    found = {(r.table, r.bits, r.samples): r for r in rows if r.levels == "optimal"}
    stored = sorted({bits for _, bits, samples in found if samples == 1})
    stored = [b for b in stored if any(k[1:] == (b - 1, 2) for k in found)]
    tables = list(dict.fromkeys(name for name, _, _ in found))
    lines = [
        "Excess loss [%] at the same stored bits, levels fitted: one sample with the guarded",
        "correction / two samples with it / two samples as in the paper",
        f"  {'table':<18}" + "".join(f"{f'{b} stored bits':>26}" for b in stored),
    ]
    wins = np.zeros((len(stored), 3), int)
    worse = []
    for table in tables:
        cells = ""
        for i, bits in enumerate(stored):
            one, two = found.get((table, bits, 1)), found.get((table, bits - 1, 2))
            if one is None or two is None:
                cells += f"{'-':>26}"
                continue
            mine, guarded, paper = one.median(rule), two.median(rule), two.median("split")
            cells += f"{' / '.join(map(percent, (mine, guarded, paper))):>26}"
            wins[i] += (1, mine <= guarded, mine <= paper)
            worse.append((1 + mine) / (1 + min(one.median("naive"), paper)) - 1)
        lines.append(f"  {table:<18}{cells}")
    counts = "; ".join(
        f"{b} bits: {w[1]} and {w[2]} of {w[0]}" for b, w in zip(stored, wins, strict=True)
    )
    lines.append(f"  one sample is at least as good as the other two on  {counts}")
    lines.append(
        "  its loss over the better of naive and the paper's, median, 90 %, worst [%]:  "
        + ", ".join(percent(np.percentile(worse, p)) for p in (50, 90, 100))
    )
    return "\n".join(lines)
