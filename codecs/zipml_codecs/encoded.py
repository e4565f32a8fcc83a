"""A view of encoded bytes: what a chunk holds, and its values, decoded by the native core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _native
from .errors import ChunkError
from .header import OWN_FIELDS, ChunkHeader, first_tile_of
from .parts import codes_of, places_of, scales_of, variances_of
from .quantizer import TILE_ROWS, Quantizer
from .tables import Places, code_values, grid_steps
from .weave import check_head, check_planes, check_scales, plane_ranges

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EncodedChunk"]

FloatArray = npt.NDArray[np.floating[Any]]

# An array from this size on does not stay in a processor's caches while it is decoded: chunks are
# written past them. Measured with 32 MiB of third-level cache: twice as fast for what goes to
# memory, half as fast for what would have stayed.
_STREAM_BYTES = 16 * 2**20


@dataclass(frozen=True)
class EncodedChunk:
    """A checked view of encoded bytes; nothing is copied or unpacked.

    Attributes
    ----------
    header : ChunkHeader
    lower : (columns,) array or None
        Lower bounds; None for row scales.
    upper : (columns,) or (rows,) array
        Upper bounds, or the scale of each row.
    variance_table : (columns,) uint64 or float64
        Sums behind `variance`, as stored: exact integers for column scales.
        With a level table two words a sum, the low one first. Empty where only the planes of a
        precision were fetched.
    codes : uint8 array
        The packed codes; weaved: the planes of the precision, one behind the other.
    places : (columns, levels) uint8 or uint16 array, or None
        The level table; None where levels are equally spaced.
    precision : int
        At how many bits the values are read: those of the quantiser, or fewer if it is weaved.
    fetched : int
        Bytes that the chunk was made from.
    head : bytes
        All that comes before the variances: what chunks of one array have in common, but for
        their place in it.
    """

    header: ChunkHeader
    lower: FloatArray | None
    upper: FloatArray
    variance_table: npt.NDArray[Any]
    codes: npt.NDArray[np.uint8]
    places: Places | None = None
    precision: int = 0
    fetched: int = 0
    head: bytes = b""

    @classmethod
    def parse(
        cls, data: Buffer, precision: int | None = None, *, like: EncodedChunk | None = None
    ) -> EncodedChunk:
        """Check encoded bytes and view their parts.

        Parameters
        ----------
        data : bytes
        precision : int, optional
            At how many bits to read a weaved chunk: all by default.
        like : EncodedChunk, optional
            A packed chunk that was parsed before: where this one has the same header and tables,
            they are not checked once more.

        Raises
        ------
        ChunkError
            The bytes are not a whole, valid chunk.
        ValueError
            The chunk is not stored for that precision.
        """
        view = memoryview(data).cast("B")
        if like is not None and precision in (None, like.precision):
            known = like.alike(view)
            if known is not None:
                return known
        header = ChunkHeader.parse(view)
        raw = np.frombuffer(view, np.uint8)
        at = header.quantizer.bits if precision is None else precision
        if header.quantizer.weaved:
            check_head(header, raw)
        elif at != header.quantizer.bits:
            raise ValueError(f"the chunk is packed at {header.quantizer.bits} bits, not at {at}")
        codes = codes_of(header, raw, at)
        lower, upper = scales_of(header, raw)
        alone = header.quantizer.by_row or header.quantizer.weaved  # no other one is `alike`
        return cls(
            header=header,
            lower=lower,
            upper=upper,
            variance_table=variances_of(header, raw),
            codes=codes,
            places=places_of(header, raw),
            precision=at,
            fetched=len(raw),
            head=b"" if alone else bytes(view[: header.variance_offset]),
        )

    def alike(self, data: memoryview) -> EncodedChunk | None:
        """The chunk in these bytes, if it differs from this one in its place and values alone.

        It has the very tables of this one, which are not checked once more. None where it differs
        in more, or where this one is not packed with column scales.
        """
        head = self.head
        if not head or len(data) != self.fetched:
            return None
        if not _native.begins_alike(data, head, *OWN_FIELDS):
            return None
        raw = np.frombuffer(data, np.uint8)
        chunk = object.__new__(_Alike)
        vars(chunk).update(
            self._in_common,
            first_tile=first_tile_of(data),
            codes=raw[len(raw) - self.header.codes_size :],
            _like=self.header,
            _raw=raw,
        )
        return chunk

    @cached_property
    def _in_common(self) -> dict[str, Any]:
        """What chunks that are like this one share with it."""
        names = ("lower", "upper", "places", "precision", "fetched", "head")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def parse_planes(
        cls, data: Buffer, precision: int, lower: FloatArray, upper: FloatArray
    ) -> EncodedChunk:
        """Check and view the parts of a weaved chunk that a precision needs.

        Parameters
        ----------
        data : bytes
            What `zipml_codecs.weave.plane_ranges` says, one range behind the other.
        precision : int
        lower, upper : (columns,) arrays
            Bounds of the columns, which are not among these bytes but have a checksum there.

        Raises
        ------
        ChunkError
            Damaged, of another length, or with other bounds.
        """
        view = memoryview(data).cast("B")
        header = ChunkHeader.parse(view, whole=False)
        if precision not in header.quantizer.precisions:
            raise ChunkError(f"the chunk is not stored for {precision} bits")
        raw = np.frombuffer(view, np.uint8)
        expected = sum(length for _, length in plane_ranges(header, precision))
        if len(raw) != expected:
            raise ChunkError(f"{len(raw)} bytes of the chunk, {precision} bits take {expected}")
        sums = check_head(header, raw)
        if not check_scales(sums, np.concatenate([lower, upper])):
            raise ChunkError("it has other levels")
        codes = raw[header.codes_offset :]
        check_planes(header, sums, codes, precision)
        none = np.empty((0, header.columns), np.uint64)
        return cls(header, lower, upper, none, codes, precision=precision, fetched=len(raw))

    @cached_property
    def first_tile(self) -> int:
        """Number of the chunk's first tile, counted through its array."""
        return self.header.first_tile

    @property
    def reading(self) -> Quantizer:
        """The quantiser of a chunk that is stored for its precision alone."""
        quantizer = self.header.quantizer
        return quantizer.at(self.precision) if quantizer.weaved else quantizer

    @property
    def variance_sums(self) -> npt.NDArray[Any]:
        """The sums as numbers that add up without overflow: integers of any size with tables."""
        if self.places is None:
            return self.variance_table
        words = self.variance_table.astype(object)
        return np.asarray(words[:, 0] + words[:, 1] * 2**64)

    @property
    def variance(self) -> npt.NDArray[np.float64]:
        """Rounding variance of one sample of each column, averaged over the stored rows.

        The mean of (right level - value) (value - left level), in squared units of the values.
        """
        rows = max(self.header.rows, 1)
        if self.lower is None:
            return np.asarray(self.variance_table, np.float64) / rows
        with np.errstate(over="ignore", invalid="ignore"):  # of float64 bounds beyond 1e154
            span = np.asarray(self.upper, np.float64) - self.lower
            if self.places is None:
                table = self.variance_table
                if self.header.quantizer.weaved:
                    table = table[self.header.quantizer.precisions.index(self.precision)]
                return np.asarray(table / 2.0**32 / rows * (span / self.reading.intervals) ** 2)
            sums = self.variance_table[:, 0] + 2.0**64 * self.variance_table[:, 1]
            step = span / grid_steps(self.header.table_bits, self.header.quantizer.samples)
            return np.asarray(sums / 2.0**32 / rows * step**2, np.float64)

    @cached_property
    def _code_values(self) -> FloatArray | None:
        """Values of the stored codes of each column; None where the core computes them."""
        if self.lower is None:
            return None
        half = self.header.item_size == 2
        samples = self.header.quantizer.samples
        if self.header.quantizer.weaved or (samples > 2 and self.places is None):
            steps = self.reading.intervals
            every = np.arange(steps + 1, dtype=np.uint16)[None]
            values = code_values(self.lower, self.upper, every, samples, half=half, steps=steps)
            more = (1 << self.reading.stored_bits) - values.shape[1]  # a power of two in all
            return np.ascontiguousarray(np.pad(values, ((0, 0), (0, more)), "edge"))
        if self.places is None:
            return None
        return code_values(self.lower, self.upper, self.places, samples, half=half)

    def decode_rows(
        self,
        first_tile: int,
        rows: int,
        dtype: npt.DTypeLike | None = None,
        out: FloatArray | None = None,
    ) -> FloatArray:
        """Decode `rows` stored rows from tile `first_tile` of the chunk on.

        Parameters
        ----------
        first_tile, rows : int
            A tile is 64 rows.
        dtype : float16, float32 or float64, optional
            Precision of the result, that of the chunk by default. Values are rounded to it as
            `numpy.ndarray.astype` does; what float16 cannot hold becomes infinite.
        out : (rows, columns) array, optional
            Where to put the values, of any strides.

        Returns
        -------
        (rows, columns) array
            `out` if it was given.
        """
        start = first_tile * TILE_ROWS
        upper = self.upper if self.lower is not None else self.upper[start : start + rows]
        place: dict[str, Any] = {"first_tile": first_tile, "upper": upper}
        if out is not None and _owner_bytes(out) >= _STREAM_BYTES:
            place["stream"] = True
        return self._decode("decode", (rows, self.header.columns), dtype, out, place)

    def take(
        self,
        rows: npt.ArrayLike,
        dtype: npt.DTypeLike | None = None,
        out: FloatArray | None = None,
    ) -> FloatArray:
        """Decode chosen rows, in any order; nothing but their bytes is read.

        Parameters
        ----------
        rows : (n,) integers
            Numbers of stored rows, counted from 0 within the chunk. Repeats are allowed.
        dtype, out : optional
            As for `decode_rows`; `out` has n rows.

        Returns
        -------
        (n, columns) array
            The same values, to the bit, as those rows of the whole chunk.

        Raises
        ------
        IndexError
            A row that the chunk does not have; negative numbers do not count from the end.
        """
        numbers = np.asarray(rows)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise TypeError(
                f"rows must be a one-dimensional array of integers, got {numbers.ndim} axes of "
                f"{numbers.dtype}"
            )
        outside = (numbers < 0) | (numbers >= self.header.rows)
        if outside.any():
            raise IndexError(
                f"row {numbers[outside][0]} lies outside of the chunk, "
                f"which has the rows 0 to {self.header.rows - 1}"
                if self.header.rows
                else f"row {numbers[0]} lies outside of the chunk, which has no rows"
            )
        numbers = np.ascontiguousarray(numbers, np.int64)
        place = {"rows": numbers, "upper": self.upper}
        return self._decode("take", (len(numbers), self.header.columns), dtype, out, place)

    def _decode(
        self,
        what: str,
        shape: tuple[int, int],
        dtype: npt.DTypeLike | None,
        out: FloatArray | None,
        place: dict[str, Any],
    ) -> FloatArray:
        header = self.header
        if out is None:
            out = np.empty(shape, f"f{header.item_size}" if dtype is None else dtype)
        wanted = "float16, float32 or float64"
        fits = out.dtype.kind == "f" and out.itemsize <= 8
        if fits and dtype is not None and np.dtype(dtype) != out.dtype:
            wanted, fits = str(np.dtype(dtype)), False
        if not fits:
            raise TypeError(f"the output must be {wanted}, not {out.dtype}")
        if out.shape != shape or not out.flags.writeable:
            raise ValueError(f"the output must be a writeable array of shape {shape}")
        if not out.size:
            return out
        # The core writes the chunk's own precision, and halves for floats; NumPy does the rest.
        native = out.dtype.isnative and (out.itemsize == 8) == (header.item_size == 8)
        native &= out.flags.aligned and all(s % out.itemsize == 0 for s in out.strides)
        to = out if native else np.empty(shape, "f8" if header.item_size == 8 else "f4")
        getattr(_native, f"{what}_f{8 * to.itemsize}")(
            codes=self.codes,
            chunk_rows=header.rows,
            lower=self.lower,
            bits=self.precision,
            samples=header.quantizer.samples,
            woven=header.quantizer.weaved,
            half=header.item_size == 2,
            out=to.view(np.uint16) if to.itemsize == 2 else to,
            values=self._code_values,
            **place,
        )
        if to is not out:
            with np.errstate(over="ignore"):  # infinite, as from the core
                out[...] = to
        return out

    def decode(self) -> FloatArray:
        """Decode the whole chunk, in the shape, dtype and memory order that was encoded."""
        header = self.header
        dtype = np.dtype(f"f{header.item_size}").newbyteorder(">" if header.big_endian else "=")
        order: Any = "F" if header.fortran else "C"
        if header.box == header.shape:
            out = np.empty(header.shape, dtype, order)
        else:
            out = np.full(header.shape, header.tail, dtype, order)
        inside: Any = (..., *(slice(0, n) for n in header.box))
        box = out[inside]
        matrix = box.reshape(header.rows, header.columns)  # a view of it, where that can be
        self.decode_rows(0, header.rows, out=matrix)
        if matrix.size and not np.may_share_memory(matrix, box):
            box[...] = matrix.reshape(header.box)
        return out

    def require_shape(self, shape: tuple[int, ...], item_size: int) -> None:
        """Check that the chunk decodes to what its array declares.

        Raises
        ------
        ChunkError
            Another shape or precision: the chunk belongs to another array.
        """
        header = self.header
        if header.shape != tuple(shape) or header.item_size != item_size:
            raise ChunkError(
                f"the chunk holds {header.shape} of float{8 * header.item_size}, its array "
                f"declares {tuple(shape)} of float{8 * item_size}"
            )


class _Alike(EncodedChunk):
    """A chunk like one that was parsed: what training does not look at waits until it is asked for.

    Without `__init__`, for training reads such chunks by the thousand.
    """

    _like: ChunkHeader
    _raw: npt.NDArray[np.uint8]

    @cached_property
    def header(self) -> ChunkHeader:
        return self._like.moved(self._raw.data)

    @cached_property
    def variance_table(self) -> npt.NDArray[Any]:
        return variances_of(self.header, self._raw)


def _owner_bytes(array: npt.NDArray[Any]) -> int:
    """Size of the array that this is a view of: a chunk decoded into its place in a large one."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array.nbytes
