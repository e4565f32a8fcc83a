"""Which rows are visited when: a function of the dataset, the options and the seed alone.

The unit of order is the tile (64 rows, counted through the whole dataset) and the unit of work is
the window, a fixed run of tiles. Neither knows of chunks, workers or threads, and so neither does
the trained model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS
from zipml_codecs.rng import Purpose, uniforms

from ..dataset_spec import DatasetSpec
from ..errors import UsageError
from .options import TrainOptions

__all__ = ["Plan", "Step", "make_plan"]

U64 = npt.NDArray[np.uint64]

_WINDOW_VALUES = 1 << 23
_MIN_WINDOW_TILES, _MAX_WINDOW_TILES = 64, 4096
_MAX_REPLICAS = 8
_WINDOWS_PER_REPLICA = 4
_MINI_BATCHES, _MIN_EPOCHS, _MAX_EPOCHS = 20_000, 5, 200
# Windows that are looked ahead to, at least.
_REACH = 2
# Draw numbers of the order of windows, apart from those of the tiles inside (the epochs).
_WINDOW_DRAWS = 1 << 31


@dataclass(frozen=True)
class Step:
    """One window for one replica: what a task needs to know."""

    epoch: int
    window: int
    first: float
    last: float
    """Parts of the whole run that are done before and after this window, 0 to 1."""


@dataclass(frozen=True)
class Plan:
    """The order of a training run.

    Attributes
    ----------
    tiles : int
        Tiles of the dataset.
    window_tiles : int
        Tiles of a window, but for the last.
    replicas : int
        Copies of the model that advance side by side and are averaged after each round.
    held_out : int
        A tile whose 64-bit hash is below this is held out for validation.
    validation_tiles : int
        How many these are.
    epochs : int
    seed : int
    """

    tiles: int
    window_tiles: int
    replicas: int
    held_out: int
    validation_tiles: int
    epochs: int
    seed: int
    left_out: tuple[tuple[int, int], ...] = ()
    """Runs of tiles that are not visited: the first of each, and the one after its last."""

    @property
    def training_tile_count(self) -> int:
        """Tiles to train on."""
        return (
            self.tiles - sum(stop - start for start, stop in self.left_out) - self.validation_tiles
        )

    @property
    def windows(self) -> int:
        """Number of windows."""
        return -(-self.tiles // self.window_tiles)

    @property
    def rounds_per_epoch(self) -> int:
        """Number of rounds of an epoch."""
        return -(-self.windows // self.replicas)

    def window_range(self, window: int) -> range:
        """Tiles of a window."""
        start = window * self.window_tiles
        return range(start, min(start + self.window_tiles, self.tiles))

    def training_tiles(self, window: int, epoch: int) -> npt.NDArray[np.int64]:
        """Tiles of a window to train on, in the order of an epoch."""
        tiles = self._select(window, held_out=False)
        keys = uniforms(self.seed, Purpose.ORDER, epoch, tiles)
        return tiles[np.argsort(keys, kind="stable")]

    def held_out_tiles(self, window: int) -> npt.NDArray[np.int64]:
        """Tiles of a window that are held out."""
        return self._select(window, held_out=True)

    def kept_tiles(self, window: int) -> npt.NDArray[np.int64]:
        """Tiles of a window to train on, in the order of the dataset."""
        return self._select(window, held_out=False)

    def _select(self, window: int, *, held_out: bool) -> npt.NDArray[np.int64]:
        tiles = np.array(self.window_range(window), np.int64)
        run = self.window_range(window)
        for start, stop in self.left_out:
            if start < run.stop and stop > run.start:
                tiles = tiles[(tiles < start) | (tiles >= stop)]
        if not self.held_out:
            return tiles[:0] if held_out else tiles
        hashes = uniforms(self.seed, Purpose.VALIDATION, 0, tiles)
        mask = hashes < np.uint64(self.held_out)
        return tiles[mask] if held_out else tiles[~mask]

    def window_order(self, draw: int) -> list[int]:
        """All windows, shuffled: for samples of them."""
        keys = uniforms(self.seed, Purpose.ORDER, _WINDOW_DRAWS + draw, np.arange(self.windows))
        return [int(w) for w in np.argsort(keys, kind="stable")]

    def replica_windows(self, replica: int) -> range:
        """The windows that a replica goes through: it keeps to them, and so do caches."""
        return range(
            replica * self.windows // self.replicas, (replica + 1) * self.windows // self.replicas
        )

    def replica_of(self, window: int) -> int:
        """The replica that goes through a window."""
        return -(-(window + 1) * self.replicas // self.windows) - 1

    def around(
        self, window: int, epoch: int | None = None, replicas: frozenset[int] | None = None
    ) -> tuple[list[int], list[int]]:
        """Windows that are visited at the time of one, and those that come after it.

        In the order of an epoch, the next one following it, or in the order of the dataset; all of
        them, or those of some replicas.
        """
        if replicas is None:
            replicas = frozenset(range(self.replicas))
        reach = max(len(replicas), _REACH)
        if epoch is None:
            near = range(max(0, window - reach), min(window + 1 + 2 * reach, self.windows))
            own = [w for w in near if self.replica_of(w) in replicas]
            return [w for w in own if w <= window], [w for w in own if w > window]
        order, places = _order(self, epoch)
        place = places[window]
        begins, ends = place // self.replicas * self.replicas, place + 1

        def own_of(some: list[int], most: int) -> list[int]:
            return [w for w in some if self.replica_of(w) in replicas][:most]

        after = own_of(order[ends : ends + 3 * reach * self.replicas], 2 * reach)
        if len(after) < reach and epoch + 1 < self.epochs:
            following = _order(self, epoch + 1)[0]
            after += own_of(following[: reach * self.replicas], reach - len(after))
        return own_of(order[begins:ends], self.replicas), after

    def epoch_order(self, epoch: int) -> list[int]:
        """The windows of an epoch, a round after the other.

        Each replica has a run of windows to itself, shuffled in every epoch. So a round takes
        windows from all over the dataset, and where a replica is computed on the same worker every
        time, its chunks are there already.
        """
        keys = uniforms(self.seed, Purpose.ORDER, _WINDOW_DRAWS + epoch, np.arange(self.windows))
        own = []
        for replica in range(self.replicas):
            windows = self.replica_windows(replica)
            shuffled = np.argsort(keys[windows.start : windows.stop], kind="stable")
            own.append([windows[i] for i in shuffled.tolist()])
        return [
            windows[turn]
            for turn in range(self.rounds_per_epoch)
            for windows in own
            if turn < len(windows)
        ]

    def rounds(self, epoch: int) -> Iterator[list[Step]]:
        """The windows of an epoch, in rounds of one for each replica."""
        order = self.epoch_order(epoch)
        whole = self.epochs * self.windows
        for start in range(0, len(order), self.replicas):
            group = order[start : start + self.replicas]
            done = epoch * self.windows + start
            first, last = done / whole, (done + len(group)) / whole
            yield [Step(epoch, window, first, last) for window in group]


@lru_cache(maxsize=4)
def _order(plan: Plan, epoch: int) -> tuple[list[int], dict[int, int]]:
    """The windows of an epoch, and the place of each: what every task of it asks for."""
    order = plan.epoch_order(epoch)
    return order, {window: place for place, window in enumerate(order)}


def make_plan(
    spec: DatasetSpec, options: TrainOptions, left_out: tuple[tuple[int, int], ...] = ()
) -> Plan:
    """Lay out a run.

    Parameters
    ----------
    spec : DatasetSpec
    options : TrainOptions
    left_out : tuple of (int, int)
        Runs of tiles that are not visited.

    Raises
    ------
    UsageError
        Holding out rows leaves none to train on, or none to validate with; more replicas than
        tiles.
    """
    columns = max(len(spec.columns), 1)
    fitting = _WINDOW_VALUES // (columns * TILE_ROWS)
    window_tiles = min(max(_MIN_WINDOW_TILES, _power_of_two(fitting)), _MAX_WINDOW_TILES)
    wanted = options.replicas
    while wanted is not None and window_tiles > 1 and -(-spec.tiles // window_tiles) < wanted:
        window_tiles //= 2  # each replica needs a window of its own
    windows = -(-spec.tiles // window_tiles)
    if wanted is not None and windows < wanted:
        raise UsageError(
            f"{wanted} replicas need a tile of {TILE_ROWS} rows each and the dataset has "
            f"{spec.tiles}: use fewer"
        )
    usable = np.arange(spec.tiles)
    for start, stop in left_out:
        usable[start:stop] = -1
    usable = usable[usable >= 0]
    held_out, count = _validation_threshold(usable, options)
    batches = -(-(len(usable) - count) // options.batch_tiles)
    epochs = options.epochs or min(max(-(-_MINI_BATCHES // batches), _MIN_EPOCHS), _MAX_EPOCHS)
    if options.solver == "gram":
        epochs = 1
    return Plan(
        tiles=spec.tiles,
        window_tiles=window_tiles,
        replicas=wanted or min(max(1, windows // _WINDOWS_PER_REPLICA), _MAX_REPLICAS),
        held_out=held_out,
        validation_tiles=count,
        epochs=epochs,
        seed=options.seed,
        left_out=left_out,
    )


def _power_of_two(number: int) -> int:
    return 1 << (number.bit_length() - 1) if number > 0 else 0


def _validation_threshold(usable: npt.NDArray[np.int64], options: TrainOptions) -> tuple[int, int]:
    if options.validation == 0:
        return 0, 0
    tiles = len(usable)
    count = max(1, round(options.validation * tiles))
    if count >= tiles:
        raise UsageError(
            f"validation {options.validation} of {tiles} tile(s) of {TILE_ROWS} rows leaves "
            "nothing to train on: hold out less"
        )
    hashes = uniforms(options.seed, Purpose.VALIDATION, 0, usable)
    return int(np.partition(hashes, count)[count]), count
