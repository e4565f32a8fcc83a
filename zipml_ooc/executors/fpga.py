"""Executors of the accelerator: one class, and for each a function that makes the device.

A device holds the model in fixed point, with one step size in a run. So a window is run in pieces
of 8 to 64 tiles: the step of each is that of its first mini-batch, and between them the model is
read, for the average and for the loss of the rows that come next. The model is laid on the grid of
the fixed point when the window begins, each number to the nearest, and what is read back lies on it
already. Draws of the device begin anew with each window, from a state that is drawn for it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from zipml_codecs.reference_losses import SERIES_LIMIT
from zipml_codecs.rng import Purpose, uniforms

from ..errors import ExecutorError, UsageError
from ..gateware.driver import Counters as RunCounters
from ..gateware.driver import Device
from ..gateware.formats import (
    BATCH_TILES_LIMIT,
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    LEAST_EXPONENT,
    Format,
    intercept_code,
    margin_shift,
)
from ..gateware.reference import I64, State
from ..gateware.scaling import Scaling
from ..gateware.stream import U8, check_chunk, tile_packet
from ..losses import LOSSES
from .counted import CountedSession
from .protocol import Capabilities, Counters, Option, Session, Settings, Trained, Window

if TYPE_CHECKING:
    from ..training.loading import LoadedTiles
    from ..training.options import TrainOptions
    from ..training.problem import Problem

__all__ = ["FpgaExecutor", "Maker", "chosen_exponent", "format_for"]

F64 = npt.NDArray[np.float64]

Maker = Callable[[Format, str | None, Settings], Device]
"""Makes a device of at least this format; its name is one of `FpgaExecutor.find_devices`, or None.

