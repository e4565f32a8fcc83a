"""Rows that few bits cannot decide, read again at all bits (ZipML, section 4.2).

The slope of the hinge loss is one of two numbers, and a margin that is known to within some bound
tells which for all rows but those near the kink. The native core finds these rows and asks for the
planes that their tiles lack, which are fetched here and kept.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk, Quantizer

from ..dataset import Dataset
from ..errors import UsageError

__all__ = ["NOTHING", "REFETCH", "Refetcher", "Reread", "WholePlanes", "require_refetching"]

REFETCH = "refetch"
"""The estimator's name."""

# Up to this part of the tiles of a chunk are fetched one by one, in parts of planes that have no
# checksum. From there on all others come along, and what is there is checked: nothing is fetched
# twice, at most as much again as was asked for, and most chunks are checked early on.
_SINGLE = 0.5

U8 = npt.NDArray[np.uint8]


def require_refetching(quantizer: Quantizer, bits: int | None, loss: str, solver: str) -> None:
    """Check that a dataset and options go with reading rows again.

    Raises
    ------
    UsageError
        With what to do instead.
    """
    if loss != "hinge":
        raise UsageError(
            f"--gradient {REFETCH} is for the hinge loss, whose slope a bound can decide, not for "
            f"the {loss} loss: use --loss hinge, or --gradient auto"
        )
    if not quantizer.weaved:
        raise UsageError(
            f"--gradient {REFETCH} reads some rows at more bits and the dataset is packed at "
            f"{quantizer.bits} bits: compress the source again with --layout weaved"
        )
    if bits is None or bits == quantizer.bits:
        fewer = ", ".join(map(str, quantizer.precisions[:-1]))
        raise UsageError(
            f"--gradient {REFETCH} needs fewer bits to begin with than the {quantizer.bits} that "
            "are stored: "
            + (f"set --bits to {fewer}" if fewer else "compress again with more --precisions")
        )
    if solver != "sgd":
        raise UsageError(f"--gradient {REFETCH} goes with --solver sgd, not with {solver}")


@dataclass(frozen=True)
class Reread:
    """What was read again: of how many rows, and how many bytes that took by tiles."""

    rows: int = 0
    of: int = 0
    bytes: int = 0

    def __add__(self, other: Reread) -> Reread:
        return Reread(self.rows + other.rows, self.of + other.of, self.bytes + other.bytes)

    @property
    def rate(self) -> float:
        """Part of the rows."""
        return self.rows / (self.of or 1)


NOTHING = Reread()


class WholePlanes:
    """All planes of a chunk, of which those beyond a precision come tile by tile.

    Attributes
    ----------
    codes : uint8 array
        As `EncodedChunk.codes` of the chunk read at all bits, where the planes are there.
    """

    def __init__(self, dataset: Dataset, number: int, few: EncodedChunk) -> None:
        header = few.header
        self._dataset, self._number, self._few = dataset, number, few
        size, base = header.plane_size, few.precision * header.plane_size
        planes = header.quantizer.bits + header.quantizer.samples
        self.codes: U8 = np.empty(planes * size, np.uint8)
        self.codes[:base] = few.codes[:base]
        self._rest = self.codes[base:].reshape(-1, size)
        self._there = np.zeros(-(-header.rows // TILE_ROWS), np.uint8)
        self._lock = threading.Lock()

    def present(self) -> U8:
        """For each tile, 1 where its planes are there."""
        with self._lock:
            return self._there.copy()

    def fetch(self, tiles: Sequence[int]) -> None:
        """See to it that the planes of these tiles are there."""
        with self._lock:
            missing = sorted({tile for tile in tiles if not self._there[tile]})
            if not missing:
                return
            read = self._dataset.read_tiles
            if self._there.sum() + len(missing) > _SINGLE * len(self._there):
                missing = np.flatnonzero(self._there == 0).tolist()
                read = self._dataset.complete_chunk
            read(self._number, self._few, missing, self._rest)
            self._there[missing] = 1


@dataclass(frozen=True)
class Refetcher:
    """What a task gives the native core, so that it can ask for the planes of its tiles."""

    chunks: list[WholePlanes]
    present: list[U8]
    counts: npt.NDArray[np.uint64]
    slot_bytes: float

    @classmethod
    def of(cls, chunks: list[WholePlanes], slot_bytes: float) -> Refetcher:
        """Begin with what has been fetched before."""
        present = [chunk.present() for chunk in chunks]
        return cls(chunks, present, np.zeros(2, np.uint64), slot_bytes)

    def fetch(self, tiles: list[tuple[int, int]]) -> None:
        """Fetch what is missing of tiles: number of the chunk here, and of the tile in it."""
        for chunk in dict.fromkeys(chunk for chunk, _ in tiles):
            self.chunks[chunk].fetch([tile for at, tile in tiles if at == chunk])
            self.present[chunk][:] = self.chunks[chunk].present()

    def arguments(self) -> dict[str, Any]:
        """Those of the kernels."""
        return {"fetch": self.fetch, "refetched": self.counts}

    def reread(self, rows: int) -> Reread:
        """What was read again of so many rows."""
        again, slots = (int(count) for count in self.counts)
        return Reread(again, rows, round(slots * self.slot_bytes))
