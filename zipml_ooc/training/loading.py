"""Tiles as the kernels take them: chunks and targets, fetched once and kept within a budget.

Nothing is unpacked here. What the codes mean is the business of `problem`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, EncodedChunk
from zipml_codecs._native import TileBatch

from ..cache import ByteCache, Group, Item
from ..dataset import Dataset
from .problem import F32, F64, Problem, RowWeights
from .refetching import NOTHING, Refetcher, Reread, WholePlanes
from .weights import chunk_weights

__all__ = ["LoadedTiles", "check_chunk", "load_tiles", "look_ahead", "set_budget"]


@dataclass(frozen=True)
class LoadedTiles:
    """Tiles in the order asked for: packed codes and targets, ready for the kernels.

    Attributes
    ----------
    batch : TileBatch
    targets : list of (rows of chunk, outputs) float32, or of class codes (rows of chunk, 1)
    chunks : list of EncodedChunk
    tiles : (count, 2) uint32
        Chunk in this list, and tile in the chunk.
    bytes_read : int
        Size of the encoded chunks, of weaved ones what the precision takes, whether they came
        from the store or from the cache.
    problem : Problem
        What they were loaded for.
    weights : list of (rows of chunk,) float32, or None
    refetcher : Refetcher or None
        Where rows may be read again.
    """

    batch: TileBatch
    targets: list[F32]
    chunks: list[EncodedChunk]
    tiles: npt.NDArray[np.uint32]
    bytes_read: int
    problem: Problem
    weights: list[F32] | None = None
    refetcher: Refetcher | None = None

    def part(self, start: int, stop: int) -> LoadedTiles:
        """Some of the tiles, with the bytes of their part; for problems that read no row again."""
        assert self.refetcher is None
        refs = self.tiles[start:stop]
        batch = _batch(self.problem, self.chunks, self.targets, refs, self.weights)
        read = self.bytes_read * len(refs) // max(len(self.tiles), 1)
        return replace(self, batch=batch, tiles=refs, bytes_read=read)

    @property
    def fetching(self) -> dict[str, Any]:
        """What the kernels take where rows may be read again."""
        return {} if self.refetcher is None else self.refetcher.arguments()

    @property
    def reread(self) -> Reread:
        """What was read again so far, for a kernel that has gone through the tiles."""
        return NOTHING if self.refetcher is None else self.refetcher.reread(self.batch.rows)

    @property
    def weight(self) -> float:
        """How often the rows count together: their number, or the sum of their weights."""
        return self.batch.rows if self.weights is None else float(self.ordered_weights().sum())

    def ordered_weights(self) -> F64:
        """Weights of the rows, in the order of the tiles."""
        if self.weights is None:
            return np.ones(self.batch.rows)
        parts = [
            self.weights[c][t * TILE_ROWS : (t + 1) * TILE_ROWS] for c, t in self.tiles.tolist()
        ]
        return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)

    @property
    def chunk_bytes(self) -> dict[int, int]:
        """What was read of each encoded chunk, by its first tile."""
        return {c.first_tile: c.fetched for c in self.chunks}

    def ordered_targets(self) -> F32:
        """Targets of the rows, in the order of the tiles: (rows, outputs), or class codes."""
        parts = [
            self.targets[c][t * TILE_ROWS : (t + 1) * TILE_ROWS] for c, t in self.tiles.tolist()
        ]
        return np.concatenate(parts) if parts else np.empty((0, 1), np.float32)

    def margins(self, model: F32, intercept: F32) -> F32:
        """Margins of the rows, in the order of the tiles: (rows, outputs)."""
        out = np.empty((self.batch.rows, len(model)), np.float32)
        self.batch.margins(model, intercept, out)
        return out


# Encoded chunks and targets that this process has read: compressed data often fits in memory
# where the raw data did not.
_CACHE = ByteCache(128 << 20)


def set_budget(budget_bytes: int) -> None:
    """Say how many bytes of encoded chunks and targets this process may hold."""
    _CACHE.budget_bytes = budget_bytes


def _chunk(dataset: Dataset, problem: Problem, number: int) -> Item[EncodedChunk]:
    return Item(
        Group(_owner(dataset), "X", problem.precision),
        number,
        lambda: dataset.read_chunk(number, problem.precision),
        lambda chunk: chunk.fetched,
    )


def _whole(dataset: Dataset, number: int, few: EncodedChunk) -> Item[WholePlanes]:
    return Item(
        Group(_owner(dataset), "planes", few.precision, rank=1),  # they took many requests
        number,
        lambda: WholePlanes(dataset, number, few),
        lambda whole: whole.codes.nbytes,
    )


def _target(dataset: Dataset, problem: Problem, number: int) -> Item[F32]:
    start = number * dataset.spec.chunk_rows
    stop = start + dataset.spec.rows_of_chunk(number)
    scaling = problem.target_mean.tobytes(), problem.target_std.tobytes()
    return Item(
        Group(_owner(dataset), "y", scaling, rank=2),  # a tenth of X, and as long to decode
        number,
        lambda: problem.scale_target(dataset.read_target(start, stop)),
        lambda target: target.nbytes,
    )


def _weights(dataset: Dataset, weights: RowWeights, number: int) -> Item[F32]:
    return Item(
        Group(_owner(dataset), "sample_weight", weights, rank=2),
        number,
        lambda: chunk_weights(dataset, weights, number),
        lambda values: values.nbytes,
    )


def _owner(dataset: Dataset) -> tuple[str, str]:
    return dataset.store.place, dataset.stamp


def check_chunk(dataset: Dataset, problems: Iterable[Problem], number: int) -> None:
    """Read all that problems need of a chunk and its rows, and keep it if there is room.

    Raises
    ------
    DataError
        It cannot be used.
    """
    spec = dataset.spec
    for problem in problems:
        _CACHE.get(_chunk(dataset, problem, number))
        _CACHE.get(_target(dataset, problem, number))
        if problem.finer:
            dataset.read_chunk(number)
    if spec.weight is not None:
        start = number * spec.chunk_rows
        dataset.read_weight(start, start + spec.rows_of_chunk(number))


def look_ahead(
    dataset: Dataset, problem: Problem, now: Iterable[range], after: Iterable[range]
) -> None:
    """Begin to fetch the chunks of the runs of tiles that come after those that are used now."""
    _CACHE.look_ahead(_items(dataset, problem, now), _items(dataset, problem, after))


def _items(dataset: Dataset, problem: Problem, runs: Iterable[range]) -> list[Item[Any]]:
    per_chunk = dataset.spec.chunk_rows // TILE_ROWS
    chunks = (n for run in runs for n in range(run.start // per_chunk, -(-run.stop // per_chunk)))
    items: list[Item[Any]] = []
    for number in dict.fromkeys(chunks):
        items += [_chunk(dataset, problem, number), _target(dataset, problem, number)]
        if problem.weights is not None:
            items.append(_weights(dataset, problem.weights, number))
    return items


def load_tiles(
    dataset: Dataset, problem: Problem, tiles: npt.NDArray[np.int64], *, again: bool = False
) -> LoadedTiles:
    """Fetch the chunks that hold the given tiles; codes stay packed.

    With `again` rows may be read at more bits, if the problem is one that does so.
    """
    per_chunk = dataset.spec.chunk_rows // TILE_ROWS
    numbers, where = np.unique(tiles // per_chunk, return_inverse=True)
    chunks = [_CACHE.get(_chunk(dataset, problem, number)) for number in numbers.tolist()]
    targets = [_CACHE.get(_target(dataset, problem, number)) for number in numbers.tolist()]
    weights = None
    if problem.weights is not None:
        weights = [
            _CACHE.get(_weights(dataset, problem.weights, number)) for number in numbers.tolist()
        ]
    refetcher, whole = None, None
    if again and problem.finer:
        finer = problem.finer + problem.samples
        slot = (finer - problem.precision) * problem.columns / 8
        pairs = zip(numbers.tolist(), chunks, strict=True)
        held = [_CACHE.get(_whole(dataset, n, chunk)) for n, chunk in pairs]
        refetcher = Refetcher.of(held, slot)
        whole = [planes.codes for planes in held], refetcher.present, finer
    refs = np.stack([where, tiles % per_chunk], axis=1).astype(np.uint32)
    batch = _batch(problem, chunks, targets, refs, weights, whole)
    taken = sum(chunk.fetched for chunk in chunks)
    return LoadedTiles(batch, targets, chunks, refs, taken, problem, weights, refetcher)


def _batch(
    problem: Problem,
    chunks: list[EncodedChunk],
    targets: list[F32],
    refs: npt.NDArray[np.uint32],
    weights: list[F32] | None,
    whole: Any = None,
) -> TileBatch:
    return TileBatch(
        codes=[chunk.codes for chunk in chunks],
        targets=targets,
        row_scales=[chunk.upper if chunk.lower is None else None for chunk in chunks],
        first_tiles=np.array([chunk.first_tile for chunk in chunks], np.uint64),
        tiles=refs,
        offset=problem.offset,
        slope=problem.slope,
        centre=problem.centre,
        stored_bits=problem.stored_bits,
        outputs=problem.outputs,
        tables=problem.tables,
        woven=problem.woven,
        weights=weights or [],
        whole=whole,
    )
