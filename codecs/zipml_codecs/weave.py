"""Where the bit planes of a weaved chunk lie, and their checksums: docs/format.md, "Weaved codes".

A weaved chunk holds each bit of the codes in a plane of its own, so that a reader takes the planes
of its precision and leaves the others alone. What it needs lies in two runs: the head and the base
planes, and the sample planes of the precision. A checksum of the whole chunk does not help it: the
head has one of itself, of the tables and of every plane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ChunkError
from .quantizer import TILE_ROWS, Quantizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .header import ChunkHeader

__all__ = [
    "check_head",
    "check_planes",
    "check_scales",
    "place_tiles",
    "plane_ranges",
    "plane_runs",
    "tile_ranges",
    "write_checksums",
]

_SCALES, _VARIANCES, _PLANES = 0, 1, 2  # in the list of checksums


def plane_runs(quantizer: Quantizer, precision: int) -> list[tuple[int, int]]:
    """Return the planes of a precision as runs: first plane and number of planes.

    >>> plane_runs(Quantizer(bits=8, layout="weaved", samples=2), 2)
    [(0, 2), (12, 2)]
    """
    if precision not in quantizer.precisions:
        known = ", ".join(map(str, quantizer.precisions))
        raise ValueError(f"the chunk is stored for {known} bits, not for {precision}")
    above = sum(k > precision for k in quantizer.precisions)
    return [
        (0, precision),
        (quantizer.bits + quantizer.samples * above, quantizer.samples),
    ]


def plane_ranges(header: ChunkHeader, precision: int) -> list[tuple[int, int]]:
    """Return what to fetch for a precision: first byte and number of bytes of each range."""
    size, start = header.plane_size, header.codes_offset
    (_, base), (first, samples) = plane_runs(header.quantizer, precision)
    if first == base:
        return [(0, start + (base + samples) * size)]
    return [(0, start + base * size), (start + first * size, samples * size)]


def tile_ranges(header: ChunkHeader, precision: int, tiles: Sequence[int]) -> list[tuple[int, int]]:
    """Return what a reader at all bits fetches of tiles besides the base planes of a precision.

    Plane by plane, and of each the tiles, which ascend; neighbours are one range.
    """
    (_, bits), (_, samples) = plane_runs(header.quantizer, header.quantizer.bits)
    runs: list[tuple[int, int]] = []
    for tile in tiles:
        start, length = _tile_run(header, tile)
        if runs and sum(runs[-1]) == start:
            runs[-1] = (runs[-1][0], runs[-1][1] + length)
        else:
            runs.append((start, length))
    planes = range(precision, bits + samples)
    places = [header.codes_offset + plane * header.plane_size for plane in planes]
    return [(place + start, length) for place in places for start, length in runs]


def place_tiles(
    header: ChunkHeader, data: bytes | memoryview, tiles: Sequence[int], out: npt.NDArray[np.uint8]
) -> None:
    """Put what `tile_ranges` fetches, one range behind the other, to its places in planes.

    Parameters
    ----------
    header : ChunkHeader
    data : bytes
    tiles : sequence of int
    out : (planes, bytes of a plane) uint8 array
    """
    planes, at = np.frombuffer(data, np.uint8).reshape(len(out), -1), 0
    for start, length in (_tile_run(header, tile) for tile in tiles):
        out[:, start : start + length] = planes[:, at : at + length]
        at += length


def _tile_run(header: ChunkHeader, tile: int) -> tuple[int, int]:
    """Where a tile lies in each plane: first byte and number of bytes."""
    start = tile * TILE_ROWS // 8 * header.columns
    return start, min(TILE_ROWS // 8 * header.columns, header.plane_size - start)


def write_checksums(header: ChunkHeader, chunk: npt.NDArray[np.uint8]) -> None:
    """Put the checksums of a chunk that is otherwise whole into its head."""
    scales, variances = header.tables_offset, header.variance_offset
    parts = [
        chunk[scales : scales + header.scales_size],
        chunk[variances : variances + header.variance_size],
    ]
    size, start = header.plane_size, header.codes_offset
    parts += [chunk[start + i * size : start + (i + 1) * size] for i in range(header.planes)]
    sums = np.array([_native.crc32c(np.ascontiguousarray(p)) for p in parts], "<u4")
    place = header.checksums_offset
    chunk[place : place + sums.nbytes] = sums.view(np.uint8)
    end = place + sums.nbytes
    own = np.array([_native.crc32c(chunk[:end])], "<u4")
    chunk[end : end + 4] = own.view(np.uint8)


def check_head(header: ChunkHeader, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Check the head's own checksum and return the others."""
    end = header.checksums_offset + 4 * (_PLANES + header.planes)
    stated = int.from_bytes(data[end : end + 4].tobytes(), "little")
    if _native.crc32c(np.ascontiguousarray(data[:end])) != stated:
        raise ChunkError("the checksum of its head does not match: corrupted")
    return data[header.checksums_offset : end].copy().view("<u4").astype(np.uint32, copy=False)


def check_scales(sums: npt.NDArray[np.uint32], scales: npt.NDArray[Any]) -> bool:
    """Whether the chunk has these scales, which need not be fetched for that."""
    raw = scales.astype(scales.dtype.newbyteorder("<"), copy=False)
    return bool(_native.crc32c(np.ascontiguousarray(raw).view(np.uint8)) == sums[_SCALES])


def check_planes(
    header: ChunkHeader, sums: npt.NDArray[np.uint32], codes: npt.NDArray[np.uint8], precision: int
) -> None:
    """Check the planes of a precision, one behind the other."""
    numbers = [
        first + i for first, count in plane_runs(header.quantizer, precision) for i in range(count)
    ]
    size = header.plane_size
    for at, number in enumerate(numbers):
        plane = codes[at * size : (at + 1) * size]
        if _native.crc32c(plane) != sums[_PLANES + number]:
            raise ChunkError(f"the checksum of its plane {number} does not match: corrupted")
