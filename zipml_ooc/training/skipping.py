"""Which chunks a run leaves out because they are damaged: settled before it begins.

Every chunk is read and checked in one pass, and kept as far as there is room. So the answer does
not depend on who reads what, and the plan of the run is made without these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zipml_codecs import TILE_ROWS

from ..dataset import Dataset, open_cached
from ..dataset_spec import DatasetSpec
from ..errors import DamagedError, DataError
from .graph import Graph
from .loading import check_chunk, set_budget
from .problem import Problem
from .reading import cache_bytes
from .runner import Runner

__all__ = ["NOTHING_SKIPPED", "Skipped", "find_damaged"]

# Tasks of the pass; chunks that follow one another go to the same one.
_TASKS = 64


@dataclass(frozen=True)
class Skipped:
    """What is left out.

    Attributes
    ----------
    chunks : tuple of int
        Their numbers, ascending.
    rows : int
    reasons : tuple of str
        What is wrong with each of them.
    """

    chunks: tuple[int, ...] = ()
    rows: int = 0
    reasons: tuple[str, ...] = ()

    def tiles(self, spec: DatasetSpec) -> tuple[tuple[int, int], ...]:
        """First tile of each chunk, and the one after its last."""
        each = spec.chunk_rows // TILE_ROWS
        return tuple((n * each, min((n + 1) * each, spec.tiles)) for n in self.chunks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"chunks": len(self.chunks), "rows": self.rows, "numbers": list(self.chunks)}


NOTHING_SKIPPED = Skipped()


def find_damaged(
    dataset: Dataset, problems: Sequence[Problem], runner: Runner, budget: int | None
) -> Skipped:
    """Read all that a run will read, and list the chunks where that is damaged or missing.

    Raises
    ------
    DataError
        All of them are; or the store fails.
    """
    spec, graph = dataset.spec, Graph()
    shared = runner.share("problems", _Problems(tuple(problems)))
    size = -(-spec.chunks // _TASKS)
    parts = [
        graph.add(
            f"check-chunk{first}",
            _check,
            dataset.store.place,
            dataset.stamp,
            budget,
            shared,
            range(first, min(first + size, spec.chunks)),
        )
        for first in range(0, spec.chunks, size)
    ]
    computed = runner.compute(graph, graph.add("check-all", list, parts))
    found = [entry for part in computed for entry in part]
    if len(found) == spec.chunks:
        raise DataError(f"no chunk of {dataset.path} can be used; the first one: {found[0][1]}")
    numbers = tuple(number for number, _ in found)
    rows = sum(spec.rows_of_chunk(number) for number in numbers)
    return Skipped(numbers, rows, tuple(reason for _, reason in found))


@dataclass(frozen=True)
class _Problems:
    """Dask would take a list apart."""

    all: tuple[Problem, ...]


def _check(
    place: str, stamp: str, budget: int | None, problems: _Problems, numbers: range
) -> list[tuple[int, str]]:
    set_budget(cache_bytes(None) if budget is None else budget)
    dataset = open_cached(place, stamp)
    found = []
    for number in numbers:
        try:
            check_chunk(dataset, problems.all, number)
        except DamagedError as error:
            found.append((number, str(error)))
    return found
