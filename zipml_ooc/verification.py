"""Whether a dataset is whole: every chunk of every array, and the metadata, read and compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, open_dataset
from .dataset_layout import DatasetLayout
from .errors import DataError, UsageError
from .first_pass import STATISTICS_ROWS, with_variance
from .statistics import StatisticsAccumulator
from .stored_pieces import Damage, ObjectCheck, StoredArray

__all__ = [
    "Inspection",
    "VerifyResult",
    "inspect",
    "metadata_files",
    "target_statistics_agree",
    "variance_agrees",
    "verify",
]

Progress = Callable[[str, int, int | None], None]

# What a sum in another order, or by another version of NumPy, may differ by.
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class VerifyResult:
    """What `verify` found.

    Attributes
    ----------
    path : str
    chunks : dict
        Number of chunks of each array.
    objects : int
        Files, or objects of a store, that hold them.
    read_bytes : int
    damages : tuple of Damage
        Empty if the dataset is whole.
    unchecked : tuple of str
        Arrays that are stored without checksums, as early versions did: damage there is found only
        where it leads to values that cannot be.
    """

    path: str
    chunks: dict[str, int]
    objects: int
    read_bytes: int
    damages: tuple[Damage, ...]
    unchecked: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether there is no damage."""
        return not self.damages


@dataclass
class Inspection:
    """A dataset with everything that was found in it.

    Attributes
    ----------
    dataset : Dataset
    layout : DatasetLayout
    arrays : dict of StoredArray
    metadata : dict
        Zarr's metadata of each array, from the group's own copy where there is one.
    sums : dict
        By chunk, the sums of rounding variance of the whole chunks of X.
    damages : list of Damage
    objects, read_bytes : int
    """

    dataset: Dataset
    layout: DatasetLayout
    arrays: dict[str, StoredArray]
    metadata: dict[str, Any]
    sums: dict[int, npt.NDArray[Any]] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)
    objects: int = 0
    read_bytes: int = 0


