"""A source one of whose numeric columns says how often each row counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources.base import Block, RowAccess, Source, name_list

__all__ = ["WeightedSource"]


class WeightedSource:
    """The same source without the column of weights, which its blocks have apart.

    Parameters
    ----------
    source : Source
    weight : str
        Name of a feature column.

    Raises
    ------
    UsageError
        There is no such column, or no other one.
    """

    def __init__(self, source: Source, weight: str) -> None:
        if weight not in source.columns:
            role = "it is the target" if weight in source.targets else "there is none of that name"
            raise UsageError(
                f"{source.paths[0]}: column {weight!r} cannot be the weight, {role}; "
                f"columns: {name_list(source.columns)}"
            )
        if weight in source.text_columns:
            raise UsageError(f"{source.paths[0]}: the weight {weight!r} is text, not numbers")
        if len(source.columns) == 1:
            raise UsageError(f"{source.paths[0]}: no column is left beside the weight {weight!r}")
        self._source, self._weight = source, weight
        self._position = source.columns.index(weight)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the feature columns."""
        return tuple(c for c in self._source.columns if c != self._weight)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Those of `columns` that hold text."""
        return self._source.text_columns

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the target columns, empty without target."""
        return self._source.targets

    @property
    def paths(self) -> tuple[str, ...]:
        """The files, in reading order."""
        return self._source.paths

    @property
    def row_access(self) -> RowAccess | None:
        """How ranges of rows are read."""
        return self._source.row_access

    def blocks(self, rows: int, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Read rows, by default all; every block but the last has exactly `rows` rows."""
        for block in self._source.blocks(rows, start, stop):
            features: Any = block.features
            if isinstance(features, np.ndarray):
                weight = features[:, self._position].astype(np.float64)
                features = np.delete(features, self._position, axis=1)
            else:
                column = features.column(self._weight)
                weight = column.to_numpy(zero_copy_only=False).astype(np.float64)
                features = features.drop_columns([self._weight])
            self._check(weight, block.first_row)
            yield replace(block, features=features, weight=weight)

    def _check(self, weight: npt.NDArray[np.float64], first_row: int) -> None:
        bad = ~(np.isfinite(weight) & (weight >= 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise DataError(
                f"{', '.join(self.paths)}: weight {self._weight!r} is {weight[row]} in row "
                f"{first_row + row} (counted from 0): a weight is a finite number, 0 or more; "
                "correct it or remove the row"
            )

    def fingerprint(self) -> dict[str, Any]:
        """Cheap provenance that fits JSON."""
        return self._source.fingerprint()
