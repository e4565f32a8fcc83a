"""Where a run stands: everything that changes on its way, so that it can go on from there.

A course is never changed but replaced by the next one, between rounds and between epochs. What a
run was asked for (dataset, options, plan) is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self

import numpy as np

from ..errors import DataError
from ..executors.protocol import Counters
from .divergence import Seen, Weakest
from .executing import Lost
from .plan import Plan
from .polynomial import Polynomial
from .problem import F32, F64
from .refetching import Reread
from .replicas import State
from .results import EpochRecord
from .schedules import Schedule
from .tasks import Anchor

__all__ = ["Course", "Setting"]


@dataclass(frozen=True)
class Setting:
    """How far to step and how much to correct, settled from the data.

    Attributes
    ----------
    schedule : Schedule
    weak : Weakest or None
        The direction that the divergence guard looks in.
    """

    schedule: Schedule
    weak: Weakest | None = None


@dataclass(frozen=True)
class Course:
    """Where a run stands.

    Attributes
    ----------
    attempt : int
        How often it has begun again with smaller steps.
    first, setting : Setting
        What the attempt began with, and what is live: the correction changes with the precision.
    state : State
    seen : Seen
        What the divergence guard remembers.
    epoch : int
        The one in progress, from 0.
    rounds : int or None
        How many of its rounds are done; None before it has begun.
    anchor : Anchor or None
        That of the epoch in progress, for ``svrg``.
    variance : (columns,) float32 or None
        Rounding variances weighted by the curvature at a model, where that is done.
    polynomial : Polynomial or None
        That of polynomial gradients, chosen at a model.
    stage : int
        Number of the precision that is live.
    stage_best : float
        Smallest loss at this precision, see `Stages`.
    records : tuple of EpochRecord
    kept : (model, intercept) or None
        What the run would hand over: the last model, or with patience the best one.
    kept_loss : float or None
        Its validation loss.
    waited : int
        Epochs since then.
    settled : bool
        No epoch is left to run.
    seconds, epoch_seconds : float
        Since the beginning, and those of them before this epoch.
    lost : Lost or None
        Where the executor was given up: the native core runs what comes after.
    """

    attempt: int
    first: Setting
    setting: Setting
    state: State
    seen: Seen
    epoch: int = 0
    rounds: int | None = None
    anchor: Anchor | None = None
    variance: F32 | None = None
    polynomial: Polynomial | None = None
    stage: int = 0
    stage_best: float = math.inf
    records: tuple[EpochRecord, ...] = ()
    kept: tuple[F64, F64] | None = None
    kept_loss: float | None = None
    waited: int = 0
    settled: bool = False
    seconds: float = 0.0
    epoch_seconds: float = 0.0
    lost: Lost | None = None

    def place(self, plan: Plan) -> str:
        """Say how far the run has come."""
        if self.settled:
            return f"all of {self.epoch} epochs"
        done, of = self.rounds or 0, plan.rounds_per_epoch
        return f"epoch {self.epoch + 1} of {plan.epochs}, {done} of {of} rounds done"

    def keeping(
        self, estimate: tuple[F64, F64], loss: float | None, patience: int | None, *, last: bool
    ) -> Self:
        """Keep the last model, or with patience the best one until it runs out."""
        best = self.kept_loss
        if patience is None or loss is None or best is None or loss < best:
            kept, waited = (estimate, loss), 0
        else:
            assert self.kept is not None
            kept, waited = (self.kept, best), self.waited + 1
        settled = last or (patience is not None and waited >= patience)
        return replace(self, kept=kept[0], kept_loss=kept[1], waited=waited, settled=settled)

    def require_arrays_of(self, begun: State) -> None:
        """See to it that all arrays are such as a run has that begins there.

        Raises
        ------
        DataError
            One has another shape or type, or there is none.
        """
        for found, expected in self._arrays(begun):
            there, wanted = _kind(found), _kind(expected)
            if there != wanted:
                raise DataError(f"it holds {there} in the place of {wanted}")

    def _arrays(self, begun: State) -> Iterator[tuple[Any, Any]]:
        """Each with one that it must be like."""
        for name in ("model", "intercept", "model_sum", "intercept_sum", "velocity",
                     "intercept_velocity"):  # fmt: skip
            yield getattr(self.state, name), getattr(begun, name)
        for pair in (self.kept, self.seen.good, self.seen.best):
            if pair is not None:
                yield from zip(pair, (begun.model_sum, begun.intercept_sum), strict=True)
        if self.anchor is not None:
            for name in ("model", "intercept"):
                yield getattr(self.anchor, name), getattr(begun, name)
            yield self.anchor.gradient, begun.model
            yield self.anchor.intercept_gradient, begun.intercept
        for weak in (self.first.weak, self.setting.weak):
            if weak is not None:
                yield weak.direction, begun.model_sum[0]
        if self.variance is not None:
            yield self.variance, begun.model[0]

    def to_tree(self) -> dict[str, Any]:
        """Return JSON values and arrays."""
        tree = _plain(self)
        assert isinstance(tree, dict)
        return tree

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> Self:
        """Build from what `to_tree` gave."""
        seen: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in tree["seen"].items()
        }
        built: dict[str, Any] = {
            "first": _setting(tree["first"]),
            "setting": _setting(tree["setting"]),
            "state": _state(tree["state"]),
            "seen": Seen(**seen),
            "anchor": None if tree["anchor"] is None else Anchor(**tree["anchor"]),
            "polynomial": _polynomial(tree["polynomial"]),
            "records": tuple(
                EpochRecord(**(record | {"counters": _counters(record.get("counters"))}))
                for record in tree["records"]
            ),
            "lost": _lost(tree.get("lost")),
            "kept": None if tree["kept"] is None else tuple(tree["kept"]),
        }
        return cls(**(tree | built))


def _kind(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return "no array"
    return f"{' x '.join(map(str, value.shape))} numbers of {value.dtype}"


def _setting(tree: dict[str, Any]) -> Setting:
    weak = None if tree["weak"] is None else Weakest(**tree["weak"])
    return Setting(Schedule(**tree["schedule"]), weak)


def _state(tree: dict[str, Any]) -> State:
    built = {
        "reread": Reread(**tree["reread"]),
        "counters": _counters(tree.get("counters")),
        "lost": _lost(tree.get("lost")),
    }
    return State(**(tree | built))


def _counters(tree: dict[str, Any] | None) -> Counters | None:
    return None if tree is None else Counters(**tree)


def _lost(tree: dict[str, Any] | None) -> Lost | None:
    return None if tree is None else Lost(**tree)


def _polynomial(tree: dict[str, Any] | None) -> Polynomial | None:
    if tree is None:
        return None
    return Polynomial(**(tree | {"coefficients": tuple(tree["coefficients"])}))


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
