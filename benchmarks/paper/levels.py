"""Optimal levels: how close the histogram comes to the exact solver, and how long both take."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from zipml_codecs import LevelHistograms, optimal_levels
from zipml_codecs.reference_levels import variance

from ..kernels.timing import seconds
from .text import Claim, Findings

__all__ = ["columns", "measure"]

LEVELS = (4, 16, 64)
FAR = "outliers at 1e4"
_MOST_RATIO, _MOST_MS, _MOST_SECONDS = 1.002, 10.0, 1.2


def columns(rows: int) -> Iterator[tuple[str, np.ndarray]]:
    """Columns of float32 values of every shape, by name."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(rows)
    bimodal = np.where(rng.random(rows) < 0.3, -4 + 0.5 * z, 3 + z)
    outliers, far = z.copy(), z.copy()
    outliers[:20] = 100 * rng.standard_normal(20)
    far[:5] = 1e4
    shapes = {
        "normal": z,
        "lognormal 1": np.exp(z),
        "lognormal 2": np.exp(2 * z),
        "bimodal": bimodal,
        "normal, ties": np.round(z, 2),
        "lognormal 1, ties": np.round(np.exp(z), 1),
        "bimodal, ties": np.round(bimodal, 2),
        "outliers at 100": outliers,
        FAR: far,
    }
    for name, values in shapes.items():
        yield name, values.astype(np.float32)


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """Every shape and number of levels."""
    rows = 50_000 if quick else 1_000_000
    findings = Findings(
        f"Optimal levels of a column of {rows:,} values",
        "summed variance of stochastic rounding over that of the exact optimum; the sigma of the\n"
        "logarithm and the outliers' place in standard deviations stand in the names; time of the\n"
        "process, the histogram's levels with the histogram given (medians of five)",
        {
            "values": "",
            "levels": "d",
            "uniform": ",.2f",
            "4096 bins": ",.5f",
            "default bins": ",.5f",
            "2**20 bins": ",.5f",
            "default [ms]": ".2f",
            "exact [s]": ".3f",
        },
    )
    for name, values in columns(rows):
        histograms = [_histogram(values, bins) for bins in (4096, None, 2**20)]
        wide = values.astype(np.float64)
        for count in LEVELS:
            began = time.process_time()
            exact = optimal_levels(wide, count)
            exact_seconds = time.process_time() - began
            best = variance(wide, exact)
            uniform = variance(wide, np.linspace(wide.min(), wide.max(), count)) / best
            ratios = [variance(wide, h.levels(count)[0]) / best for h in histograms]
            default = histograms[1]
            taken = statistics.median(
                seconds(lambda h=default, n=count: h.levels(n), time.process_time) for _ in range(5)
            )
            findings.rows.append((name, count, uniform, *ratios, 1e3 * taken, exact_seconds))
    findings.claims.extend(_claims(findings))
    return [findings]


def _histogram(values: np.ndarray, bins: int | None) -> LevelHistograms:
    histogram = LevelHistograms(1, bins)
    histogram.add(values[:, None])
    histogram.contents()  # adds up what is counted, which is not what finding levels costs
    return histogram


def _claims(findings: Findings) -> list[Claim]:
    rows = findings.where()
    near = max(r["default bins"] for r in rows if r["values"] != FAR)
    far = max(r["default bins"] for r in findings.where(values=FAR))
    most_bins = max(r["2**20 bins"] for r in findings.where(values=FAR))
    claims = [
        Claim(
            f"within {_MOST_RATIO} of the optimum, but for {FAR}",
            near <= _MOST_RATIO,
            f"{near:.5f}",
        ),
        Claim(
            f"within {_MOST_RATIO} of the optimum with {FAR}",
            far <= _MOST_RATIO,
            f"{far:.3f} with default bins, {most_bins:.3f} with 2**20",
        ),
    ]
    slowest = max(r["default [ms]"] for r in rows if r["levels"] == 16)
    claims.append(
        Claim(
            f"16 levels from a histogram in {_MOST_MS:g} ms",
            slowest <= _MOST_MS,
            f"{slowest:.1f} ms",
        )
    )
    for count in LEVELS:
        longest = max(r["exact [s]"] for r in rows if r["levels"] == count)
        claims.append(
            Claim(
                f"{count} levels exactly in {_MOST_SECONDS} s",
                longest <= _MOST_SECONDS,
                f"{longest:.2f} s",
            )
        )
    return claims
