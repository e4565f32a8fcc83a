"""Optimal against uniform levels: variance, loss, and bytes moved until the loss is near."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from zipml_ooc import TrainOptions

from .convergence import ESTIMATORS, PAPER
from .runs import STAND_INS, Source, median_excess, real_sources
from .text import Claim, Findings

__all__ = ["WAYS", "measure"]

ONE, GRAM = "corrected", "corrected, gram"
WAYS = {
    **ESTIMATORS,
    ONE: (1, {"sampling": "corrected"}),
    GRAM: (1, {"sampling": "corrected", "solver": "gram"}),
}
_WITHIN, _GOAL = 0.01, 1.7
_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 30, 40, 60, 100, 200)


@dataclass(frozen=True)
class Moved:
    """The cheapest way to get near the optimum."""

    size: float
    bits: int
    epochs: int


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """Variance and loss by bits, then bytes over all bits."""
    seeds = 1 if quick else 5
    with real_sources(data, *(() if quick or data is None else STAND_INS)) as sources:
        ways = (PAPER, ONE, GRAM) if quick else tuple(WAYS)
        lengths = (1, 2, 4, 8) if quick else _LENGTHS
        return [losses(sources, seeds, 20 if quick else None), moved(sources, seeds, ways, lengths)]


def losses(sources: list[Source], seeds: int, epochs: int | None) -> Findings:
    """What the levels do to variance and loss, at the same bits."""
    findings = Findings(
        "Levels: rounding variance, and loss over the optimum, less 1 [%], at the same bits",
        "V: variance of one rounding, summed over columns of variance 1; loss after\n"
        f"{epochs or 'the default'} epochs, medians of {seeds} roundings; '{PAPER}' is the\n"
        "paper's estimator, no guard",
        {
            "table": "",
            "bits": "d",
            "V uniform": ".3f",
            "V optimal": ".3f",
            **{f"{way}, {kind}": ".2f" for way in (PAPER, ONE) for kind in ("uniform", "optimal")},
        },
    )
    for source in sources:
        for bits in (2, 3, 4, 5):
            kinds = ("uniform", "optimal")
            variance = [float(source.copy(bits, 1, k).spec.variance.sum()) for k in kinds]
            found = [
                100
                * median_excess([_run(source, way, bits, kind, s, epochs) for s in range(seeds)])
                for way in (PAPER, ONE)
                for kind in kinds
            ]
            findings.rows.append((source.name, bits, *variance, *found))
    ratios = [r["V uniform"] / r["V optimal"] for r in findings.where()]  # type: ignore[operator]
    findings.claims.append(
        Claim(
            "optimal levels have less variance at the same bits, on every table",
            min(ratios) > 1,
            f"{min(ratios):.1f} to {max(ratios):.1f} times less",
        )
    )
    return findings


def _run(source: Source, way: str, bits: int, levels: str, seed: int, epochs: int | None) -> float:
    samples, options = WAYS[way]
    passes = {} if way == GRAM else {"epochs": epochs, "arithmetic": "float"}
    run = TrainOptions(seed=seed, **passes, **options)  # type: ignore[arg-type]
    return source.excess(source.copy(bits, samples, levels, seed), run)


def near(source: Source, way: str, bits: int, levels: str, seeds: int, epochs: int) -> bool:
    """Whether the median over the seeds ends near; no more runs than that takes."""
    close = far = 0
    for seed in range(seeds):
        reached = _run(source, way, bits, levels, seed, epochs) <= _WITHIN
        close, far = close + reached, far + (not reached)
        if 2 * max(close, far) > seeds:
            break
    return close > far


def moved(
    sources: list[Source], seeds: int, ways: tuple[str, ...], lengths: tuple[int, ...]
) -> Findings:
    """The least bytes over all bits, by estimator and kind of levels."""
    findings = Findings(
        f"Bytes moved until the loss is within {_WITHIN:.0%} of the optimum",
        "stored bytes of X (codes, tables of levels) times the epochs of the shortest run that\n"
        f"ends there in the median of {seeds} roundings; the cheapest of 1 to 8 bits (two samples\n"
        "store one bit more). Not counted: the target, the passes that choose the step and score\n"
        f"the model, runs that start again. Up to {lengths[-1]} epochs were tried.\n"
        "ratio: uniform over optimal, '-' where one of them does not get there",
        {
            "table": "",
            "estimator": "",
            "uniform [kB]": ".1f",
            "bits": "",
            "epochs": "",
            "optimal [kB]": ".1f",
            "bits ": "",
            "epochs ": "",
            "ratio": ".2f",
        },
    )
    for source in sources:
        for way in ways:
            kinds = ("uniform", "optimal")
            uniform, optimal = (cheapest(source, way, k, seeds, lengths) for k in kinds)
            cells: list[str | float] = []
            for best in (uniform, optimal):
                cells += (
                    [math.nan, "-", "-"]
                    if best is None
                    else [best.size / 1e3, str(best.bits), str(best.epochs)]
                )
            ratio = uniform.size / optimal.size if uniform and optimal else math.nan
            findings.rows.append((source.name, way, *cells, ratio))
    for way in ways:
        rows = findings.where(estimator=way)
        good = [r for r in rows if float(r["ratio"]) >= _GOAL]
        findings.claims.append(
            Claim(
                f"{way}: at least {_GOAL} times fewer bytes with optimal levels on two tables",
                len(good) >= 2,
                ", ".join(f"{r['table']} {float(r['ratio']):.2f}" for r in rows),
            )
        )
    return findings


def cheapest(
    source: Source, way: str, levels: str, seeds: int, lengths: tuple[int, ...]
) -> Moved | None:
    """Search all bits; runs that could not be cheaper than the best so far are left out."""
    best: Moved | None = None
    samples = WAYS[way][0]
    for bits in range(1, 9 if samples == 1 else 8):
        # Of one bit there are two levels, the ends, whatever they are called.
        kind = "uniform" if bits == 1 else levels
        size = source.copy(bits, samples, kind, 0).stored_bytes
        for epochs in lengths if way != GRAM else (1,):
            if best is not None and size * epochs >= best.size:
                break
            if near(source, way, bits, kind, seeds, epochs):
                best = Moved(size * epochs, bits, epochs)
                break
    return best