def verify(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Read a dataset whole and check it.

    Parameters
    ----------
    path : path or URL of the dataset
    threads : int, optional
        Objects to read at once, by default one for each core.
    progress : callable, optional
        Called as progress(stage, rows done, rows in all).

    Returns
    -------
    VerifyResult

    Raises
    ------
    UsageError
        There is nothing at the path.
    DataError
        The attributes of the dataset cannot be read: nothing else can be checked without them.

    Examples
    --------
    >>> from zipml_ooc import verify
    >>> verify("cadata.zarr").whole  # doctest: +SKIP
    True
    """
    found = inspect(path, threads=threads, progress=progress)
    return VerifyResult(
        path=str(found.dataset.path),
        chunks=dict.fromkeys(found.arrays, found.layout.spec.chunks),
        objects=found.objects,
        read_bytes=found.read_bytes,
        damages=tuple(found.damages),
        unchecked=tuple(name for name, array in found.arrays.items() if not array.checked),
    )


def inspect(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Do what `verify` does, and return everything that was found."""
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be positive, got {threads}")
    dataset = open_dataset(path)
    layout = DatasetLayout(dataset.spec, dataset.zarr_format, dataset.chunks_per_shard)
    metadata, damages = _check_metadata(dataset, layout)
    arrays = {
        name: StoredArray(layout, dataset.store, name, found, str(dataset.path))
        for name, found in metadata.items()
    }
    found = Inspection(dataset, layout, arrays, metadata, damages=damages)
    for array in arrays.values():
        _check_array(found, array, threads or os.cpu_count() or 1, progress)
    _check_against_attributes(found)
    return found


def _check_metadata(dataset: Dataset, layout: DatasetLayout) -> tuple[dict[str, Any], list[Damage]]:
    """The metadata of each array, and what is wrong with them where they lie."""
    import zarr

    from .stores.zarr_store import ReadOnlyStore

    group = zarr.open_group(ReadOnlyStore(dataset.store), mode="r")
    found: dict[str, Any] = {}
    damages: list[Damage] = []
    for name in layout.arrays:
        key = f"{name}/{'zarr.json' if layout.zarr_format == 3 else '.zarray'}"
        try:
            ours: Any = group[name].metadata
        except Exception as error:  # whatever Zarr makes of damaged JSON
            damages.append(Damage(key, f"it is missing or cannot be read: {error}"))
            continue
        expected = (layout.spec.rows, *layout.row_shape(name))
        dtype = np.dtype(ours.dtype.to_native_dtype())
        if ours.shape != expected or dtype != layout.dtype(name):
            damages.append(
                Damage(key, f"an array {ours.shape} of {dtype}, the attributes say {expected}")
            )
            continue
        found[name] = ours
        try:
            alone = zarr.open_array(ReadOnlyStore(dataset.store), path=name, mode="r").metadata
            same = metadata_files(alone) == metadata_files(ours)
            reason = "it is not what the group's metadata say"
        except Exception as error:
            same, reason = False, f"it is missing or cannot be read: {error}"
        if not same:
            damages.append(Damage(key, reason))
    return found, damages


def metadata_files(metadata: Any) -> dict[str, bytes]:
    """The files that metadata of an array are stored in, by name."""
    from zarr.core.buffer import default_buffer_prototype

    buffers = metadata.to_buffer_dict(default_buffer_prototype())
    return {name: buffer.to_bytes() for name, buffer in buffers.items()}


def _check_array(
    found: Inspection, array: StoredArray, threads: int, progress: Progress | None
) -> None:
    spec, dataset = found.layout.spec, found.dataset

    def check(chunks: range) -> ObjectCheck:
        done = array.check(chunks)
        if done.damages and dataset.store.remote:  # what came need not be what is there
            done = array.check(chunks)
        if array.name != "X" and array.codec is None:
            done.damages += [d for chunk in chunks if (d := _undecodable(dataset, array, chunk))]
        return done

    with ThreadPoolExecutor(threads, thread_name_prefix="zipml-verify") as pool:
        try:
            for chunks, done in zip(array.objects(), pool.map(check, array.objects()), strict=True):
                found.objects += 1
                found.read_bytes += done.read_bytes
                found.damages += done.damages
                found.sums |= done.sums
                if progress is not None:
                    rows = min(chunks.stop * spec.chunk_rows, spec.rows)
                    progress(f"verify {array.name}", rows, spec.rows)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _undecodable(dataset: Dataset, array: StoredArray, chunk: int) -> Damage | None:
    """What zarr-python says to a chunk whose codecs only it knows."""
    first = chunk * dataset.spec.chunk_rows
    rows = dataset.spec.rows_of_chunk(chunk)
    read = dataset.read_target if array.name == "y" else dataset.read_weight
    try:
        read(first, first + rows)
    except DataError as error:
        return Damage(array.places.key(chunk), str(error), array.name, chunk)
    return None


def _check_against_attributes(found: Inspection) -> None:
    spec, key = found.layout.spec, "zarr.json" if found.layout.zarr_format == 3 else ".zattrs"
    if len(found.sums) == spec.chunks and not variance_agrees(found, found.sums):
        reason = "its rounding variances are not those of the chunks"
        found.damages.append(Damage(key, reason))
    y = found.arrays.get("y")
    unsure = y is not None and not y.checked
    if unsure and not any(d.array == "y" for d in found.damages):
        read = found.dataset.read_target
        if not target_statistics_agree(found, read):
            reason = "the statistics of targets in the attributes are not those of y"
            found.damages.append(Damage(key, reason))


def variance_agrees(found: Inspection, sums: dict[int, npt.NDArray[Any]]) -> bool:
    """Whether chunks have the rounding variances that the attributes say."""
    spec = found.layout.spec
    recomputed = with_variance(spec, [sums[chunk] for chunk in range(spec.chunks)])
    return np.allclose(recomputed.variance, spec.variance, rtol=_TOLERANCE, atol=0)


def target_statistics_agree(
    found: Inspection, read: Callable[[int, int], npt.NDArray[np.float64]]
) -> bool:
    """Whether targets, as `read` gives ranges of rows of them, are those of the attributes."""
    spec = found.layout.spec
    if spec.target_statistics is None:
        return True
    accumulator = StatisticsAccumulator(len(spec.targets))
    for start in range(0, spec.rows, STATISTICS_ROWS):
        accumulator.update(read(start, min(start + STATISTICS_ROWS, spec.rows)))
    here, there = accumulator.result(), spec.target_statistics
    close = (
        np.allclose(getattr(here, name), getattr(there, name), rtol=_TOLERANCE, atol=0)
        for name in ("mean", "std", "minimum", "maximum")
    )
    return all(close)
