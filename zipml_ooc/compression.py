"""From a source to a compressed dataset: one pass for statistics, one that quantises and writes.

Memory is bounded by a few blocks whatever the source's size. The dataset is written beside its
destination and renamed when it is whole, so that a failure leaves the destination as it was.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, Quantizer, ValueRefusedError, encode_chunk
from zipml_codecs.chunk import EncodedChunk

from .dataset import ATTRIBUTE, Dataset, DatasetSpec, add_checksum, open_dataset
from .errors import DataError, UsageError
from .features import FeatureEncoder
from .sources import Source, SourceOptions, open_source
from .statistics import ColumnStatistics, StatisticsAccumulator
from .targets import TargetEncoder, TargetScan

if TYPE_CHECKING:
    from .sources import Block

__all__ = ["CompressOptions", "compress", "default_chunk_rows"]

Progress = Callable[[str, int, int | None], None]
"""Called as progress(stage, rows done, rows in all or None)."""

# Statistics are gathered over blocks of this many rows whatever the chunks are, so that they, and
# with them every stored byte, do not depend on chunking.
_STATISTICS_ROWS = 8192
_CHUNK_VALUES = 1 << 22
_MAX_CHUNK_ROWS = 1 << 16


@dataclass(frozen=True)
class CompressOptions:
    """How to compress.

    Parameters
    ----------
    task : {"auto", "regression", "classification"}
    bits, samples, scale, seed
        See `zipml_codecs.Quantizer`.
    standardize : bool
        Store (value - mean) / standard deviation of each column.
    nan : {"error", "mean"}
        Refuse missing values, or put the column's mean over the whole source in their place.
    categorical : {"error", "one-hot"}
        What to do with text columns.
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
    seed: int = 0
    standardize: bool = True
    nan: str = "error"
    categorical: str = "error"
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
        _ = self.quantizer

    @property
    def quantizer(self) -> Quantizer:
        """The quantiser of every chunk; missing values are filled in before it sees them."""
        try:
            return Quantizer(
                bits=self.bits, samples=self.samples, scale=self.scale, seed=self.seed, nan=self.nan
            )
        except (ValueError, TypeError) as error:
            raise UsageError(str(error)) from error


