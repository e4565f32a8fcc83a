"""The gradient channel: what replicas send after a round, rounded stochastically to a few bits.

A replica sends the change of its model, not the model. A vector is cut into buckets; each bucket
has a norm, and its entries are rounded to signed multiples of a part of that norm, up or down so
that the expectation is the entry itself (Alistarh and others, QSGD, NIPS 2017). What travels is
bytes: a norm of four bytes for each bucket and a few bits for each entry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from zipml_codecs.rng import Purpose, philox

__all__ = ["BUCKET", "Channel", "Packed"]

BUCKET = 512
"""Entries that share a norm."""

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Packed:
    """A vector as it travels.

    Attributes
    ----------
    shape : tuple of int
    norms : bytes
        A float32 for each bucket: what the largest code stands for.
    codes : bytes
        An entry's signed code plus the largest code, `Channel.bits` bits each, most significant
        first; the last byte is filled with zeros.
    """

    shape: tuple[int, ...]
    norms: bytes
    codes: bytes


@dataclass(frozen=True)
class Channel:
    """How a vector is rounded on its way.

    Parameters
    ----------
    bits : int
        Bits of an entry, 2 to 8: codes run from ``-s`` to ``s`` with ``s = 2**(bits - 1) - 1``.
    norm : {"max", "l2"}
        What ``s`` stands for: the largest magnitude of the bucket, or its Euclidean norm as in
        QSGD, under which most entries become zero.
    seed : int

    Examples
    --------
    >>> import numpy as np
    >>> channel = Channel(bits=8, norm="max", seed=0)
    >>> sent = channel.pack(np.array([0.5, -1.0, 0.25]), draw=0, window=3, vector=0)
    >>> len(sent.codes), len(sent.norms)
    (3, 4)
    >>> float(np.abs(channel.unpack(sent) - [0.5, -1.0, 0.25]).max()) < 1 / 127
    True
    """

    bits: int
    norm: str
    seed: int

    @property
    def largest_code(self) -> int:
        """The code that the norm of a bucket has."""
        return (1 << (self.bits - 1)) - 1

    def pack(
        self, values: npt.NDArray[np.floating], *, draw: int, window: int, vector: int
    ) -> Packed:
        """Round a vector.

        Parameters
        ----------
        values : array
        draw, window, vector : int
            Name the random draws: the epoch, the window that was visited, and which of the
            vectors of a replica this is.
        """
        flat = np.asarray(values, np.float64).reshape(-1)
        buckets = np.zeros((-(-flat.size // BUCKET), BUCKET))
        buckets.reshape(-1)[: flat.size] = flat
        top = self.largest_code
        norms = _norms(buckets, self.norm)
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.abs(buckets) / norms[:, None].astype(np.float64) * top
        exact[norms == 0] = 0.0
        low = np.floor(exact)
        draws = _draws(self.seed, draw, window, vector, flat.size)
        up = draws < (exact.reshape(-1)[: flat.size] - low.reshape(-1)[: flat.size]) * 2.0**32
        size = np.minimum(low.reshape(-1)[: flat.size] + up, top)
        with np.errstate(invalid="ignore"):  # what is not finite is seen by its norm
            codes = np.where(flat < 0, top - size, top + size).astype(np.uint8)
        bits = np.unpackbits(codes[:, None], axis=1)[:, 8 - self.bits :]
        return Packed(
            np.shape(values), norms.astype("<f4").tobytes(), np.packbits(bits.reshape(-1)).tobytes()
        )

    def unpack(self, packed: Packed) -> F64:
        """Return the rounded vector, in double precision."""
        size = int(np.prod(packed.shape))
        bits = np.unpackbits(np.frombuffer(packed.codes, np.uint8), count=size * self.bits)
        padded = np.zeros((size, 8), np.uint8)
        padded[:, 8 - self.bits :] = bits.reshape(size, self.bits)
        codes = np.packbits(padded, axis=1)[:, 0].astype(np.float64) - self.largest_code
        steps = np.frombuffer(packed.norms, "<f4").astype(np.float64) / self.largest_code
        return (codes * np.repeat(steps, BUCKET)[:size]).reshape(packed.shape)


def _norms(buckets: F64, norm: str) -> npt.NDArray[np.float32]:
    """Norms of the rows, rounded up to single precision: no entry exceeds its norm."""
    if norm == "max":
        exact = np.abs(buckets).max(axis=1, initial=0.0)
    else:  # halves are added to halves, in one order on every machine
        largest = np.abs(buckets).max(axis=1, initial=0.0)
        unit = np.where((largest > 0) & np.isfinite(largest), largest, 1.0)
        squares = np.square(buckets / unit[:, None])
        while squares.shape[1] > 1:
            half = squares.shape[1] // 2
            squares = squares[:, :half] + squares[:, half:]
        exact = np.maximum(np.sqrt(squares[:, 0]) * unit, largest)
    with np.errstate(over="ignore"):
        norms = exact.astype(np.float32)
        low = norms.astype(np.float64) < exact
        return np.asarray(np.where(low, np.nextafter(norms, np.float32(np.inf)), norms))


def _draws(seed: int, draw: int, window: int, vector: int, count: int) -> npt.NDArray[np.uint32]:
    """32 random bits for each entry: entry i takes word i mod 4 of block i // 4."""
    counter = np.empty((-(-count // 4), 4), np.uint64)
    counter[:, 0] = np.arange(len(counter), dtype=np.uint64)
    counter[:, 1] = window
    counter[:, 2] = draw
    counter[:, 3] = Purpose.CHANNEL << 24 | vector
    return philox(seed, counter).reshape(-1)[:count]
