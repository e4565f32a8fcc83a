"""From tiles to the beats of the stream and back, and from an encoded chunk to its beats."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk

from ..dataset import Dataset
from ..errors import DataError
from .floats import float_codes, float_packet, floats_of_codes
from .formats import NO_ROW, Format
from .reference import Tile
from .scaling import Scaling

__all__ = [
    "check_chunk",
    "chunk_packets",
    "dataset_packets",
    "pack",
    "tile_packet",
    "unpack",
]

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def _lane_order(form: Format) -> I64:
    """The lane of each field of a beat, from the lowest bits on, as in the packed layout."""
    size = form.lanes * form.bits // 8
    byte, place = np.divmod(np.arange(form.lanes), 8 // form.bits)
    return np.asarray(place * size + byte, np.int64)


def _target_bytes(targets: npt.ArrayLike) -> U8:
    """Targets as they travel: 16 bits each, lane after lane."""
    return np.asarray(targets, np.int64).astype("<i2").view(np.uint8)


def pack(tile: Tile, form: Format) -> U8:
    """The packet of a tile: (beats, bytes of a beat)."""
    if form.is_float:
        return float_packet(floats_of_codes(tile.codes), tile.targets, form)
    digits = tile.codes.T[:, _lane_order(form)]  # (columns, lanes)
    places = np.arange(form.bits)
    bits = (digits[:, :, None] >> places & 1).astype(np.uint8)
    codes = np.packbits(bits.reshape(len(digits), -1), axis=1, bitorder="little")
    return np.concatenate([_target_bytes(tile.targets).reshape(form.target_beats, -1), codes])


def unpack(packet: U8, form: Format) -> Tile:
    """The tile of a packet."""
    head, body = packet[: form.target_beats], packet[form.target_beats :]
    targets = np.ascontiguousarray(head).reshape(-1).view("<i2").astype(np.int64)[: form.lanes]
    if form.is_float:
        return Tile(float_codes(np.ascontiguousarray(body).view("<f4")).T, targets)
    bits = np.unpackbits(body, axis=1, bitorder="little").reshape(len(body), -1, form.bits)
    digits = bits.astype(np.int64) @ (1 << np.arange(form.bits))
    codes = np.empty((form.lanes, len(body)), np.int64)
    codes[_lane_order(form)] = digits.T
    return Tile(codes, targets)


def chunk_packets(chunk: EncodedChunk, targets: npt.ArrayLike, form: Format) -> list[U8]:
    """The packets of all tiles of a packed chunk; whole tiles' codes are the chunk's own bytes.

    Parameters
    ----------
    chunk : EncodedChunk
    targets : (rows,) integers
        In fixed point, see `zipml_ooc.gateware.scaling`.
    form : Format

    Raises
    ------
    DataError
        The gateware does not take such chunks, or targets are missing or out of range.
    """
    header = chunk.header
    check_chunk(chunk, form)
    fixed = np.asarray(targets, np.int64)
    if fixed.shape != (header.rows,) or (np.abs(fixed) > -NO_ROW - 1).any():
        raise DataError(
            f"a chunk of {header.rows} rows needs as many targets, of 16 bits and none "
            f"{NO_ROW}; got {fixed.shape} from {fixed.min(initial=0)} to {fixed.max(initial=0)}"
        )
    return [tile_packet(chunk, t, fixed, form) for t in range(-(-header.rows // TILE_ROWS))]


def check_chunk(chunk: EncodedChunk, form: Format) -> None:
    """See to it that the gateware takes a chunk.

    Raises
    ------
    DataError
        It does not.
    """
    header = chunk.header
    stored = header.quantizer.stored_bits
    if header.quantizer.weaved or header.table_bits or header.quantizer.by_row:
        raise DataError(
            "the accelerator takes packed chunks with equally spaced levels and column scales; "
            "compress with --levels uniform --scale column"
        )
    if stored != form.bits or form.lanes != TILE_ROWS:
        raise DataError(
            f"codes of {stored} bits in tiles of {TILE_ROWS} rows do not fit gateware for "
            f"{form.bits} bits and {form.lanes} lanes"
        )


def tile_packet(chunk: EncodedChunk, number: int, fixed: I64, form: Format) -> U8:
    """The packet of a tile of a chunk that was checked; `fixed` are the targets of the chunk."""
    header = chunk.header
    columns, tile_bytes = header.columns, header.columns * form.bits * TILE_ROWS // 8
    own = fixed[number * TILE_ROWS : (number + 1) * TILE_ROWS]
    padded = np.full(TILE_ROWS, NO_ROW)
    padded[: len(own)] = own
    part = chunk.codes[number * tile_bytes :][:tile_bytes]
    if len(part) < tile_bytes:  # a last tile with fewer slots: its bytes lie otherwise
        slots = -(-len(own) // 8) * 8
        part = _widened(part.reshape(columns, -1), slots, form)
    head = _target_bytes(padded).reshape(form.target_beats, -1)
    return np.concatenate([head, part.reshape(columns, -1)])


def dataset_packets(dataset: Dataset, scaling: Scaling, form: Format) -> Iterator[U8]:
    """The packets of all tiles of a dataset in order; chunks are read as they are needed.

    Raises
    ------
    DataError
        The gateware does not take such a dataset, or a chunk cannot be used.
    """
    spec = dataset.spec
    if spec.weight is not None:
        raise DataError(
            f"the accelerator does not take weights, and {dataset.path} has {spec.weight!r}: "
            "compress without --weight"
        )
    for number in range(-(-spec.rows // spec.chunk_rows)):
        chunk = dataset.read_chunk(number)
        start = number * spec.chunk_rows
        target = dataset.read_target(start, start + chunk.header.rows).reshape(-1, 1)
        fixed = scaling.targets(scaling.problem.scale_target(target)[:, 0])
        yield from chunk_packets(chunk, fixed, form)


def _widened(part: U8, slots: int, form: Format) -> U8:
    """Columns of a tile of fewer slots as those of a whole tile."""
    size = slots * form.bits // 8
    byte, place = np.divmod(np.arange(slots), 8 // form.bits)
    bits = np.unpackbits(part, axis=1, bitorder="little").reshape(len(part), slots, form.bits)
    codes = np.zeros((form.lanes, len(part)), np.int64)
    codes[place * size + byte] = (bits.astype(np.int64) @ (1 << np.arange(form.bits))).T
    nowhere = np.full(form.lanes, NO_ROW)
    return pack(Tile(codes, nowhere), form)[form.target_beats :]