def default_chunk_rows(columns: int) -> int:
    """Rows of a chunk of about four million values: a power of two from 64 to 65,536."""
    rows = 1 << max(0, int(math.log2(max(1, _CHUNK_VALUES // max(columns, 1)))))
    return min(max(rows, TILE_ROWS), _MAX_CHUNK_ROWS)


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
    _refuse_overlap(source, place)
    encoder = FeatureEncoder.fit(source, options.categorical, _STATISTICS_ROWS)
    statistics, target = _first_pass(source, encoder, options, report)
    with _written_beside(place, force=force) as workspace:
        writer = _Writer(workspace, source, encoder, statistics, target, options)
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
        if "://" not in path and Path(path).absolute().is_relative_to(place):
            raise UsageError(f"{place} cannot be both source and destination")


@contextmanager
def _written_beside(place: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `place` that takes its name when the block ends well."""
    try:
        workspace = Path(tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=place.parent))
    except OSError as error:
        raise DataError(f"cannot write in {place.parent}: {error}") from error
    try:
        workspace.chmod(0o777 & ~_umask())
        yield workspace
        if force and place.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old-", dir=place.parent))
            place.rename(old / place.name)
            workspace.rename(place)
            shutil.rmtree(old)
        else:
            workspace.rename(place)
    except OSError as error:
        raise DataError(
            f"writing {place} failed: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _first_pass(
    source: Source, encoder: FeatureEncoder, options: CompressOptions, report: Progress
) -> tuple[ColumnStatistics, TargetEncoder | None]:
    accumulator = StatisticsAccumulator(len(encoder.names))
    scan = TargetScan(source.targets, options.task) if source.targets else None
    rows = 0
    for block in source.blocks(_STATISTICS_ROWS):
        values = encoder.transform(block)
        _refuse_values(values, block, encoder, source, nan=options.nan)
        accumulator.update(values)
        if scan is not None and block.target is not None:
            scan.update(block.target, block.first_row)
        rows += block.rows
        report("statistics", rows, None)
    statistics = accumulator.result()
    if rows == 0:
        raise DataError(f"{', '.join(source.paths)}: no rows")
    _refuse_columns(statistics, encoder, options)
    return statistics, scan.result() if scan is not None else None


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
            f"{'has no value (NaN)' if missing else 'is infinite'} in row {block.first_row + row}; "
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


class _Writer:
    """The second pass: standardise, quantise, pack, write."""

    def __init__(
        self,
        workspace: Path,
        source: Source,
        encoder: FeatureEncoder,
        statistics: ColumnStatistics,
        target: TargetEncoder | None,
        options: CompressOptions,
    ) -> None:
        self._workspace, self._source, self._encoder = workspace, source, encoder
        self._statistics, self._target, self._options = statistics, target, options
        columns = len(encoder.names)
        asked = options.chunk_rows or default_chunk_rows(columns)
        rows = min(asked, statistics.rows)
        self._chunk_rows = -(-rows // TILE_ROWS) * TILE_ROWS
        constant = statistics.std == 0
        self._mean = statistics.mean if options.standardize else np.zeros(columns)
        self._scale = (
            np.where(constant, 1.0, statistics.std) if options.standardize else np.ones(columns)
        )
        self._lower: npt.NDArray[np.float32] | None = None
        self._upper: npt.NDArray[np.float32] | None = None
        if options.scale == "column":
            self._lower = self._standardised(statistics.minimum) + np.float32(0)
            self._upper = self._standardised(statistics.maximum) + np.float32(0)

    def _standardised(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        return ((values - self._mean) / self._scale).astype(np.float32)

    def write(self, report: Progress) -> None:
        """Write both arrays and, last, the attributes that make the dataset complete."""
        x_key, targets, group = self._create()
        threads = self._options.threads or min(8, os.cpu_count() or 1)
        variance: list[npt.NDArray[Any]] = []
        rows = 0
        with ThreadPoolExecutor(threads, thread_name_prefix="zipml-encode") as pool:
            pending: deque[Future[npt.NDArray[Any]]] = deque()
            for number, block in enumerate(self._source.blocks(self._chunk_rows)):
                if rows + block.rows > self._statistics.rows:
                    raise DataError(self._changed())
                values = self._fill(self._encoder.transform(block))
                if targets is not None and self._target is not None and block.target is not None:
                    targets[rows : rows + block.rows] = self._target.transform(block.target, rows)
                pending.append(pool.submit(self._encode, number, values, x_key(number)))
                rows += block.rows
                if len(pending) > threads:
                    variance.append(pending.popleft().result())
                    report("compress", min(rows, self._statistics.rows), self._statistics.rows)
            variance.extend(future.result() for future in pending)
        if rows != self._statistics.rows:
            raise DataError(self._changed())
        report("compress", rows, rows)
        group.attrs[ATTRIBUTE] = self._spec(variance).to_attributes()

    def _changed(self) -> str:
        return f"{', '.join(self._source.paths)}: changed while it was read; compress it again"

    def _fill(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        if self._options.nan == "mean":
            values = np.where(np.isnan(values), self._statistics.mean, values)
        return self._standardised(values)

    def _encode(self, number: int, values: npt.NDArray[np.float32], path: Path) -> npt.NDArray[Any]:
        try:
            encoded = encode_chunk(
                values,
                self._options.quantizer,
                lower=self._lower,
                upper=self._upper,
                first_tile=number * self._chunk_rows // TILE_ROWS,
                chunk_shape=(self._chunk_rows, values.shape[1]),
            )
        except ValueRefusedError as error:
            raise DataError(self._changed()) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(add_checksum(encoded))
        return EncodedChunk.parse(encoded).variance_table

    def _create(self) -> tuple[Callable[[int], Path], Any, Any]:
        import zarr
        from numcodecs.checksum32 import CRC32C

        options, n, d = self._options, self._statistics.rows, len(self._encoder.names)
        group = zarr.create_group(self._workspace, zarr_format=options.zarr_format, overwrite=True)
        v3 = options.zarr_format == 3
        codec: dict[str, Any]
        if v3:
            serializer = {"name": "zipml.quantize", "configuration": options.quantizer.to_dict()}
            codec = {"serializer": serializer, "compressors": [{"name": "crc32c"}]}
        else:
            from zipml_codecs.numcodecs_codec import Quantize

            codec = {"filters": [Quantize(**options.quantizer.to_dict())], "compressors": CRC32C()}

        def create(
            name: str, shape: tuple[int, ...], dtype: str, axes: list[str], **kw: Any
        ) -> Any:
            names: dict[str, Any] = (
                {"dimension_names": axes} if v3 else {"attributes": {"_ARRAY_DIMENSIONS": axes}}
            )
            chunks = (self._chunk_rows, *shape[1:])
            return group.create_array(
                name, shape=shape, chunks=chunks, dtype=dtype, fill_value=0, **names, **kw
            )

        x = create("X", (n, d), "f4", ["row", "column"], **codec)
        y = None
        if self._target is not None:
            outputs = len(self._target.names)
            shape, axes = ((n,), ["row"]) if outputs == 1 else ((n, outputs), ["row", "output"])
            y = create("y", shape, "i4" if self._target.classes else "f8", axes)
        root = self._workspace / "X"
        return lambda number: root / x.metadata.encode_chunk_key((number, 0)), y, group

    def _spec(self, variance: list[npt.NDArray[Any]]) -> DatasetSpec:
        options, target = self._options, self._target
        encoder: Mapping[str, Any] = {
            "features": self._encoder.to_dict(),
            "nan": options.nan,
            "fill": self._statistics.mean.tolist() if options.nan == "mean" else None,
        }
        return DatasetSpec(
            rows=self._statistics.rows,
            chunk_rows=self._chunk_rows,
            columns=tuple(self._encoder.names),
            targets=target.names if target else (),
            task=target.task if target else None,
            classes=target.classes if target else None,
            quantizer=options.quantizer,
            encoder=encoder,
            standardized=options.standardize,
            mean=self._mean,
            scale=self._scale,
            statistics=self._statistics,
            lower=self._lower,
            upper=self._upper,
            variance=self._variance(np.sum(variance, axis=0)),
            target_statistics=target.statistics if target else None,
            source=self._source.fingerprint(),
        )

    def _variance(self, total: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Rounding variance of one sample over all rows, from the sums of the chunks."""
        if self._lower is None or self._upper is None:
            return np.asarray(total, np.float64) / self._statistics.rows
        span = self._upper.astype(np.float64) - self._lower
        step = span / self._options.quantizer.intervals
        return np.asarray(total / 2.0**32 / self._statistics.rows * step**2, np.float64)
