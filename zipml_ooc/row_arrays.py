"""Targets and weights: arrays with a few numbers a row, read chunk by chunk and decoded here.

zarr-python decodes what has codecs that are not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from .chunk_places import ChunkPlaces, MissingChunkError
from .errors import DataError
from .stores import Store

__all__ = ["RowArray"]

Decode = Callable[[Any], Any]

_CHECKSUM_BYTES = 4


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
        self._decoders = _decoders(array.metadata.to_dict(), self._places, self._dtype)
        if array.shape[1:] != self._places.shape[1:]:
            self._decoders = None  # columns in chunks of their own

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Read a range of rows.

        Raises
        ------
        DataError
            A chunk is missing or damaged; the message names it.
        """
        if self._decoders is None:
            try:
                return np.asarray(self._array[start:stop])
            except (OSError, ValueError, RuntimeError, KeyError, MemoryError) as error:
                raise DataError(
                    f"rows {start} to {stop} of {self._array.path} in {self._place} cannot be "
                    f"read: {error}"
                ) from error
        rows = self._places.shape[0]
        parts = []
        for number in range(start // rows, -(-stop // rows)):
            first = number * rows
            parts.append(self._chunk(number)[max(start - first, 0) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _chunk(self, number: int) -> npt.NDArray[Any]:
        assert self._decoders is not None
        title = f"chunk {self._places.title(number)} of {self._place}"
        for again in (True, False):
            try:
                place = self._places.find(number)
                data: Any = self._store.read(place.key, place.ranges(None))
            except (FileNotFoundError, MissingChunkError):
                raise DataError(f"{title} is missing: compress the source again") from None
            except OSError as error:
                raise DataError(f"{title} cannot be read: {error}") from error
            try:
                for decode in self._decoders:
                    data = decode(data)
                return np.asarray(np.frombuffer(data, self._dtype).reshape(self._places.shape))
            except (ValueError, RuntimeError, MemoryError) as error:
                if not (again and self._store.remote):  # what came may not be what is there
                    raise DataError(
                        f"{title} cannot be used: {error}; compress the source again"
                    ) from error
        raise AssertionError("the second try returns or raises")


def _decoders(
    metadata: Mapping[str, Any], places: ChunkPlaces, dtype: np.dtype[Any]
) -> list[Decode] | None:
    """What makes a chunk's bytes those of an array, in this order; None: not known here."""
    if metadata["zarr_format"] == 2:
        if metadata.get("filters") or metadata.get("order") != "C" or dtype.hasobject:
            return None
        compressor = metadata.get("compressor")
        return [] if compressor is None else _numcodecs(compressor)
    out: list[Decode] = []
    first, *rest = places.codecs
    little = first.get("configuration", {}).get("endian", "little") == "little"
    if first["name"] != "bytes" or not little or not dtype.isnative:
        return None
    for codec in reversed(rest):
        if codec["name"] == "crc32c":
            out.append(_checked)
        elif codec["name"] in ("zstd", "gzip"):
            found = _numcodecs({"id": codec["name"]})
            out.extend(found or ())
        else:
            return None
    return out


def _numcodecs(config: dict[str, Any]) -> list[Decode] | None:
    from numcodecs import get_codec

    return [get_codec(config).decode]


def _checked(data: Any) -> memoryview:
    view = memoryview(data)
    body = view[:-_CHECKSUM_BYTES]
    stated = int.from_bytes(view[-_CHECKSUM_BYTES:], "little")
    if google_crc32c.value(np.frombuffer(body, np.uint8)) != stated:
        raise ValueError("its checksum does not match: truncated or corrupted")
    return body
