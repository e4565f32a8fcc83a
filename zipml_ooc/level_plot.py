"""Draw the levels of a dataset's columns over the values that are stored; needs matplotlib."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs.tables import grid_steps, table_bits_of

from .dataset import Dataset, open_dataset
from .description import describe
from .errors import UsageError

__all__ = ["column_levels", "plot_levels"]

_SHOWN = 3
_MOST_VALUES, _MOST_ROWS = 1 << 24, 1 << 16
_FITTED, _EQUAL, _BARS = "#c44e52", "#999999", "#4c72b0"


def column_levels(dataset: Dataset, column: int) -> npt.NDArray[np.float64]:
    """Levels of a column in the units of the source, without repetitions."""
    spec = dataset.spec
    assert spec.lower is not None and spec.upper is not None  # callers have checked
    if spec.level_tables is None:
        part = np.linspace(0.0, 1.0, spec.quantizer.intervals + 1)
    else:
        places = spec.level_tables.places
        part = places[column] / grid_steps(table_bits_of(places), spec.quantizer.samples)
    low, high = float(spec.lower[column]), float(spec.upper[column])
    stored = np.unique(low + (high - low) * part)
    return np.asarray(stored * spec.scale[column] + spec.mean[column])


def plot_levels(
    dataset: Dataset | str | os.PathLike[str],
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Draw a panel for each column: how often each stored value occurs, and where the levels lie.

    Parameters
    ----------
    dataset : Dataset or path
    path : path
        A PNG, SVG or PDF file, by its ending; it is replaced if it exists.
    columns : sequence of str, optional
        By default the three whose fitted levels save most, or that rounding changes most.

    Returns
    -------
    tuple of str
        Names of the columns that were drawn.

    Raises
    ------
    UsageError
        matplotlib is missing, there is no such column, the ending is none of these, or the levels
        are those of rows.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(
            'drawing levels needs matplotlib: pip install "zipml-ooc[plots]"'
        ) from None
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec = opened.spec
    if spec.lower is None or spec.upper is None:
        raise UsageError(
            f"{opened.path} has scales by row, so that its columns have no levels of their own: "
            "only datasets with --scale column can be drawn"
        )
    if Path(path).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{os.fspath(path)!r}: the plot must be a .png, .svg or .pdf file")
    names = tuple(columns) if columns is not None else _default_columns(opened)
    if unknown := [name for name in names if name not in spec.columns]:
        raise UsageError(
            f"{opened.path} has no column {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(spec.columns[:10])}{', ...' if len(spec.columns) > 10 else ''}"
        )
    chosen = [spec.columns.index(name) for name in names]
    values = _stored_values(opened, chosen)
    figure = Figure(figsize=(7, 1.2 + 1.9 * len(names)), layout="constrained")
    panels = figure.subplots(max(len(names), 1), 1, squeeze=False)[:, 0]
    for axes, name, column, of_column in zip(panels, names, chosen, values, strict=False):
        _panel(axes, opened, column, of_column)
        axes.set_title(name, fontsize=9, loc="left")
    if names:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UsageError(f"{os.fspath(path)} cannot be written: {error}") from error
    return names


def _default_columns(dataset: Dataset) -> tuple[str, ...]:
    saved = [column["name"] for column in describe(dataset)["most_saved"]]
    if saved:
        return tuple(saved[:_SHOWN])
    relative = dataset.spec.variance / dataset.spec.stored_std**2
    order = np.argsort(-relative, kind="stable")[:_SHOWN]
    return tuple(dataset.spec.columns[j] for j in order.tolist())


def _stored_values(dataset: Dataset, columns: list[int]) -> list[npt.NDArray[np.float64]]:
    """Values of some rows, from the first chunk on, in the units of the source."""
    spec = dataset.spec
    rows = min(spec.rows, _MOST_ROWS, max(_MOST_VALUES // max(len(spec.columns), 1), 1))
    parts: list[npt.NDArray[Any]] = []
    for number in range(-(-rows // spec.chunk_rows)):
        count = min(rows - number * spec.chunk_rows, spec.rows_of_chunk(number))
        parts.append(dataset.read_chunk(number).decode_rows(0, count)[:, columns])
    stored = np.concatenate(parts).astype(np.float64)
    return list((stored * spec.scale[columns] + spec.mean[columns]).T)


def _panel(axes: Any, dataset: Dataset, column: int, values: npt.NDArray[np.float64]) -> None:
    at, counts = np.unique(values, return_counts=True)
    axes.vlines(at, 0, 100 * counts / counts.sum(), color=_BARS, label="stored values", linewidth=2)
    levels = column_levels(dataset, column)
    fitted = dataset.spec.level_tables is not None
    top = 100 * counts.max() / counts.sum()
    axes.plot(
        levels, np.full(len(levels), -0.06 * top), "^", color=_FITTED, markersize=4,
        label="fitted levels" if fitted else "levels",
    )  # fmt: skip
    if fitted:
        equal = np.linspace(levels[0], levels[-1], dataset.spec.quantizer.intervals + 1)
        axes.plot(
            equal, np.full(len(equal), -0.14 * top), "|", color=_EQUAL, markersize=5,
            label="as many at equal distances",
        )  # fmt: skip
    axes.set_ylabel("% of rows", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
