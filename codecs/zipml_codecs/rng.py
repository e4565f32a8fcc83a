"""The counter-based generator, in NumPy: the reference of the native one.

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, SC 2011). docs/format.md, section "Random draws",
gives the counter layout.
"""

from __future__ import annotations

import enum
import functools

import numpy as np
import numpy.typing as npt

__all__ = [
    "Purpose",
    "philox",
    "quantize_draws",
    "rounding_draws",
    "split_mask",
    "uniforms",
    "weave_draws",
]

U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
_MUL = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


class Purpose(enum.IntEnum):
    """What a draw is for; the top byte of the last counter word."""

    QUANTIZE = 0
    SPLIT = 1
    ORDER = 2
    VALIDATION = 3
    MODEL = 4
    RESIDUAL = 5
    CHANNEL = 6
    WEAVE = 7
    SUBSET = 8
    DEVICE = 9


def philox(seed: int, counter: npt.ArrayLike) -> npt.NDArray[np.uint32]:
    """Return the four words of each block.

    Parameters
    ----------
    seed : int
        The 64-bit key.
    counter : (..., 4) integers
        Counter words, each below ``2**32``.

    Returns
    -------
    (..., 4) uint32
    """
    words = np.asarray(counter, np.uint64)
    x0, x1, x2, x3 = (words[..., i].copy() for i in range(4))
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        p0, p1 = _MUL[0] * x0, _MUL[1] * x2
        x0, x1, x2, x3 = (
            (p1 >> _HALF) ^ x1 ^ np.uint64(k0),
            p1 & _LOW,
            (p0 >> _HALF) ^ x3 ^ np.uint64(k1),
            p0 & _LOW,
        )
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


@functools.lru_cache(maxsize=16)  # sixteen neighbouring columns share the blocks of a split
def _blocks(seed: int, tile: int, index: int, last: int) -> npt.NDArray[np.uint32]:
    counter = np.empty((8, 4), np.uint64)
    counter[:] = (tile & 0xFFFFFFFF, (tile >> 32) & 0xFFFFFFFF, index, last)
    counter[:, 3] += np.arange(8, dtype=np.uint64)
    words = philox(seed, counter)
    words.flags.writeable = False
    return words


def quantize_draws(seed: int, tile: int, column: int, sample: int = 0) -> npt.NDArray[np.uint16]:
    """Return the 64 draws of 16 bits that quantise one column of one tile.

    Two samples share theirs; of four and eight each has its own.
    """
    words = _blocks(seed, tile, column, Purpose.QUANTIZE << 24 | sample << 8)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1)  # block, word, half
    return halves.transpose(1, 0, 2).reshape(64).astype(np.uint16)


def weave_draws(seed: int, tile: int, column: int, precision: int, sample: int) -> U16:
    """Return the 64 draws of 16 bits behind a sample plane, for one column of one tile."""
    words = _blocks(seed, tile, column, Purpose.WEAVE << 24 | (2 * precision + sample) << 8)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1)  # as for QUANTIZE
    return halves.transpose(1, 0, 2).reshape(64).astype(np.uint16)


def split_mask(seed: int, tile: int, column: int, draw: int) -> int:
    """Return 64 bits, that of row r at 8 (r mod 8) + r // 8: which of two samples rounded up."""
    words = _blocks(seed, tile, column // 16, Purpose.SPLIT << 24 | (draw & 0xFFFF) << 8)
    pair, block = divmod(column % 16, 8)
    return int(words[block, 2 * pair]) | int(words[block, 2 * pair + 1]) << 32


def rounding_draws(
    seed: int, purpose: Purpose, tile: int, index: int, draw: int
) -> npt.NDArray[np.uint16]:
    """Return the 64 draws of 16 bits that round 64 entries of a model, or residuals of a tile."""
    words = _blocks(seed, tile, index, purpose << 24 | (draw & 0xFFFF) << 8)
    halves = np.stack([words & 0xFFFF, words >> 16], axis=-1).reshape(8, 2, 2, 2)
    # block m, w // 2, w mod 2, half h: draw 32 (w // 2) + 4 m + 2 (w mod 2) + h
    return halves.transpose(1, 0, 2, 3).reshape(64).astype(np.uint16)


def uniforms(seed: int, purpose: Purpose, draw: int, index: npt.ArrayLike) -> U64:
    """Return 64 random bits for each of many indices, such as tile numbers."""
    indices = np.asarray(index, np.uint64)
    counter = np.zeros((*indices.shape, 4), np.uint64)
    counter[..., 0] = indices & _LOW
    counter[..., 1] = indices >> _HALF
    counter[..., 2] = draw & 0xFFFFFFFF
    counter[..., 3] = purpose << 24
    words = philox(seed, counter).astype(np.uint64)
    return words[..., 0] | words[..., 1] << _HALF
