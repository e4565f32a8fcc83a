"""End to end: samples, model and what replicas send, rounded one by one and together."""

from __future__ import annotations

import math
from contextlib import ExitStack
from pathlib import Path

from zipml_ooc import TrainOptions

from .runs import Source, made_sources, median_excess, real_sources
from .text import Claim, Findings

__all__ = ["CHANNELS", "measure"]

CHANNELS = (
    (8, 32, 32),
    (8, 16, 32),
    (8, 8, 32),
    (8, 32, 8),
    (8, 32, 4),
    (8, 8, 8),
    (4, 32, 32),
    (4, 8, 8),
    (4, 8, 4),
    (3, 8, 8),
)
"""Bits of the sample, of the model and residuals, and of what a replica sends."""

_REPLICAS, _WITHIN, _SLOWER = 4, 0.01, 1.1
_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 30, 40, 60, 100)
_QUICK_LENGTHS = 6


def measure(data: Path | None, quick: bool) -> list[Findings]:
    """Every combination on every table."""
    seeds, epochs = (1, 20) if quick else (5, 40)
    lengths = _LENGTHS[:_QUICK_LENGTHS] if quick else _LENGTHS
    findings = Findings(
        "End to end: loss over the optimum, less 1 [%], and epochs until it is within 1 %",
        f"{_REPLICAS} replicas, one stored sample, levels and sampling by default; the loss after\n"
        f"{epochs} epochs, and the shortest run that ends within 1 %; medians of {seeds} seeds.\n"
        f"32: not rounded; epochs '-': no run up to {lengths[-1]}",
        {
            "table": "",
            "sample": "d",
            "model": "d",
            "gradient": "d",
            "excess": ".3f",
            "epochs": ".0f",
        },
    )
    with ExitStack() as stack:
        sources = stack.enter_context(real_sources(data))
        sources += stack.enter_context(made_sources((100,), 2000 if quick else 10_000))
        chosen = [c for c in CHANNELS if not quick or c[0] != 8 or c[1:] in ((32, 32), (8, 8))]
        for source in sources:
            for channels in chosen:
                excess = 100 * _excess(source, channels, seeds, epochs)
                reached = _epochs(source, channels, seeds, lengths)
                findings.rows.append((source.name, *channels, excess, reached))
    findings.claims.extend(_claims(findings, [s.name for s in sources]))
    return [findings]


def _excess(source: Source, channels: tuple[int, int, int], seeds: int, epochs: int) -> float:
    sample, model, gradient = channels
    return median_excess(
        [
            source.excess(
                source.copy(sample, seed=seed),
                TrainOptions(
                    epochs=epochs,
                    model_bits=model,
                    gradient_bits=gradient,
                    replicas=_REPLICAS,
                    seed=seed,
                ),
            )
            for seed in range(seeds)
        ]
    )


def _epochs(
    source: Source, channels: tuple[int, int, int], seeds: int, lengths: tuple[int, ...]
) -> float:
    for epochs in lengths:
        if _excess(source, channels, seeds, epochs) <= _WITHIN:
            return float(epochs)
    return math.nan


def _claims(findings: Findings, names: list[str]) -> list[Claim]:
    claims = []
    for channels in ((8, 8, 8), (4, 8, 8), (3, 8, 8)):
        sample, model, gradient = channels
        ends = {
            name: float(row["excess"])
            for name in names
            for row in findings.where(table=name, sample=sample, model=model, gradient=gradient)
        }
        claims.append(
            Claim(
                f"{sample}, {model}, {gradient} bits end within {_WITHIN:.0%} of the optimum",
                all(end <= 100 * _WITHIN for end in ends.values()),
                ", ".join(f"{name} {end:.3f} %" for name, end in ends.items()),
            )
        )
    plain = {r["table"]: r["epochs"] for r in findings.where(sample=8, model=32, gradient=32)}
    ours = {r["table"]: r["epochs"] for r in findings.where(sample=8, model=8, gradient=8)}
    claims.append(
        Claim(
            f"8 bits on all channels take at most {_SLOWER} times the epochs of 8, 32, 32",
            all(float(ours[n]) <= _SLOWER * float(plain[n]) for n in names),
            ", ".join(f"{n} {float(ours[n]):.0f} and {float(plain[n]):.0f}" for n in names),
        )
    )
    return claims
