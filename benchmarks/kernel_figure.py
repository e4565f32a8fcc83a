"""Draw docs/figures/kernels.svg: the training step on packed codes beside float32 peers.

Reads what ``python -m benchmarks.kernels --json > kernels.json`` wrote. Needs matplotlib.

    python -m benchmarks.kernel_figure kernels.json [--out docs/figures/kernels.svg]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

OUT = Path(__file__).parents[1] / "docs" / "figures" / "kernels.svg"
WIDTHS = (1024, 90)
BITS = (8, 4, 2, 1)
BARS = {  # (arithmetic, levels): name, colour
    ("int8", "uniform"): ("8-bit integers", "#2b5c8a"),
    ("int8", "uint8"): ("8-bit integers, optimal levels", "#e08a3c"),
    ("int16", "uniform"): ("16-bit integers", "#7ba7cc"),
    ("float", "uniform"): ("float32 arithmetic", "#b5b5b5"),
}
PEERS = {  # the lines: names of the records, the best of which counts, and the label
    "float32 mini-batches": ("float32 batches of 64", "float32 batches of 256"),
    "NumPy with BLAS": ("NumPy BLAS, batches of 64", "NumPy BLAS, batches of 256"),
    "scikit-learn": ("scikit-learn partial_fit",),
}
LINE = "#444444"


def main() -> None:
    """Read, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text())["training"]
    measured = {table["columns"] for table in report["tables"]}
    widths = [columns for columns in WIDTHS if columns in measured]
    if not widths:
        parser.error(f"{arguments.report} has neither of {WIDTHS} columns")
    draw(report["records"], widths, arguments.out)
    print(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e3:.0f} kB)")


def draw(records: list[dict[str, Any]], widths: list[int], out: Path) -> None:
    """One panel a width."""
    mpl.rcParams.update({"svg.hashsalt": "zipml", "font.size": 9})
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(widths), squeeze=False, sharey=True)[0]
    shown = [
        key for key in BARS if any((r.get("arithmetic"), r.get("levels")) == key for r in records)
    ]
    top = 0.0
    for axes, columns in zip(panels, widths, strict=True):
        chosen = [record for record in records if record["columns"] == columns]
        lines = peer_lines(chosen)
        top = max(top, bars(axes, chosen, shown), *lines.values())
        axes.set_title(f"{columns:,} columns")
        axes.set_xlabel("stored bits a value")
    for axes, columns in zip(panels, widths, strict=True):
        axes.set_ylim(0, 1.1 * top)
        label_lines(axes, peer_lines([r for r in records if r["columns"] == columns]), top)
    panels[0].set_ylabel("times as fast as float32, row by row")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None})


def bars(axes: Axes, records: list[dict[str, Any]], shown: list[tuple[str, str]]) -> float:
    """A group for each number of bits; returns the height of the highest bar."""
    steps = {
        (r["arithmetic"], r["levels"], r["stored_bits"]): r["ratio"]
        for r in records
        if r["group"] in ("step", "levels")
    }
    width = 0.8 / len(shown)
    for place, key in enumerate(shown):
        name, colour = BARS[key]
        found = [(i, steps[(*key, b)]) for i, b in enumerate(BITS) if (*key, b) in steps]
        drawn = axes.bar(
            [i + (place - (len(shown) - 1) / 2) * width for i, _ in found],
            [ratio for _, ratio in found],
            0.92 * width,
            color=colour,
            label=name,
            zorder=2,
        )
        axes.bar_label(
            drawn, fmt="%.1f", fontsize=6.5, padding=2, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4},
        )  # fmt: skip
    axes.set_xticks(range(len(BITS)), [str(bits) for bits in BITS])
    axes.tick_params(axis="x", length=0)
    axes.spines[["top", "right"]].set_visible(False)
    return max(steps.values(), default=0.0)


def peer_lines(records: list[dict[str, Any]]) -> dict[str, float]:
    """Height of each line by its label; float32 row by row is the unit."""
    ratios = {r["name"]: r["ratio"] for r in records if r["group"] == "peer"}
    found = {"float32, row by row": 1.0}
    for label, names in PEERS.items():
        if present := [ratios[name] for name in names if name in ratios]:
            found[label] = max(present)
    return found


def label_lines(axes: Axes, lines: dict[str, float], top: float) -> None:
    """Lines across the panel, named at its right, the names kept apart."""
    left, right = -0.5, len(BITS) - 0.45
    axes.set_xlim(left, right)
    place, gap = float("-inf"), 0.062 * top
    for label, height in sorted(lines.items(), key=lambda item: item[1]):
        place = max(height, place + gap)
        unit = label == "float32, row by row"
        axes.plot(
            [left, right], [height, height], color=LINE, linewidth=1.1 if unit else 0.8,
            linestyle="-" if unit else (0, (4, 2)), zorder=3,
        )  # fmt: skip
        axes.annotate(
            f"{label}  {height:.1f}" if height >= 0.15 else f"{label}  {height:.2f}",
            (right, height), (right + 0.18, place), fontsize=7.5, va="center", color=LINE,
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": LINE, "linewidth": 0.5, "shrinkA": 0,
                        "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


if __name__ == "__main__":
    main()
