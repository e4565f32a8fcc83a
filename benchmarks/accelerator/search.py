"""How many epochs it takes: the shortest course that reaches a loss, of any step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from zipml_ooc.gateware.formats import DELAYED_COLUMNS
from zipml_ooc.gateware.profiles import Profile

from .learners import Course, Learner

__all__ = ["Budget", "Found", "fastest", "final_loss", "search"]


@dataclass(frozen=True)
class Budget:
    """What is tried.

    Attributes
    ----------
    epochs : tuple of int
        Ascending.
    steps : tuple of float
    batches : tuple of int
        Tiles.
    seeds : int
        Whose median loss counts.
    """

    epochs: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
    steps: tuple[float, ...] = tuple(2.0 ** (-k / 2) for k in range(2, 18))
    batches: tuple[int, ...] = (1, 4)
    seeds: int = 3

    def kinds(self, columns: int) -> list[tuple[int, bool]]:
        """Mini-batches, and whether they are delayed."""
        found = [(batch, False) for batch in self.batches]
        return [*found, (1, True)] if columns >= DELAYED_COLUMNS else found


@dataclass(frozen=True)
class Found:
    """The shortest course that reaches the loss, and the loss that it reaches."""

    course: Course
    loss: float


def _last(learner: Learner, course: Course, seed: int) -> float:
    """The loss at the end of a course; infinite where it got lost on the way."""
    losses = list(learner.losses(course, seed))
    return losses[-1] if len(losses) == course.epochs and math.isfinite(losses[-1]) else math.inf


def final_loss(learner: Learner, course: Course, seeds: int, *, below: float = math.inf) -> float:
    """The median over the seeds; only one is tried where that is far above `below` already."""
    first = _last(learner, course, 0)
    if seeds == 1 or first > 1.0 + 2.0 * (below - 1.0):
        return first
    return float(np.median([first, *(_last(learner, course, seed) for seed in range(1, seeds))]))


def search(learner: Learner, target: float, budget: Budget) -> list[Found]:
    """For each kind of mini-batch the fewest epochs after which the loss is at most `target`."""
    found = []
    for batch, delayed in budget.kinds(learner.table.x.shape[1]):
        for epochs in budget.epochs:
            tried = [
                Found(course, final_loss(learner, course, budget.seeds, below=target))
                for course in (Course(epochs, step, batch, delayed) for step in budget.steps)
            ]
            best = min(tried, key=lambda f: f.loss)
            if best.loss <= target:
                found.append(best)
                break
    return found


def fastest(learner: Learner, found: list[Found], profile: Profile) -> Found | None:
    """That which takes the least time on a board."""
    seconds = {f: f.course.epochs * learner.epoch(f.course, profile).seconds for f in found}
    return min(seconds, key=lambda f: seconds[f]) if seconds else None
