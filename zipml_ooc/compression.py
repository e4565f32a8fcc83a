"""From a source to a compressed dataset: one pass for statistics, one that quantises and writes.

Memory is bounded by a few blocks whatever the source's size. The dataset is written beside its
destination and renamed when it is whole, so that a failure leaves the destination as it was.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from zipml_codecs import Quantizer

from .dataset import Dataset, open_dataset
from .dataset_writer import DatasetWriter, Progress, written_beside
from .errors import DataError, UsageError
from .features import FeatureEncoder
from .level_fitting import LevelGatherer
from .sources import Source, SourceOptions, open_source
from .sources.weights import WeightedSource
from .statistics import ColumnStatistics, StatisticsAccumulator
from .targets import TargetEncoder, TargetScan

if TYPE_CHECKING:
    from zipml_codecs.tables import FittedLevels

    from .sources import Block

__all__ = ["LEVEL_CHOICES", "CompressOptions", "compress"]

# Statistics are gathered over blocks of this many rows whatever the chunks are, so that they, and
# with them every stored byte, do not depend on chunking.
_STATISTICS_ROWS = 8192
LEVEL_CHOICES = ("auto", "uniform", "optimal")
# One bit has no level between the outer ones; above, equal spacing is nearly as good.
_AUTO_OPTIMAL_BITS = range(2, 5)


@dataclass(frozen=True)
class CompressOptions:
    """How to compress.

    Parameters
    ----------
    task : {"auto", "regression", "classification"}
    bits, samples, scale, seed, layout, precisions
        See `zipml_codecs.Quantizer`.
    levels : {"auto", "uniform", "optimal"}
        Equally spaced, or those of least rounding variance for each column. ``auto``: optimal from
        2 to 4 bits with scales by column, where they gain most and cost least; else uniform.
        The weaved layout is always uniform.
    standardize : bool
        Store (value - mean) / standard deviation of each column.
    nan : {"error", "mean"}
        Refuse missing values, or put the column's mean over the whole source in their place.
    categorical : {"error", "one-hot"}
        What to do with text columns.
    weight : str, optional
        Numeric column that says how often each row counts in training, zero or more. It is no
        feature then.
    chunk_rows : int, optional
        Rows of a chunk, rounded up to whole tiles of 64; by default about four million values.
    zarr_format : {2, 3}
    threads : int, optional
        Encoding threads; the bytes do not depend on it.
    """

    task: str = "auto"
    bits: int = 4
    samples: int = 2
    scale: str = "column"
    layout: str = "packed"
    precisions: tuple[int, ...] = ()
    levels: str = "auto"
    seed: int = 0
    standardize: bool = True
    nan: str = "error"
    categorical: str = "error"
    weight: str | None = None
    chunk_rows: int | None = None
    zarr_format: int = 3
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.zarr_format not in (2, 3):
            raise UsageError(f"the Zarr format must be 2 or 3, got {self.zarr_format}")
        if self.chunk_rows is not None and self.chunk_rows < 1:
            raise UsageError(f"chunk rows must be positive, got {self.chunk_rows}")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads must be positive, got {self.threads}")
        if self.categorical not in ("error", "one-hot"):
            raise UsageError(f"categorical must be error or one-hot, got {self.categorical!r}")
        if self.levels not in LEVEL_CHOICES:
            raise UsageError(
                f"levels must be one of {', '.join(LEVEL_CHOICES)}; got {self.levels!r}"
            )
        if self.quantizer.levels == "optimal" and self.quantizer.stored_bits > 8:
            raise UsageError(
                "optimal levels take up to 8 stored bits and 8 bits x 2 samples are 9: use "
                "--samples 1, fewer bits, or --levels uniform"
            )

    @property
    def quantizer(self) -> Quantizer:
        """The quantiser of every chunk; missing values are filled in before it sees them."""
        levels = self.levels
        if levels == "auto":
            fits = self.scale == "column" and self.bits in _AUTO_OPTIMAL_BITS
            fits &= self.layout == "packed"
            levels = "optimal" if fits else "uniform"
        try:
            return Quantizer(
                bits=self.bits,
                samples=self.samples,
                scale=self.scale,
                seed=self.seed,
                nan=self.nan,
                levels=levels,
                layout=self.layout,
                precisions=self.precisions,
            )
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error


def compress(
    sources: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    dest: str | os.PathLike[str],
    options: CompressOptions = CompressOptions(),
    *,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    force: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Compress a source to a low-precision Zarr dataset.

    Parameters
    ----------
    sources : path, glob or fsspec URL, or several of them
        Files of the same columns; their rows follow one another.
    dest : path
        Where the Zarr group goes.
    options : CompressOptions
    source_options : SourceOptions
        Target columns, names of arrays, CSV dialect.
    force : bool
        Replace an existing dataset; it stays whole until the new one is.
    progress : callable, optional

    Returns
    -------
    Dataset
        The dataset, opened.

    Raises
    ------
    UsageError
        Missing source, unknown target, existing destination.
    DataError
        Values that cannot be stored, or no space left; the destination is as it was.

    Examples
    --------
    >>> from zipml_ooc import SourceOptions, compress
    >>> dataset = compress(
    ...     "cadata.csv.gz", "cadata.zarr", source_options=SourceOptions(target=("price",))
    ... )  # doctest: +SKIP
    """
    paths = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    place = _check_destination(dest, force=force)
    report = progress or (lambda stage, done, total: None)
    source = open_source([os.fspath(p) for p in paths], source_options)
    if options.weight is not None:
        source = WeightedSource(source, options.weight)
    _refuse_overlap(source, place)
    encoder = FeatureEncoder.fit(source, options.categorical, _STATISTICS_ROWS)
    statistics, target, fitted = _first_pass(source, encoder, options, report)
    with written_beside(place, force=force) as workspace:
        writer = DatasetWriter(workspace, source, encoder, statistics, target, options, fitted)
        writer.write(report)
    return open_dataset(place)


