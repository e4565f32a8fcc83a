"""The fixed header of an encoded chunk: docs/format.md, section "Header".

Parsing trusts nothing: every offset and size is recomputed from the shape and compared, so that a
hostile header cannot make a reader look outside of its bytes or allocate more than the chunk.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from . import _native
from .errors import ChunkError
from .quantizer import LAYOUTS, SCALES, Quantizer

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAGIC", "MAJOR", "ChunkHeader"]

MAGIC = b"ZPML"
MAJOR = 1
_FIXED = struct.Struct("<4s10BHQQQdQQQQQ")
# Bytes of what belongs to one chunk of an array alone: its first tile, and its imputed values.
OWN_FIELDS = (24, 40)
_OWN = struct.Struct("<QQ")
_FIRST_TILE = struct.Struct("<Q")
_FLAG_BIG_ENDIAN, _FLAG_FORTRAN, _FLAG_NAN_MEAN = 1, 2, 4
_KNOWN_FLAGS = 7
_TABLE_BITS = (0, 8, 16)  # by the number of the level scheme; 0: equally spaced levels
_MAX_NDIM = 32
ITEM_SIZES = (2, 4, 8)
LARGEST = {2: 65504.0, 4: float.fromhex("0x1.fffffep127"), 8: math.inf}
"""The largest finite value that each item size holds (of doubles, any)."""


def _minor(quantizer: Quantizer, table_bits: int) -> int:
    """The version that a reader needs."""
    return 3 if quantizer.samples > 2 else 2 if quantizer.weaved else 1 if table_bits else 0


def _aligned(size: int, to: int) -> int:
    return -(-size // to) * to


@dataclass(frozen=True)
class ChunkHeader:
    """Everything about a chunk but its tables and codes.

    Attributes
    ----------
    quantizer : Quantizer
    item_size : int
        Bytes of the decoded float: 2, 4 or 8.
    shape, box : tuple of int
        Shape of the chunk, and of its leading part whose values are stored; all values outside
        of the box equal `tail`.
    tail : float
    first_tile : int
        Counter of the first tile: the global row divided by 64 where it is known.
    imputed : int
        How many NaN were replaced by a mean.
    big_endian, fortran : bool
        Byte order and memory order of the array that was encoded; decoding restores them.
    table_bits : int
        Bits of a place in the level table, 8 or 16; 0 where levels are equally spaced.
    """

    quantizer: Quantizer
    item_size: int
    shape: tuple[int, ...]
    box: tuple[int, ...]
    tail: float = 0.0
    first_tile: int = 0
    imputed: int = 0
    big_endian: bool = False
    fortran: bool = False
    table_bits: int = 0

    @property
    def rows(self) -> int:
        """Stored rows: the product of all axes of the box but the last (1-D: its length)."""
        return matrix_shape(self.box)[0]

    @property
    def columns(self) -> int:
        """Stored columns: the last axis of the box (1-D: one)."""
        return matrix_shape(self.box)[1]

    @property
    def head_size(self) -> int:
        """Bytes of the fields up to the tables; weaved: up to the checksums."""
        return _aligned(_FIXED.size + 16 * len(self.shape), 8)

    @property
    def checksums_offset(self) -> int:
        """Where the checksums of a weaved chunk start."""
        return self.head_size

    @property
    def tables_offset(self) -> int:
        """Where the scales start; weaved: behind the planes."""
        if self.quantizer.weaved:
            return _aligned(self.codes_offset + self.codes_size, 8)
        return self.head_size

    @property
    def scales_size(self) -> int:
        """Bytes of the scales or bounds."""
        scales = self.rows if self.quantizer.by_row else 2 * self.columns
        return max(self.item_size, 4) * scales

    @property
    def places_offset(self) -> int:
        """Where the level table starts, after the scales or the bounds."""
        return _aligned(self.tables_offset + self.scales_size, 8)

    @cached_property
    def variance_offset(self) -> int:
        """Where the rounding variances start, after the level table."""
        places = (self.quantizer.intervals + 1) * self.columns if self.table_bits else 0
        return _aligned(self.places_offset + self.table_bits // 8 * places, 8)

    @cached_property
    def variance_size(self) -> int:
        """Bytes of the variances of all columns: sums over level tables take twice as many.

        Weaved: those of every precision.
        """
        each = (16 if self.table_bits else 8) * self.columns
        return each * max(len(self.quantizer.precisions), 1)

    @property
    def planes(self) -> int:
        """Planes of a weaved chunk."""
        return self.quantizer.stored_bits

    @property
    def plane_size(self) -> int:
        """Bytes of a plane of a weaved chunk."""
        return _native.codes_size(self.rows, self.columns, 1)

    @property
    def codes_offset(self) -> int:
        if self.quantizer.weaved:
            return _aligned(self.checksums_offset + 4 * (self.planes + 3), 64)
        return _aligned(self.variance_offset + self.variance_size, 64)

    @cached_property
    def codes_size(self) -> int:
        if self.quantizer.weaved:
            return self.planes * self.plane_size
        return _native.codes_size(self.rows, self.columns, self.quantizer.stored_bits)

    @property
    def total_size(self) -> int:
        if self.quantizer.weaved:
            return self.variance_offset + self.variance_size
        return self.codes_offset + self.codes_size

    def pack(self) -> bytes:
        """Return the header's bytes, up to the tables or checksums."""
        q = self.quantizer
        flags = (
            (_FLAG_BIG_ENDIAN if self.big_endian else 0)
            | (_FLAG_FORTRAN if self.fortran else 0)
            | (_FLAG_NAN_MEAN if q.nan == "mean" else 0)
        )
        fixed = _FIXED.pack(
            MAGIC,
            MAJOR,
            _minor(q, self.table_bits),
            q.bits,
            q.samples,
            LAYOUTS.index(q.layout),
            _TABLE_BITS.index(self.table_bits),
            SCALES.index(q.scale),
            self.item_size,
            len(self.shape),
            flags,
            sum(1 << (k - 1) for k in q.precisions),
            q.seed,
            self.first_tile % 2**64,
            self.imputed,
            self.tail,
            self.rows,
            self.columns,
            self.tables_offset,
            self.codes_offset,
            self.total_size,
        )
        axes = struct.pack(f"<{2 * len(self.shape)}Q", *self.shape, *self.box)
        return (fixed + axes).ljust(self.head_size, b"\0")

    @classmethod
    def parse(cls, data: memoryview, *, whole: bool = True) -> ChunkHeader:
        """Read and check a header; `data` is the whole chunk, or not `whole` and starts like it.

        Raises
        ------
        ChunkError
            Not a chunk of ours, of a newer format, truncated, or inconsistent.
        """
        if len(data) < _FIXED.size:
            raise ChunkError(
                f"{len(data)} bytes are too few for a zipml chunk (header: {_FIXED.size} bytes)"
            )
        (
            magic, major, _minor, bits, samples, layout, levels, scale, item_size, ndim, flags,
            declared, seed, first_tile, imputed, tail, rows, columns, tables, codes, total,
        ) = _FIXED.unpack_from(data)  # fmt: skip
        if magic != MAGIC:
            raise ChunkError(
                f"the bytes start with {magic!r} and not with {MAGIC!r}: no zipml chunk"
            )
        if major != MAJOR:
            raise ChunkError(
                f"the chunk has format version {major}, this reader knows {MAJOR}: update zipml-ooc"
            )
        if layout >= len(LAYOUTS) or levels >= len(_TABLE_BITS) or flags & ~_KNOWN_FLAGS:
            raise ChunkError(
                f"the chunk uses a feature that this reader does not know (layout {layout}, "
                f"levels {levels}, flags {flags}): update zipml-ooc"
            )
        if item_size not in ITEM_SIZES or ndim > _MAX_NDIM or scale >= len(SCALES):
            raise ChunkError(
                f"impossible header: item size {item_size}, {ndim} axes, scale number {scale}"
            )
        if len(data) < _FIXED.size + 16 * ndim:
            raise ChunkError("the chunk ends inside of its header")
        axes = struct.unpack_from(f"<{2 * ndim}Q", data, _FIXED.size)
        weaved = LAYOUTS[layout] == "weaved"
        precisions = tuple(k for k in range(1, 17) if declared >> (k - 1) & 1) if weaved else ()
        if weaved and bits not in precisions:
            raise ChunkError(f"impossible header: {bits} bits are not among its precisions")
        try:
            quantizer = Quantizer(
                bits=bits,
                samples=samples,
                scale=SCALES[scale],
                seed=seed,
                nan="mean" if flags & _FLAG_NAN_MEAN else "error",
                levels="optimal" if levels else "uniform",
                layout=LAYOUTS[layout],
                precisions=precisions,
            )
        except ValueError as error:
            raise ChunkError(f"impossible header: {error}") from error
        header = cls(
            quantizer=quantizer,
            item_size=item_size,
            shape=axes[:ndim],
            box=axes[ndim:],
            tail=tail,
            first_tile=first_tile,
            imputed=imputed,
            big_endian=bool(flags & _FLAG_BIG_ENDIAN),
            fortran=bool(flags & _FLAG_FORTRAN),
            table_bits=_TABLE_BITS[levels],
        )
        available = len(data) if whole else max(total, len(data))
        header._check_sizes((rows, columns, tables, codes, total), available)
        return header

    def moved(self, data: Buffer) -> ChunkHeader:
        """The header at the start of bytes that are like this one's but for `OWN_FIELDS`."""
        first_tile, imputed = _OWN.unpack_from(data, OWN_FIELDS[0])
        return replace(self, first_tile=first_tile, imputed=imputed)

    def _check_sizes(self, stated: tuple[int, ...], available: int) -> None:
        if any(b > s for b, s in zip(self.box, self.shape, strict=True)):
            raise ChunkError(f"impossible header: box {self.box} exceeds shape {self.shape}")
        # What numpy can address; axes of length zero do not hide the others.
        if math.prod(max(n, 1) for n in self.shape) * self.item_size >= 2**63:
            raise ChunkError(f"impossible header: no array can have the shape {self.shape}")
        if math.isfinite(self.tail) and abs(self.tail) > LARGEST[self.item_size]:
            raise ChunkError(f"impossible header: tail {self.tail} is no float{8 * self.item_size}")
        # Eight values a byte is the densest that a chunk can be: bounds every product below.
        if math.prod(self.box) > 8 * available:
            raise ChunkError(
                f"the header claims {math.prod(self.box)} values, too many for {available} bytes"
            )
        try:
            expected = (
                self.rows, self.columns, self.tables_offset, self.codes_offset, self.total_size
            )  # fmt: skip
        except ValueError as error:  # only where a part of the chunk says how large the whole is
            raise ChunkError(f"impossible header: box {self.box}: {error}") from error
        if stated != expected:
            raise ChunkError(
                f"impossible header: sizes and offsets {stated} do not follow from the shape, "
                f"which gives {expected}"
            )
        if available != self.total_size:
            raise ChunkError(
                f"the chunk has {available} bytes and should have {self.total_size}: "
                + ("truncated" if available < self.total_size else "bytes follow its end")
            )


def first_tile_of(data: Buffer) -> int:
    """The first tile that bytes name which are known to begin with a header."""
    return int(_FIRST_TILE.unpack_from(data, OWN_FIELDS[0])[0])


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of an array: the last axis holds the columns, a vector is one column."""
    if not shape:
        return 1, 1
    if len(shape) == 1:
        return shape[0], 1
    return math.prod(shape[:-1]), shape[-1]