Raises an `ExecutorError` where it does not answer or is taken.
"""

_LANES, _LEAST_DEPTH, _LARGEST_DEPTH = 64, 1024, 16384
# Tiles of a piece: a sixteenth of the window, within these. Short pieces follow steps and average
# more closely, but a piece costs the host some accesses to registers for each column.
_PIECE_TILES, _PIECES = (8, 64), 16
# Beyond these a model of one unit's reach, or targets, would be cut off; finer than the last there
# is nothing to gain.
_EXPONENTS = range(23)
_HEADROOM, _LEAST_HELD = 2.0, 2.0**-8

_OPTIONS = (
    Option(
        "exponent",
        int,
        "fixed point: a unit of the model is 2^-exponent; by default as fine as model and targets "
        "of a window allow",
    ),
    Option(
        "delayed",
        bool,
        "tiles meet the model without the last update, and do not wait for it; from "
        f"{DELAYED_COLUMNS} columns on",
        False,
    ),
)


def format_for(problem: Problem) -> Format:
    """The format of a device that holds a problem."""
    depth = 1 << (problem.columns + 24 - 1).bit_length()
    return Format(problem.stored_bits, _LANES, max(_LEAST_DEPTH, depth))


def _bits_above(value: float) -> int:
    """The least `k` with `value < 2**k`."""
    return math.frexp(value)[1]


def chosen_exponent(problem: Problem, model: F64, intercept: float, targets: F64) -> int:
    """The finest fixed point that leaves a factor of two above model and targets of a window.

    Where the model is zero, room is left for one coefficient that explains the whole target.

    Parameters
    ----------
    problem : Problem
    model : (1, columns)
    intercept : float
    targets : (rows,)
        In the coordinates of the problem.
    """
    slope = problem.slope.astype(np.float64)
    held = float(np.abs(model[0] * slope).max(initial=0.0)) or float(np.abs(slope).max(initial=0.0))
    held = max(held, abs(intercept) / intercept_code(problem.stored_bits), _LEAST_HELD)
    reach = float(np.abs(targets).max(initial=0.0))
    if LOSSES[problem.loss].of_classes:
        reach = 1.0
    # The model holds numbers below 2^(15 - exponent); residuals and targets reach further.
    fitting = 15 - _bits_above(_HEADROOM * held)
    if problem.loss != "logistic" and reach > 0:  # its residuals have a unit of their own
        widest = 15 + margin_shift(problem.stored_bits)
        fitting = min(fitting, widest - _bits_above(_HEADROOM * reach))
    allowed = _exponents(problem)
    return min(max(fitting, allowed.start), allowed.stop - 1)


def _exponents(problem: Problem) -> range:
    """Those that a problem may have."""
    if problem.loss != "logistic":
        return _EXPONENTS
    least = LEAST_EXPONENT + max(0, problem.stored_bits - 4)
    return range(least, least + 4)


@dataclass(frozen=True)
class FpgaExecutor:
    """An executor of the accelerator.

    Attributes
    ----------
    name, summary : str
    make : Maker
    find_reason : callable
        Says why there are no such devices here, or None.
    find_devices : callable
        Of the settings: names of the devices, or None for as many as there are threads.
    options : tuple of Option
        Those of `make`, beside those that all of them have.
    resource : str or None
    losses : tuple of str
    fit : callable
        Of a format and the settings: raises a `UsageError` where no device holds it.
    """

    name: str
    summary: str
    make: Maker
    find_reason: Callable[[], str | None]
    find_devices: Callable[[Settings], Sequence[str] | None] = lambda settings: None
    options: tuple[Option, ...] = ()
    resource: str | None = "FPGA"
    losses: tuple[str, ...] = ("squared", "ls-svm", "logistic", "squared-hinge")
    fit: Callable[[Format, Settings], None] = lambda form, settings: None

    def capabilities(self) -> Capabilities:
        """Those of the gateware: docs/accelerator.md."""
        return Capabilities(
            stored_bits=(1, 2, 4, 8),
            samples=(1, 2, 4, 8),
            losses=self.losses,
            arithmetics=("fixed16",),
            averaging=True,
            columns_limit=_LARGEST_DEPTH - 24,
            fewest_columns=FEWEST_COLUMNS,
            batch_tiles_limit=BATCH_TILES_LIMIT,
            resource=self.resource,
            options=_OPTIONS + self.options,
        )

    def unavailable(self) -> str | None:
        """See `find_reason`."""
        return self.find_reason()

    def check(self, problem: Problem, options: TrainOptions, settings: Settings) -> None:
        """See to it that the problem can be put into fixed point."""
        exponent = settings["exponent"]
        if exponent is not None and exponent not in _EXPONENTS:
            raise UsageError(
                f"executor {self.name}: exponent must be {_EXPONENTS.start} to "
                f"{_EXPONENTS.stop - 1}; got {exponent}"
            )
        if settings["delayed"] and problem.columns < DELAYED_COLUMNS:
            raise UsageError(
                f"executor {self.name}: delayed runs take {DELAYED_COLUMNS} columns and more, and "
                f"the dataset has {problem.columns}: leave out --executor-option delayed"
            )
        scaling = Scaling(problem, -1 if exponent is None else exponent)
        step, rows = options.step_size, options.batch_tiles * _LANES
        most = self.largest_step(problem, rows, settings)
        if step is not None and step > most:
            raise UsageError(
                f"executor {self.name} holds steps up to {most:.3g} for this dataset, and the step "
                f"size is {step:g}: use a smaller one, larger --batch-rows, or more bits"
            )
        if not options.fit_intercept and not scaling.holds_zero:
            raise UsageError(
                f"executor {self.name} takes columns around zero where there is no intercept: "
                "compress with --standardize, or leave out --no-intercept"
            )
        self.fit(format_for(problem), settings)

    def largest_step(self, problem: Problem, batch_rows: int, settings: Settings) -> float:
        """What the registers of the step hold."""
        exponent = settings["exponent"]
        if exponent is None:
            exponent = _exponents(problem).stop - 1
        return Scaling(problem, exponent).largest_step(batch_rows)

    def devices(self, settings: Settings) -> Sequence[str] | None:
        """See `find_devices`."""
        return self.find_devices(settings)

    def open(self, device: str | None, problem: Problem, settings: Settings) -> Session:
        """Make a device that holds the problem."""
        session = _Session(self, device, settings)
        session.prepare(problem)
        return session


class _Session(CountedSession):
    """Runs windows on one device, and makes another one if it has to hold something else."""

    def __init__(self, executor: FpgaExecutor, name: str | None, settings: Settings) -> None:
        super().__init__()
        self._executor, self._name, self._settings = executor, name, settings
        self._device: Device | None = None
        self._wanted: Format | None = None
        self._window: Window | None = None
        self._trained: Trained | None = None

    def close(self) -> None:
        super().close()
        self._window = self._trained = None
        device, self._device = self._device, None
        if device is not None:
            device.close()

    def load(self, window: Window) -> None:
        self.counters()
        self.prepare(window.problem)
        self._window, self._trained = window, None

    def prepare(self, problem: Problem) -> None:
        """Have a device that holds a problem."""
        wanted = format_for(problem)
        if self._device is None or wanted != self._wanted:
            if self._device is not None:
                self._device.close()
                self._device = None
            self._device = self._executor.make(wanted, self._name, self._settings)
            self._wanted = wanted
            self._device.reset()  # whatever somebody else has left there

    def read(self) -> Trained:
        self.counters()
        if self._trained is None:
            raise ExecutorError("a window is run before its model is read")
        return self._trained

    def run(self, tiles: LoadedTiles) -> None:
        from ..training.window_loss import window_loss

        self.counters()
        w, device = self._window, self._device
        if w is None or device is None or self._trained is not None:
            raise ExecutorError("a window is loaded before it is run, and run once")
        scaled = tiles.ordered_targets()[:, 0].astype(np.float64)
        model = w.model.astype(np.float64)
        exponent = self._settings["exponent"]
        if exponent is None:
            exponent = chosen_exponent(w.problem, model, float(w.intercept[0]), scaled)
        scaling = Scaling(w.problem, exponent)
        fixed = [scaling.targets(target[:, 0]) for target in tiles.targets]
        for chunk in tiles.chunks:
            check_chunk(chunk, device.form)
        entries = scaling.to_entries(model, w.intercept)
        at = _model(scaling, entries, w)
        state = State(entries, _generator(w))
        model_sum, intercept_sum, averaged, loss_sum = np.zeros_like(model), np.zeros(1), 0, 0.0
        piece = _piece_tiles(w)
        for start in range(0, w.tiles, piece):
            part = tiles.part(start, start + piece)
            loss_sum += window_loss(w.problem, part, *at)
            step = w.step(start // w.batch_tiles) * w.batch_tiles * _LANES / w.batch_rows
            program = scaling.program(
                step,
                batch_tiles=w.batch_tiles,
                lanes=_LANES,
                shrinkage=w.shrinkage * _series_part(w.problem, at[0]),
                fit_intercept=w.fit_intercept,
                delayed=self._settings["delayed"],
            )
            began = time.perf_counter()
            device.load(program, state)
            done = device.run(_packets(part, fixed, device.form), len(part.tiles))
            state = device.state(w.problem.columns)
            self._count(part, done, state, time.perf_counter() - began)
            at = _model(scaling, state.model, w)
            behind = -(-(start + len(part.tiles)) // w.batch_tiles)
            counted = max(0, behind - max(w.average_from, start // w.batch_tiles))
            model_sum += counted * at[0]
            intercept_sum += counted * at[1]
            averaged += counted
        self._trained = Trained(
            at[0].astype(np.float32),
            at[1].astype(np.float32),
            model_sum,
            intercept_sum,
            averaged,
            loss_sum,
        )

    def _count(self, part: LoadedTiles, done: RunCounters, state: State, seconds: float) -> None:
        form = self._device.form if self._device is not None else None
        assert form is not None and self._window is not None
        beats = self._window.problem.columns + form.target_beats
        self._counters = self.counters() + Counters(
            runs=1,
            cycles=done.cycles,
            beats=done.beats,
            stalls=done.stalls,
            bytes=len(part.tiles) * beats * form.beat_bits // 8,
            seconds=seconds,
            model_clipped=int(state.model_saturated),
            residuals_clipped=int(state.residual_saturated),
            more=done.more,
        )


def _model(scaling: Scaling, entries: I64, window: Window) -> tuple[F64, F64]:
    """The model that entries stand for."""
    model, intercept = scaling.to_model(entries)
    return model, intercept if window.fit_intercept else window.intercept.astype(np.float64)


def _series_part(problem: Problem, model: F64) -> float:
    """Part of the correction that is applied, as the kernels hold it for the logistic loss."""
    if problem.loss != "logistic":
        return 1.0
    noise = math.fsum((problem.variance.astype(np.float64) * np.square(model[0])).tolist())
    return 1.0 / max(1.0, noise / SERIES_LIMIT)


def _piece_tiles(window: Window) -> int:
    """Tiles of a piece: whole mini-batches."""
    shortest, longest = _PIECE_TILES
    wanted = min(max(-(-window.tiles // _PIECES), shortest), longest)
    return -(-wanted // window.batch_tiles) * window.batch_tiles


def _generator(window: Window) -> int:
    """The state that the device's draws begin with."""
    drawn = uniforms(window.seed, Purpose.DEVICE, window.epoch, np.array([window.number]))
    return int(drawn[0]) or 1


def _packets(tiles: LoadedTiles, fixed: list[I64], form: Format) -> Iterator[U8]:
    for c, t in tiles.tiles.tolist():
        yield tile_packet(tiles.chunks[c], t, fixed[c], form)