def _check_destination(dest: str | os.PathLike[str], *, force: bool) -> Path:
    if "://" in os.fspath(dest):
        raise UsageError(f"the destination must be a local path, got {os.fspath(dest)!r}")
    place = Path(dest).absolute()
    if not place.parent.is_dir():
        raise UsageError(f"the destination's folder {place.parent} does not exist")
    if place.exists():
        if not force:
            raise UsageError(f"{place} exists: choose another destination or use --force")
        if not ((place / "zarr.json").exists() or (place / ".zgroup").exists()):
            raise UsageError(f"{place} is no Zarr group: --force does not replace it")
    return place


def _refuse_overlap(source: Source, place: Path) -> None:
    for path in source.paths:
        if "://" not in path and Path(path).resolve().is_relative_to(place.resolve()):
            raise UsageError(f"{place} cannot be both source and destination")


def _first_pass(
    source: Source, encoder: FeatureEncoder, options: CompressOptions, report: Progress
) -> tuple[ColumnStatistics, TargetEncoder | None, FittedLevels | None]:
    accumulator = StatisticsAccumulator(len(encoder.names))
    gatherer = None
    if options.quantizer.levels == "optimal":
        missing = options.nan == "mean"
        gatherer = LevelGatherer(len(encoder.names), options.quantizer, missing=missing)
    scan = TargetScan(source.targets, options.task) if source.targets else None
    rows, weight = 0, 0.0
    for block in source.blocks(_STATISTICS_ROWS):
        values = encoder.transform(block)
        _refuse_values(values, block, encoder, source, nan=options.nan)
        accumulator.update(values)
        if gatherer is not None:
            gatherer.update(values)
        if scan is not None and block.target is not None:
            scan.update(block.target, block.first_row)
        if block.weight is not None:
            weight += float(block.weight.sum())
        rows += block.rows
        report("statistics", rows, None)
    statistics = accumulator.result()
    if rows == 0:
        raise DataError(f"{', '.join(source.paths)}: no rows")
    if options.weight is not None and not 0 < weight < math.inf:
        raise DataError(
            f"{', '.join(source.paths)}: the weights {options.weight!r} of its {rows:,} rows "
            f"(0 to {rows - 1:,}) add up to {weight:g}: at least one must be above 0, and their "
            "sum finite"
        )
    _refuse_columns(statistics, encoder, options)
    target = scan.result() if scan is not None else None
    return statistics, target, gatherer.fit(statistics) if gatherer is not None else None


def _refuse_values(
    values: npt.NDArray[np.float64],
    block: Block,
    encoder: FeatureEncoder,
    source: Source,
    *,
    nan: str,
) -> None:
    if np.isfinite(values).all():
        return
    bad = ~np.isfinite(values) if nan == "error" else np.isinf(values)
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        missing = np.isnan(values[row, column])
        raise DataError(
            f"{', '.join(source.paths)}: column {encoder.names[column]!r} "
            f"{'has no value (NaN)' if missing else 'is infinite'} in row "
            f"{block.first_row + row} (counted from 0); "
            + ("remove the row or use --nan mean" if missing else "remove or replace it")
        )


def _refuse_columns(
    statistics: ColumnStatistics, encoder: FeatureEncoder, options: CompressOptions
) -> None:
    empty = np.flatnonzero(statistics.missing == statistics.rows)
    if empty.size:
        raise DataError(f"column {encoder.names[empty[0]]!r} has no value in any row: leave it out")
    wide = ~np.isfinite(statistics.std)
    if not options.standardize:
        largest = np.maximum(np.abs(statistics.minimum), np.abs(statistics.maximum))
        wide |= largest > np.finfo(np.float32).max
    if wide.any():
        name = encoder.names[int(np.flatnonzero(wide)[0])]
        raise DataError(f"the values of column {name!r} are too large for 32 bits: rescale it")
