"""Convergence: double sampling in the paper's form and in ours, beside naive and full precision."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from zipml_ooc import TrainOptions, train

from .runs import Source, made_sources, median_excess, real_sources
from .text import Claim, Findings

__all__ = ["ESTIMATORS", "measure"]

FULL = "full precision"
PAPER, OURS, NAIVE = "double, split", "double, mean", "naive"
ESTIMATORS: dict[str, tuple[int, dict[str, object]]] = {
    PAPER: (2, {"sampling": "double", "double_form": "split", "shrinkage": 1.0}),
    OURS: (2, {"sampling": "double"}),
    NAIVE: (1, {"sampling": "naive"}),
}
"""Samples stored, and options of the run."""

_BATCH = 64
_NEAR = 0.01


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """One table of losses for all sets, bits, estimators and lengths of the run."""
    widths, lengths = ((10, 100), (1, 5, 20)) if quick else ((10, 100, 1000), (1, 2, 5, 10, 20, 50))
    all_bits, seeds = ((3, 5), 1) if quick else ((3, 5), 3)
    findings = Findings(
        "Convergence: loss over the optimum, less 1 [%], after a run of so many epochs",
        "squared loss on the original values, mini-batches of 64 rows, equally spaced levels as\n"
        f"in the paper, schedule and averaging by default, medians of {seeds} roundings.\n"
        f"'{PAPER}': the paper's estimator, no guard; '{OURS}': ours, with it; '{NAIVE}': one\n"
        "sample of as many bits. A run that the divergence guard stopped: -",
        {"table": "", "bits": "d", "estimator": "", **dict.fromkeys(map(str, lengths), ".3f")},
    )
    with ExitStack() as stack:
        sources = stack.enter_context(real_sources(data))
        sources += stack.enter_context(made_sources(widths, 2000 if quick else 10_000))
        for source in sources:
            plain = partial(full, source, step_size(source))
            findings.rows.append(_row(source, 32, FULL, lengths, plain))
            for bits in all_bits:
                for name in ESTIMATORS:
                    run = _runner(source, bits, name, seeds)
                    findings.rows.append(_row(source, bits, name, lengths, run))
    findings.claims.extend(_claims(findings, [s.name for s in sources], all_bits, lengths))
    return [findings]


def _row(
    source: Source, bits: int, name: str, lengths: tuple[int, ...], run: Callable[[int], float]
) -> tuple[str | int | float, ...]:
    return (source.name, bits, name, *(100 * run(epochs) for epochs in lengths))


def _runner(source: Source, bits: int, name: str, seeds: int) -> Callable[[int], float]:
    samples, options = ESTIMATORS[name]

    def run(epochs: int) -> float:
        chosen = [
            TrainOptions(epochs=epochs, arithmetic="float", seed=seed, **options)  # type: ignore[arg-type]
            for seed in range(seeds)
        ]
        return median_excess(
            [source.excess(source.copy(bits, samples, "uniform", o.seed), o) for o in chosen]
        )

    return run


def step_size(source: Source) -> float:
    """What a run at 8 bits takes from the data."""
    record = train(source.copy(8, 1, "uniform"), TrainOptions(epochs=1), threads=1).model.record
    return float(record["step_size"])


def full(source: Source, first_step: float, epochs: int) -> float:
    """Excess of the same SGD on float64 rows: linear schedule, average of the second half."""
    x, y = source.table.x, source.table.y
    rng = np.random.default_rng(0)
    starts = np.arange(0, len(x), _BATCH)
    steps, done = epochs * len(starts), 0
    model, intercept = np.zeros(x.shape[1]), 0.0
    mean_model, mean_intercept, averaged = np.zeros_like(model), 0.0, 0
    for _ in range(epochs):
        for start in rng.permutation(starts):
            at = done / steps
            step = first_step * (1.0 if at < 0.5 else 1 - (2 * at - 1) * 0.95)
            rows = x[start : start + _BATCH]
            residual = rows @ model + intercept - y[start : start + _BATCH]
            model = model - step * (residual @ rows) / len(rows)
            intercept -= step * float(residual.mean())
            done += 1
            if 2 * done > steps:
                averaged += 1
                mean_model += (model - mean_model) / averaged
                mean_intercept += (intercept - mean_intercept) / averaged
    residual = x @ mean_model + mean_intercept - y
    return 0.5 * float(np.mean(residual**2)) / source.table.least - 1


def _claims(
    findings: Findings, names: list[str], all_bits: tuple[int, ...], lengths: tuple[int, ...]
) -> list[Claim]:
    last = str(lengths[-1])

    def end(table: str, bits: int, estimator: str, at: str = last) -> float:
        (row,) = findings.where(table=table, bits=bits, estimator=estimator)
        return float(row[at])

    most = max(all_bits)
    claims = []
    for estimator in (PAPER, OURS):
        gaps = {n: end(n, most, estimator) - end(n, 32, FULL) for n in names}
        good = [n for n, gap in gaps.items() if gap <= 100 * _NEAR]
        claims.append(
            Claim(
                f"with {most} bits, {estimator} ends within {_NEAR:.0%} of full precision",
                len(good) == len(names),
                f"on {len(good)} of {len(names)}; gaps {_listed(gaps)} %",
            )
        )
    least = min(all_bits)
    for estimator in (PAPER, OURS):
        ratios = {n: end(n, least, NAIVE) / end(n, least, estimator) for n in names}
        good = [n for n, ratio in ratios.items() if ratio > 1]
        claims.append(
            Claim(
                f"with {least} bits, naive ends further from the optimum than {estimator}",
                len(good) == len(names),
                f"on {len(good)} of {len(names)}; times the excess {_listed(ratios)}",
            )
        )
    at = str(lengths[len(lengths) // 2])
    gaps = {n: end(n, most, OURS, at) - end(n, 32, FULL, at) for n in names}
    good = [n for n, gap in gaps.items() if gap <= 100 * _NEAR]
    claims.append(
        Claim(
            f"with {most} bits, {OURS} is as fast: within {_NEAR:.0%} after {at} epochs too",
            len(good) == len(names),
            f"on {len(good)} of {len(names)}; gaps {_listed(gaps)} %",
        )
    )
    return claims


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in values.items())
