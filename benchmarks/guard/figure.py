"""Draw docs/figures/guard.svg: how far each rule ends from the better of its ends."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from .report import Row

__all__ = ["draw"]

SHOWN = {
    "naive": "#c44e52",
    "full": "#b5b5b5",
    "split": "#8172b3",
    "margin 5": "#dd8452",
    "least risk": "#4c72b0",
    "lifted": "#55a868",
}
LABELS = {"split": "split, as in the paper", "margin 5": "spectral margin", "least risk": "guard"}
_FLOOR, _MOST_CASES = 1e-3, 50  # percent


def draw(rows: list[Row], out: Path) -> None:
    """For each number of samples the cases of each rule, from the worst on."""
    mpl.rcParams.update({"svg.hashsalt": "zipml", "font.size": 9})
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axes, samples in zip(figure.subplots(1, 2, sharey=True), (2, 1), strict=True):
        chosen = [row for row in rows if row.samples == samples]
        for rule, colour in SHOWN.items():
            found = sorted((100 * r.worse(rule) for r in chosen if rule in r.excess), reverse=True)
            if not found:
                continue
            part = 100 * np.arange(1, len(found) + 1) / len(found)
            within = part <= _MOST_CASES  # the rest is not seen
            part, seen = part[within], np.maximum(found, _FLOOR)[within]
            axes.step(part, seen, where="pre", color=colour, label=LABELS.get(rule, rule))
        axes.set(
            title="two samples" if samples == 2 else "one sample",
            xlabel="cases that are at least so much worse [%]",
            yscale="log",
            xlim=(0, _MOST_CASES),
            ylim=(_FLOOR, 1e4),
        )
        axes.axhline(1, color="#444444", linewidth=0.8, linestyle=":")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss above the better of none,\nfull and the paper's [%]")
    figure.axes[0].legend(frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})
