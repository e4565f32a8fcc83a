"""Writing a compressed dataset: standardise, quantise, pack, and appear under its name when whole.

`written_beside` gives a temporary folder that takes the destination's name at the end;
`DatasetWriter` fills it in one pass over a source whose statistics are known.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk, ValueRefusedError, encode_chunk
from zipml_codecs.tables import grid_steps, table_bits_of

from .dataset import add_checksum
from .dataset_spec import ATTRIBUTE, DatasetSpec, LevelTables
from .errors import DataError
from .features import FeatureEncoder
from .sources import Source
from .statistics import ColumnStatistics
from .targets import TargetEncoder
from .umask import masked

if TYPE_CHECKING:
    from zipml_codecs.tables import FittedLevels

    from .compression import CompressOptions

__all__ = ["DatasetWriter", "Progress", "default_chunk_rows", "written_beside"]

Progress = Callable[[str, int, int | None], None]
"""Called as progress(stage, rows done, rows in all or None)."""

_CHUNK_VALUES = 1 << 22
_MAX_CHUNK_ROWS = 1 << 16
_ZARR_SECONDS = 10.0
# Each thread holds a chunk in double precision.
_MAX_THREADS = 4


def default_chunk_rows(columns: int) -> int:
    """Rows of a chunk of about four million values: a power of two from 64 to 65,536."""
    rows = 1 << (max(1, _CHUNK_VALUES // max(columns, 1)).bit_length() - 1)
    return min(max(rows, TILE_ROWS), _MAX_CHUNK_ROWS)


@contextmanager
def written_beside(place: Path, *, force: bool) -> Iterator[Path]:
    """A temporary folder beside `place` that takes its name when the block ends well."""
    try:
        workspace = Path(tempfile.mkdtemp(prefix=f".{place.name}.partial-", dir=place.parent))
    except OSError as error:
        raise DataError(f"cannot write in {place.parent}: {error}") from error
    try:
        workspace.chmod(masked(0o777))
        yield workspace
        if force and place.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{place.name}.old-", dir=place.parent))
            try:
                place.rename(old / place.name)
                workspace.rename(place)
            except BaseException:
                if not place.exists():
                    (old / place.name).rename(place)
                raise
            finally:
                if place.exists():
                    shutil.rmtree(old)
        else:
            workspace.rename(place)
    except OSError as error:
        raise DataError(
            f"writing {place} failed: {error.strerror or error}; nothing was left behind"
        ) from error
    finally:
        if workspace.exists():
            _wait_for_zarr()
            shutil.rmtree(workspace, ignore_errors=True)


def _wait_for_zarr() -> None:
    """Let Zarr's event loop finish what an interruption left to it, or it writes after the end."""

    async def others_done() -> None:
        this = asyncio.current_task()
        while others := asyncio.all_tasks() - {this}:
            await asyncio.wait(others)

    if "zarr.core.sync" not in sys.modules:
        return
    with contextlib.suppress(Exception):  # a tidy end, not a condition of it
        from zarr.core.sync import sync

        sync(others_done(), timeout=_ZARR_SECONDS)


