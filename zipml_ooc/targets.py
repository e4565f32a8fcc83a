"""What is to be predicted: numbers, or classes whose labels keep their type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DataError, UsageError
from .statistics import ColumnStatistics, StatisticsAccumulator

__all__ = ["TASKS", "Label", "TargetEncoder", "TargetScan", "label_codes"]

TASKS = ("auto", "regression", "classification")
Label = str | int | float | bool
_MAX_CLASSES = 1000


@dataclass(frozen=True)
class TargetEncoder:
    """Maps target values to what is stored.

    Attributes
    ----------
    task : {"regression", "classification"}
    names : tuple of str
        The target columns.
    classes : tuple of labels, or None
        Sorted; a stored code is an index into them.
    statistics : ColumnStatistics or None
        Of the targets of a regression.
    """

    task: str
    names: tuple[str, ...]
    classes: tuple[Label, ...] | None = None
    statistics: ColumnStatistics | None = None

    def transform(self, target: npt.NDArray[Any], first_row: int) -> npt.NDArray[Any]:
        """Return float64 values or int32 class codes, in the shape of `target`."""
        if self.classes is None:
            return _numbers(target, self.names, first_row)
        codes = label_codes(target, self.classes)
        if (codes < 0).any():
            row = int(np.flatnonzero(codes < 0)[0])
            raise DataError(
                f"target {self.names[0]!r}, row {first_row + row} (counted from 0): "
                f"{target[row]!r} is none of the "
                f"{len(self.classes)} classes"
            )
        return codes


def label_codes(labels: npt.NDArray[Any], classes: tuple[Label, ...]) -> npt.NDArray[np.int32]:
    """Return the index of each label among the sorted classes, -1 where it is none of them."""
    known = np.array(classes, dtype=object if isinstance(classes[0], str) else None)
    if known.dtype == object:
        index = {label: i for i, label in enumerate(classes)}
        codes = [index.get(label, -1) for label in labels.tolist()]
        return np.array(codes, np.int32)
    try:
        numbers = np.asarray(labels, np.float64)
    except (TypeError, ValueError):
        return np.full(len(labels), -1, np.int32)
    values = known.astype(np.float64)
    found = np.minimum(np.searchsorted(values, numbers), len(values) - 1)
    return np.where(values[found] == numbers, found, -1).astype(np.int32)


class TargetScan:
    """Sees every target value once and then says which task it is and which classes there are.

    ``auto`` takes text, booleans and numbers of exactly two values as classes, and all other
    numbers as a regression target.

    Parameters
    ----------
    names : tuple of str
    task : {"auto", "regression", "classification"}
    keep_blocks : bool
        So that another scan can `merge` this one.
    """

    def __init__(self, names: tuple[str, ...], task: str, *, keep_blocks: bool = False) -> None:
        if task not in TASKS:
            raise UsageError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
        if task == "classification" and len(names) > 1:
            raise UsageError(
                f"classification takes one target column, got {len(names)}: {', '.join(names)}"
            )
        self.names = names
        self._task = task
        self._labels: set[Label] = set()
        self._text = False
        self._statistics = StatisticsAccumulator(len(names), keep=keep_blocks)
        self._keep = task != "regression" and len(names) == 1

    def update(self, target: npt.NDArray[Any], first_row: int) -> None:
        """Look at the targets of one block."""
        numeric = self._task == "regression" or len(self.names) > 1
        if target.dtype.kind in "OUS" or (target.dtype.kind == "b" and not numeric):
            self._text = True
            if numeric:
                raise DataError(
                    f"target {', '.join(map(repr, self.names))} is not numeric (row {first_row}: "
                    f"{target.reshape(-1)[0]!r}); use --task classification"
                    + (" with one target" if len(self.names) > 1 else "")
                )
        elif self._text:
            raise self._changes()
        else:
            values = _numbers(target, self.names, first_row)
            self._statistics.update(values.reshape(len(values), -1))
        if self._keep:
            self._collect(target, first_row)

    def _collect(self, target: npt.NDArray[Any], first_row: int) -> None:
        if target.dtype.kind in "OUS":
            labels = target.tolist()
            for row, label in enumerate(labels):
                if label is None or label != label:
                    raise DataError(
                        f"target {self.names[0]!r} has no value in row {first_row + row} "
                        "(counted from 0): "
                        "remove the row or give it a label"
                    )
            self._labels.update(labels)
        else:
            self._labels.update(np.unique(target).tolist())
        self._limit_labels()

    def _limit_labels(self) -> None:
        limit = _MAX_CLASSES if self._text or self._task == "classification" else 2
        if len(self._labels) > limit:
            if limit == _MAX_CLASSES:
                raise DataError(
                    f"target {self.names[0]!r} has more than {_MAX_CLASSES} classes: "
                    "is it a number to predict (--task regression) or an identifier?"
                )
            self._keep = False

    def merge(self, other: TargetScan) -> None:
        """See what another scan saw of the rows that follow."""
        if self._text and other._statistics.rows:
            raise self._changes()
        self._text |= other._text
        self._statistics.merge(other._statistics)
        self._labels |= other._labels
        self._keep &= other._keep
        if self._keep:
            self._limit_labels()

    def _changes(self) -> DataError:
        return DataError(f"target {self.names[0]!r} changes from labels to numbers")

    def result(self) -> TargetEncoder:
        """Decide; call after every block has been seen."""
        labels = (
            self._text or self._task == "classification" or (self._keep and len(self._labels) == 2)
        )
        if not labels:
            statistics = self._statistics.result()
            if not np.isfinite(statistics.std).all():
                name = self.names[int(np.flatnonzero(~np.isfinite(statistics.std))[0])]
                raise DataError(f"the values of target {name!r} are too large: rescale it")
            return TargetEncoder("regression", self.names, statistics=statistics)
        classes = tuple(sorted(self._labels, key=lambda v: (str(type(v)), v)))
        if len(classes) < 2:
            raise DataError(
                f"target {self.names[0]!r} has one class only ({classes[0]!r}): "
                "there is nothing to tell apart"
            )
        if all(isinstance(c, float) and c.is_integer() for c in classes):
            classes = tuple(int(c) for c in classes)
        return TargetEncoder("classification", self.names, classes)


def _numbers(
    target: npt.NDArray[Any], names: tuple[str, ...], first_row: int
) -> npt.NDArray[np.float64]:
    values = np.asarray(target, np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        place = np.argwhere(bad)[0]
        name = names[int(place[1])] if values.ndim > 1 else names[0]
        raise DataError(
            f"target {name!r} is {values[tuple(place)]} in row "
            f"{first_row + int(place[0])} (counted from 0): "
            "remove the row or give it a value"
        )
    return values
