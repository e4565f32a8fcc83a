"""Our side of the training step: a table, packed in several ways, and runs of the kernel over it.

This calls the native core itself, without datasets, so that nothing but the kernel is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS, _native

from .peers import Floats, finite

BOUND = np.float32(np.sqrt(3))
"""Values are uniform between minus and plus this: mean 0, variance 1, all codes equally often."""

FULL_LEVELS = {"uint8": 255, "uint16": 32767}
"""Largest entry of a table of fixed-point levels."""


@dataclass(frozen=True)
class Step:
    """One way to take the mini-batch step of the squared loss."""

    stored_bits: int
    arithmetic: str = "float"
    levels: str = "uniform"  # or the type of a table of levels: uint8, uint16
    samples: int = 1
    correction: float = 0.0
    split: bool = False
    batch_tiles: int = 4

    @property
    def estimator(self) -> str:
        """The name of the gradient estimator, as in docs/estimators.md."""
        if self.samples == 2:
            return "double, split" if self.split else "double, mean"
        return "corrected" if self.correction else "naive"


class PackedTable:
    """A table of floats, encoded on demand."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.x, self.y = x, y.reshape(-1, 1)
        self._codes: dict[tuple[int, int], npt.NDArray[np.uint8]] = {}

    def codes(self, stored_bits: int, samples: int) -> npt.NDArray[np.uint8]:
        """The packed codes of the whole table as one chunk."""
        key = stored_bits, samples
        if key not in self._codes:
            rows, columns = self.x.shape
            codes = np.empty(_native.codes_size(rows, columns, stored_bits), np.uint8)
            bound = np.full(columns, BOUND)
            _native.encode_f32(
                values=self.x, lower=-bound, upper=bound, bits=stored_bits - samples + 1,
                samples=samples, seed=1, first_tile=0, half=False, codes=codes, variance=None,
                row_variance=None,
            )  # fmt: skip
            self._codes[key] = codes
        return self._codes[key]

    def forget(self) -> None:
        """Let the codes go."""
        self._codes.clear()

    def run(self, step: Step, tiles: slice = slice(None)) -> Callable[[], Floats]:
        """A pass over some of the tiles in their order, from a model of zeros."""
        refs = np.zeros((-(-len(self.x) // TILE_ROWS), 2), np.uint32)
        refs[:, 1] = np.arange(len(refs))
        batch = self._batch(step, np.ascontiguousarray(refs[tiles]))
        columns = self.x.shape[1]
        variance = np.full(columns, rounding_variance(step), "f4")
        no_penalty = np.zeros(columns, "f4")
        known = "arithmetic" in (_native.TileBatch.sgd.__doc__ or "")  # older cores: float only
        extra = {"arithmetic": step.arithmetic} if known or step.arithmetic != "float" else {}

        def sgd() -> Floats:
            model, intercept = np.zeros((1, columns), "f4"), np.zeros(1, "f4")
            batch.sgd(
                model=model, intercept=intercept, model_sum=np.zeros((1, columns)),
                intercept_sum=np.zeros(1), loss="squared", split=step.split,
                correction=step.correction, variance=variance, l2=no_penalty, fit_intercept=True,
                batch_tiles=step.batch_tiles, batch_rows=float(TILE_ROWS * step.batch_tiles),
                step_first=step_size(columns), step_last=step_size(columns),
                average_from=len(refs), seed=1, draw=1, **extra,
            )  # fmt: skip
            return finite(model[0], float(intercept[0]))[0]

        return sgd

    def _batch(self, step: Step, refs: npt.NDArray[np.uint32]) -> Any:
        columns = self.x.shape[1]
        # Of two samples the stored code is the sum, over twice as many intervals.
        steps = (2 ** (step.stored_bits - step.samples + 1) - 1) * step.samples
        extra: dict[str, Any] = {}
        if step.levels != "uniform":
            steps = FULL_LEVELS[step.levels]
            extra["tables"] = level_tables(columns, step)
        return _native.TileBatch(
            codes=[self.codes(step.stored_bits, step.samples)], targets=[self.y],
            row_scales=[None], first_tiles=np.zeros(1, np.uint64), tiles=refs,
            offset=np.full(columns, -BOUND), slope=np.full(columns, 2 * BOUND / steps, "f4"),
            centre=np.zeros(columns, "f4"), stored_bits=step.stored_bits, outputs=1, **extra,
        )  # fmt: skip

    def refusal(self, step: Step) -> str | None:
        """What the installed core lacks for this step, or None; one tile is tried."""
        small = PackedTable(self.x[:TILE_ROWS], self.y[:TILE_ROWS])
        lacking = "tables of levels"
        try:
            run = small.run(step)
            lacking = f"{step.arithmetic} arithmetic"
            run()
        except TypeError:
            return f"the installed core has no {lacking}"
        except ValueError as error:
            return (
                f"{step.stored_bits} bits, {step.levels} levels, {step.estimator}, "
                f"{step.arithmetic}: {error}"
            )
        return None


def level_tables(columns: int, step: Step) -> npt.NDArray[Any]:
    """Levels that are not equally spaced, other ones in every column, symmetric about the middle.

    The speed does not depend on them, so that they need not be optimal; they only must not allow
    a kernel to treat all columns alike.
    """
    count = 2**step.stored_bits
    place = np.linspace(-1, 1, count)
    power = np.linspace(0.8, 1.25, columns)[:, None]
    curve = np.sign(place) * np.abs(place) ** power
    full = FULL_LEVELS[step.levels]
    return np.rint((curve + 1) / 2 * full).astype(step.levels)


def rounding_variance(step: Step) -> float:
    """Variance of a stored value, of values spread evenly between the levels."""
    interval = 2 * float(BOUND) / (2 ** (step.stored_bits - step.samples + 1) - 1)
    return interval**2 / 6 / step.samples


def step_size(columns: int) -> float:
    """Small enough for every peer: a row's squared length is about its number of columns."""
    return 0.1 / columns


def single(step: Step) -> Step:
    """The naive step on one sample of the same stored bits."""
    return replace(step, samples=1, correction=0.0, split=False)
