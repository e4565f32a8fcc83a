"""Targets and weights: arrays with a few numbers a row, read chunk by chunk and decoded here.

zarr-python decodes what has codecs that are not known here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import ChunkError

from .chunk_places import ChunkPlace, ChunkPlaces, MissingChunkError
from .errors import REMEDY, DamagedError, DataError
from .stores import Store
from .stores.retries import UnavailableError
from .value_codec import CHECKSUM_BYTES, ValueCodec, require_size

__all__ = ["RowArray"]


class RowArray:
    """One array beside X.

    Parameters
    ----------
    store : Store
    name : str
        Of the array in its group.
    array : zarr.Array
    place : str
        What errors call the dataset.
    """

    def __init__(self, store: Store, name: str, array: Any, place: str) -> None:
        self._store, self._array, self._place = store, array, place
        self._places = ChunkPlaces(store, name, array.metadata, place)
        self._dtype = np.dtype(array.dtype)
        self._chunk_bytes = math.prod(self._places.shape) * self._dtype.itemsize
        self._codec: ValueCodec | None = None
        if array.shape[1:] == self._places.shape[1:]:  # no columns in chunks of their own
            self._codec = _codec(array.metadata.to_dict(), self._places, self._dtype)
        self._plain = self._codec is not None and self._codec.as_they_are

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read a range of rows.

        Raises
        ------
        DataError
            A chunk is missing or damaged; the message names it.
        """
        if self._codec is None:
            try:
                return np.asarray(self._array[start:stop])
            except (OSError, ValueError, RuntimeError, KeyError, MemoryError) as error:
                raise DataError(
                    f"rows {start} to {stop} of {self._array.path} in {self._place} cannot be "
                    f"read: {error}"
                ) from error
        rows = self._places.shape[0]
        numbers = range(start // rows, -(-stop // rows))
        if len(numbers) == 1:
            first = numbers.start * rows
            return self._chunk(numbers.start)[start - first : stop - first]
        parts = []
        for number in numbers:
            first = number * rows
            parts.append(self._chunk(number)[max(start - first, 0) : stop - first])
        return np.concatenate(parts)

    def _chunk(self, number: int) -> npt.NDArray[Any]:
        for again in (True, False):
            try:
                return self._values(self._places.find(number))
            except (FileNotFoundError, MissingChunkError):
                raise DamagedError(f"{self._title(number)} is missing: {REMEDY}") from None
            except OSError as error:
                kind = DataError if isinstance(error, UnavailableError) else DamagedError
                raise kind(f"{self._title(number)} cannot be read: {error}") from error
            except ChunkError as error:
                if not (again and self._store.remote):  # what came may not be what is there
                    raise DamagedError(
                        f"{self._title(number)} cannot be used: {error}; {REMEDY}"
                    ) from error
        raise AssertionError("the second try returns or raises")

    def _values(self, place: ChunkPlace) -> npt.NDArray[Any]:
        assert self._codec is not None
        if self._plain:
            expected = self._chunk_bytes + CHECKSUM_BYTES
            body = self._store.read_checked(place.key, place.part, expected)
            require_size(len(body), self._chunk_bytes)
            return np.frombuffer(body, self._dtype).reshape(self._places.shape)
        data = self._store.read(place.key, place.ranges(None))
        values = np.empty(self._places.shape, self._dtype)
        self._codec.decode(data, values)
        return values

    def _title(self, number: int) -> str:
        return f"chunk {self._places.title(number)} of {self._place}"


def _codec(metadata: Mapping[str, Any], places: ChunkPlaces, dtype: np.dtype[Any]) -> Any:
    """What decodes the chunks of an array; None where that is zarr-python."""
    if metadata["zarr_format"] == 2:
        plain = metadata["order"] == "C" and not dtype.hasobject
        return ValueCodec.from_metadata(metadata) if plain and dtype.isnative else None
    endian = places.codecs[0].get("configuration", {}).get("endian", "little")
    return ValueCodec.from_metadata(metadata, places.codecs) if endian == "little" else None