class DatasetWriter:
    """The second pass: standardise, quantise, pack, write."""

    def __init__(
        self,
        workspace: Path,
        source: Source,
        encoder: FeatureEncoder,
        statistics: ColumnStatistics,
        target: TargetEncoder | None,
        options: CompressOptions,
        fitted: FittedLevels | None = None,
    ) -> None:
        self._workspace, self._source, self._encoder = workspace, source, encoder
        self._statistics, self._target, self._options = statistics, target, options
        self._fitted = fitted
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
        import zarr
        from zarr.errors import ZarrUserWarning

        x_key, targets, weights, group = self._create()
        threads = self._options.threads or min(_MAX_THREADS, os.cpu_count() or 1)
        variance: list[npt.NDArray[Any]] = []
        rows = 0
        with ThreadPoolExecutor(threads, thread_name_prefix="zipml-encode") as pool:
            pending: deque[Future[npt.NDArray[Any]]] = deque()
            for number, block in enumerate(self._source.blocks(self._chunk_rows)):
                if rows + block.rows > self._statistics.rows:
                    raise DataError(self._changed())
                values = self._encoder.transform(block)
                if targets is not None and self._target is not None and block.target is not None:
                    targets[rows : rows + block.rows] = self._target.transform(block.target, rows)
                if weights is not None and block.weight is not None:
                    weights[rows : rows + block.rows] = block.weight
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
        with warnings.catch_warnings():
            # xarray looks for consolidated metadata first in both formats; zarr warns that the
            # specification of format 3 leaves them open.
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(self._workspace)

    def _changed(self) -> str:
        return f"{', '.join(self._source.paths)}: changed while it was read; compress it again"

    def _fill(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
        if self._options.nan == "mean":
            values = np.where(np.isnan(values), self._statistics.mean, values)
        return self._standardised(values)

    def _encode(self, number: int, values: npt.NDArray[np.float64], path: Path) -> npt.NDArray[Any]:
        try:
            encoded = encode_chunk(
                self._fill(values),
                self._options.quantizer,
                lower=self._lower,
                upper=self._upper,
                first_tile=number * self._chunk_rows // TILE_ROWS,
                chunk_shape=(self._chunk_rows, values.shape[1]),
                levels=None if self._fitted is None else self._fitted.places,
            )
        except ValueRefusedError as error:
            raise DataError(self._changed()) from error
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(add_checksum(encoded))
        return EncodedChunk.parse(encoded).variance_sums

    def _create(self) -> tuple[Callable[[int], Path], Any, Any, Any]:
        import zarr
        from numcodecs.checksum32 import CRC32C
        from numcodecs.zstd import Zstd

        options, n, d = self._options, self._statistics.rows, len(self._encoder.names)
        zarr_format = cast(Literal[2, 3], options.zarr_format)
        group = zarr.create_group(self._workspace, zarr_format=zarr_format, overwrite=True)
        v3 = options.zarr_format == 3
        codec: dict[str, Any]
        checked: dict[str, Any]  # for targets and weights: damage there must not go unnoticed
        if v3:
            checked = {
                "compressors": [
                    {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
                    {"name": "crc32c"},
                ]
            }
            serializer = {"name": "zipml.quantize", "configuration": options.quantizer.to_dict()}
            codec = {"serializer": serializer, "compressors": [{"name": "crc32c"}]}
        else:
            from zipml_codecs.numcodecs_codec import Quantize

            checked = {"compressors": Zstd(checksum=True)}
            codec = {"filters": [Quantize(**options.quantizer.to_dict())], "compressors": CRC32C()}

        def create(
            name: str, shape: tuple[int, ...], dtype: str, axes: list[str], **kw: Any
        ) -> Any:
            names: dict[str, Any] = (
                {"dimension_names": axes} if v3 else {"attributes": {"_ARRAY_DIMENSIONS": axes}}
            )
            chunks = (self._chunk_rows, *shape[1:])
            return group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, **names, **kw)

        # A missing chunk reads as the fill value: one that no value has. xarray also masks
        # the fill value of format 2, which must not be a level such as 0.
        x = create("X", (n, d), "f4", ["row", "column"], fill_value=np.nan, **codec)
        y = None
        if self._target is not None:
            outputs = len(self._target.names)
            shape, axes = ((n,), ["row"]) if outputs == 1 else ((n, outputs), ["row", "output"])
            dtype, fill = ("i4", -1) if self._target.classes else ("f8", np.nan)
            y = create("y", shape, dtype, axes, fill_value=fill, **checked)
        weights = None
        if options.weight is not None:
            weights = create("sample_weight", (n,), "f8", ["row"], fill_value=np.nan, **checked)
        root = self._workspace / "X"
        return lambda number: root / x.metadata.encode_chunk_key((number, 0)), y, weights, group

    def _spec(self, variance: list[npt.NDArray[Any]]) -> DatasetSpec:
        options, target, fitted = self._options, self._target, self._fitted
        each = self._variance(np.sum(variance, axis=0))
        weaved = options.quantizer.weaved
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
            variance=each[-1] if weaved else each,  # the highest precision comes last
            target_statistics=target.statistics if target else None,
            source=self._source.fingerprint(),
            level_tables=None if fitted is None else self._level_tables(fitted),
            precision_variance=each if weaved else None,
            weight=options.weight,
        )

    def _level_tables(self, fitted: FittedLevels) -> LevelTables:
        assert self._lower is not None and self._upper is not None
        span = self._upper.astype(np.float64) - self._lower
        return LevelTables(fitted.places, fitted.uniform * span**2)

    def _variance(self, total: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Rounding variance of one sample over all rows, from the sums of the chunks.

        Weaved: at each precision, lowest first.
        """
        if self._lower is None or self._upper is None:
            return np.asarray(total, np.float64) / self._statistics.rows
        span = self._upper.astype(np.float64) - self._lower
        q = self._options.quantizer
        steps: Any = q.intervals
        if q.weaved:
            steps = np.array([q.at(k).intervals for k in q.precisions])[:, None]
        if self._fitted is not None:
            steps = grid_steps(table_bits_of(self._fitted.places), self._options.samples)
        step = span / steps
        return np.asarray(
            total.astype(np.float64) / 2.0**32 / self._statistics.rows * step**2, np.float64
        )
