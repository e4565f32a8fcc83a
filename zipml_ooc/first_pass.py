"""The first pass of compression: what the source's values are, and with that the dataset's plan.

The plan is the `DatasetSpec` that the dataset will have, but for the rounding variances, which are
known when everything is rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS
from zipml_codecs.tables import grid_steps, table_bits_of

from .dataset_spec import DatasetSpec, LevelTables
from .errors import DataError
from .level_fitting import LevelGatherer
from .parallel import Workforce, row_ranges
from .statistics import ColumnStatistics, StatisticsAccumulator
from .targets import TargetEncoder, TargetScan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from zipml_codecs.tables import FittedLevels

    from .compression import CompressOptions
    from .features import FeatureEncoder
    from .sources import Block, Source

__all__ = ["STATISTICS_ROWS", "default_chunk_rows", "first_pass", "with_variance"]

# Statistics are gathered over blocks of this many rows whatever the chunks are, so that they, and
# with them every stored byte, do not depend on chunking.
STATISTICS_ROWS = 8192
_CHUNK_VALUES = 1 << 22
_MAX_CHUNK_ROWS = 1 << 16
# Ranges of rows for each worker: more even out their pace, but each has histograms to merge.
_TASKS = 2
# And so many values are the most in a range, for what is known of each block is kept until then.
_RANGE_VALUES = 1 << 29


def default_chunk_rows(columns: int) -> int:
    """Rows of a chunk of about four million values: a power of two from 64 to 65,536."""
    rows = 1 << (max(1, _CHUNK_VALUES // max(columns, 1)).bit_length() - 1)
    return min(max(rows, TILE_ROWS), _MAX_CHUNK_ROWS)


def first_pass(
    source: Source,
    encoder: FeatureEncoder,
    options: CompressOptions,
    workforce: Workforce,
    report: Callable[[str, int, int | None], None],
) -> DatasetSpec:
    """Read the source once; the plan does not depend on who is at work.

    Raises
    ------
    DataError
        Values that cannot be stored.
    """
    fingerprint = source.fingerprint()
    most = max(_RANGE_VALUES // len(encoder.names), STATISTICS_ROWS)
    ranges = row_ranges(source, _TASKS * workforce.slots, STATISTICS_ROWS, most)
    if len(ranges) > 1:
        tasks = [_Range(encoder, options, part) for part in ranges]

        def show(done: int) -> None:
            report("statistics", done, ranges[-1].stop)

        scan = _Scan(source, encoder, options)
        for found in workforce.map("scan", _scan_range, tasks, show):
            scan.merge(found)
            show(scan.rows)
    else:
        scan = _Scan(source, encoder, options)
        for block in source.blocks(STATISTICS_ROWS):
            scan.update(block)
            report("statistics", scan.rows, None)
    return scan.plan(fingerprint)


@dataclass(frozen=True)
class _Range:
    """What a worker needs to know, beside the source, to look at some rows."""

    encoder: FeatureEncoder
    options: CompressOptions
    rows: range


def _scan_range(source: Source, task: _Range, report: Callable[[int], None]) -> _Scan:
    scan = _Scan(source, task.encoder, task.options, keep_blocks=True)
    for block in source.blocks(STATISTICS_ROWS, task.rows.start, task.rows.stop):
        scan.update(block)
        report(block.rows)
    return scan


class _Scan:
    """What is known of some consecutive rows."""

    def __init__(
        self,
        source: Source,
        encoder: FeatureEncoder,
        options: CompressOptions,
        *,
        keep_blocks: bool = False,
    ) -> None:
        self._paths, self._encoder, self._options = source.paths, encoder, options
        self._statistics = StatisticsAccumulator(len(encoder.names), keep=keep_blocks)
        self._levels = None
        if options.quantizer.levels == "optimal":
            missing = options.nan == "mean"
            self._levels = LevelGatherer(len(encoder.names), options.quantizer, missing=missing)
        self._targets = None
        if source.targets:
            self._targets = TargetScan(source.targets, options.task, keep_blocks=keep_blocks)
        self.rows, self._weight = 0, 0.0

    def update(self, block: Block) -> None:
        """Look at the rows that follow."""
        values = self._encoder.transform(block)
        _refuse_values(values, block, self._encoder, self._paths, nan=self._options.nan)
        self._statistics.update(values)
        if self._levels is not None:
            self._levels.update(values)
        if self._targets is not None and block.target is not None:
            self._targets.update(block.target, block.first_row)
        if block.weight is not None:
            self._weight += float(block.weight.sum())
        self.rows += block.rows

    def merge(self, other: _Scan) -> None:
        """Know what another one found in the rows that follow."""
        self._statistics.merge(other._statistics)
        if self._levels is not None and other._levels is not None:
            self._levels.merge(other._levels)
        if self._targets is not None and other._targets is not None:
            self._targets.merge(other._targets)
        self._weight += other._weight
        self.rows += other.rows

    def plan(self, fingerprint: dict[str, Any]) -> DatasetSpec:
        """Decide how the dataset is to be, once all rows have been seen."""
        options, rows, weight = self._options, self.rows, self._weight
        statistics = self._statistics.result()
        if options.weight is not None and not 0 < weight < math.inf:
            raise DataError(
                f"{', '.join(self._paths)}: the weights {options.weight!r} of its {rows:,} rows "
                f"(0 to {rows - 1:,}) add up to {weight:g}: at least one must be above 0, and "
                "their sum finite"
            )
        _refuse_columns(statistics, self._encoder, options)
        target = self._targets.result() if self._targets is not None else None
        fitted = self._levels.fit(statistics) if self._levels is not None else None
        return _plan(fingerprint, self._encoder, options, statistics, target, fitted)


def _plan(
    fingerprint: dict[str, Any],
    encoder: FeatureEncoder,
    options: CompressOptions,
    statistics: ColumnStatistics,
    target: TargetEncoder | None,
    fitted: FittedLevels | None,
) -> DatasetSpec:
    columns, quantizer = len(encoder.names), options.quantizer
    rows = min(options.chunk_rows or default_chunk_rows(columns), statistics.rows)
    mean, scale = np.zeros(columns), np.ones(columns)
    if options.standardize:
        mean, scale = statistics.mean, np.where(statistics.std == 0, 1.0, statistics.std)
    lower, upper, tables = None, None, None
    if options.scale == "column":
        lower, upper = (
            ((bound - mean) / scale).astype(np.float32) + np.float32(0)
            for bound in (statistics.minimum, statistics.maximum)
        )
        if fitted is not None:
            span = upper.astype(np.float64) - lower
            tables = LevelTables(fitted.places, fitted.uniform * span**2)
    unknown = np.zeros((len(quantizer.precisions), columns))
    return DatasetSpec(
        rows=statistics.rows,
        chunk_rows=-(-rows // TILE_ROWS) * TILE_ROWS,
        columns=tuple(encoder.names),
        targets=target.names if target else (),
        task=target.task if target else None,
        classes=target.classes if target else None,
        quantizer=quantizer,
        encoder={
            "features": encoder.to_dict(),
            "nan": options.nan,
            "fill": statistics.mean.tolist() if options.nan == "mean" else None,
        },
        standardized=options.standardize,
        mean=mean,
        scale=scale,
        statistics=statistics,
        lower=lower,
        upper=upper,
        variance=np.zeros(columns),
        target_statistics=target.statistics if target else None,
        source=fingerprint,
        level_tables=tables,
        precision_variance=unknown if quantizer.weaved else None,
        weight=options.weight,
    )


def with_variance(plan: DatasetSpec, sums: list[npt.NDArray[Any]]) -> DatasetSpec:
    """Return the plan with the rounding variances of one sample over all rows.

    Parameters
    ----------
    plan : DatasetSpec
    sums : list of arrays
        What each chunk says about its rows, in order.
    """
    total = np.sum(sums, axis=0)
    if plan.lower is None or plan.upper is None:
        return replace(plan, variance=np.asarray(total, np.float64) / plan.rows)
    span = plan.upper.astype(np.float64) - plan.lower
    q = plan.quantizer
    steps: Any = q.intervals
    if q.weaved:
        steps = np.array([q.at(k).intervals for k in q.precisions])[:, None]
    if plan.level_tables is not None:
        steps = grid_steps(table_bits_of(plan.level_tables.places), q.samples)
    step = span / steps
    each = np.asarray(total.astype(np.float64) / 2.0**32 / plan.rows * step**2, np.float64)
    if not q.weaved:
        return replace(plan, variance=each)
    return replace(plan, variance=each[-1], precision_variance=each)  # the highest comes last


def _refuse_values(
    values: npt.NDArray[np.float64],
    block: Block,
    encoder: FeatureEncoder,
    paths: Sequence[str],
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
            f"{', '.join(paths)}: column {encoder.names[column]!r} "
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
