"""What an executor is: something that runs mini-batch SGD over the encoded tiles of a window.

An `Executor` says what it can do and opens a `Session`; a session holds a device, or nothing but
memory, and runs one window after the other. Everything around that is not its business: the order
of the tiles, replicas and their merging, schedules, losses of held-out rows, checkpoints.
docs/executors.md shows how to write one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..training.loading import LoadedTiles
    from ..training.options import TrainOptions
    from ..training.problem import F32, F64, Problem
    from ..training.tasks import Anchor

__all__ = [
    "Capabilities",
    "Counters",
    "Executor",
    "Option",
    "Session",
    "Settings",
    "Trained",
    "Window",
]

Settings = Mapping[str, Any]
"""Values of an executor's own options, by name: all that it has, with the types it gave them."""


@dataclass(frozen=True)
class Option:
    """An option of an executor: ``--executor-option name=value``.

    Attributes
    ----------
    name : str
    kind : {int, float, str, bool}
    meaning : str
        A line for people.
    default : value of that type, or None
    choices : tuple, optional
        All values there are; empty where any of the type will do.
    """

    name: str
    kind: type
    meaning: str
    default: Any = None
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Capabilities:
    """What an executor can do; a problem that asks for more is refused before data are touched.

    Attributes
    ----------
    stored_bits : tuple of int
        Bits of a stored code: those of the dataset and of its samples' sum.
    samples : tuple of int
        Samples of a value.
    layouts, levels, scales : tuple of str
        Of ``packed``, ``weaved``; of ``uniform``, ``optimal``; of ``column``, ``row``.
    losses : tuple of str
        Names of `zipml_ooc.losses.LOSSES`.
    estimators : tuple of str
        Of ``mean``, ``split``, ``polynomial`` and ``refetch``.
    arithmetics : tuple of str
        What codes are multiplied by, the default first. `TrainOptions.arithmetic` may be one of
        them, or ``auto``.
    solvers : tuple of str
        Of ``sgd``, ``svrg``, which brings an anchor with each window, and ``gram``, which runs
        nothing on executors.
    penalties : tuple of str
        Of ``l1``, ``l2``.
    outputs : bool
        Whether there may be several.
    weights, momentum : bool
    averaging : bool
        Whether a session sums up the models of the mini-batches from `Window.average_from` on, or
        of some of them. Without it the run ends with its last model.
    splits : bool
        Whether a window may be run in several parts, to the same bits.
    columns_limit, batch_tiles_limit : int or None
        The most columns, and tiles of a mini-batch; None: no limit of its own.
    fewest_columns : int
    resource : str or None
        What a Dask worker must declare to be given windows, such as ``FPGA``; None: any will do.
    options : tuple of Option
    """

    stored_bits: tuple[int, ...] = tuple(range(1, 9))
    samples: tuple[int, ...] = (1,)
    layouts: tuple[str, ...] = ("packed",)
    levels: tuple[str, ...] = ("uniform",)
    scales: tuple[str, ...] = ("column",)
    losses: tuple[str, ...] = ("squared",)
    estimators: tuple[str, ...] = ("mean",)
    arithmetics: tuple[str, ...] = ("float",)
    solvers: tuple[str, ...] = ("sgd",)
    penalties: tuple[str, ...] = ()
    outputs: bool = False
    weights: bool = False
    momentum: bool = False
    averaging: bool = False
    splits: bool = False
    columns_limit: int | None = None
    fewest_columns: int = 1
    batch_tiles_limit: int | None = None
    resource: str | None = None
    options: tuple[Option, ...] = ()


@dataclass(frozen=True)
class Counters:
    """What a session has done since it was opened, or a run in all.

    Attributes
    ----------
    runs : int
        Starts of the device, or calls.
    cycles, beats, stalls : int
        Clock cycles, words taken from the stream, and cycles in which one had to wait; 0 where
        there is no clock.
    bytes : int
        That went to the device.
    seconds : float
        That it was busy.
    model_clipped, residuals_clipped : int
        Runs in which a number of the model, or a residual, went beyond what the device holds.
    more : mapping of str to float
        Whatever else it counts.
    """

    runs: int = 0
    cycles: int = 0
    beats: int = 0
    stalls: int = 0
    bytes: int = 0
    seconds: float = 0.0
    model_clipped: int = 0
    residuals_clipped: int = 0
    more: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Counters) -> Counters:
        return self._with(other, 1)

    def __sub__(self, other: Counters) -> Counters:
        return self._with(other, -1)

    def _with(self, other: Counters, sign: int) -> Counters:
        names = [f.name for f in fields(self) if f.name != "more"]
        summed = {name: getattr(self, name) + sign * getattr(other, name) for name in names}
        every = dict.fromkeys([*self.more, *other.more])
        more = {name: self.more.get(name, 0) + sign * other.more.get(name, 0) for name in every}
        return Counters(**summed, more=more)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; what was not counted is left out."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "more"}
        return {name: value for name, value in (plain | dict(self.more)).items() if value}


@dataclass(frozen=True)
class Window:
    """A window to run, and the model that it begins with. All in the coordinates of `problem`.

    What a session makes of it may depend on what is here and on the tiles, and on nothing else:
    then the model is the same wherever, and after whatever, the window is run. Draws are keyed by
    `seed`, `epoch` and `number`.

    Attributes
    ----------
    problem : Problem
        What codes stand for, and the loss.
    number, epoch : int
    seed : int
    tiles : int
        Of the whole window.
    batch_tiles : int
        Tiles of a mini-batch; the window's last one may have fewer.
    batch_rows : int
        What sums over a mini-batch are divided by, also where it has fewer rows.
    step_first, step_last : float
        Step sizes of the first and of the last mini-batch; in between a straight line, see `step`.
    average_from : int
        The first mini-batch whose model counts for the average; `batches` if none does.
    shrinkage : float
        Part of the rounding variance to take out of the gradient, 0 to 1.
    momentum : float
    fit_intercept : bool
    model : (outputs, columns) float32
    intercept : (outputs,) float32
    velocity, intercept_velocity : float32 arrays, or None
        With momentum.
    anchor : Anchor or None
        Of ``svrg``.
    """

    problem: Problem
    number: int
    epoch: int
    seed: int
    tiles: int
    batch_tiles: int
    batch_rows: int
    step_first: float
    step_last: float
    average_from: int
    shrinkage: float
    momentum: float
    fit_intercept: bool
    model: F32
    intercept: F32
    velocity: F32 | None = None
    intercept_velocity: F32 | None = None
    anchor: Anchor | None = None

    @property
    def batches(self) -> int:
        """How many mini-batches there are."""
        return -(-self.tiles // self.batch_tiles)

    def step(self, batch: int) -> float:
        """Step size of a mini-batch."""
        part = batch / (self.batches - 1) if self.batches > 1 else 0.0
        return self.step_first + (self.step_last - self.step_first) * part


@dataclass(frozen=True)
class Trained:
    """What a window has made of the model.

    Attributes
    ----------
    model : (outputs, columns) float32, intercept : (outputs,) float32
    model_sum, intercept_sum : float64
        Sum of the averaged models of this window.
    averaged : int
        How many these are.
    loss_sum : float
        Sum over the rows of the loss with the model before their mini-batch, or some time before
        it, rounding bias taken out (`zipml_ooc.training.window_loss`).
    velocity, intercept_velocity : float32 or None
    """

    model: F32
    intercept: F32
    model_sum: F64
    intercept_sum: F64
    averaged: int
    loss_sum: float
    velocity: F32 | None = None
    intercept_velocity: F32 | None = None


class Session(Protocol):
    """A device that is open, or what stands for one. One thread at a time uses it.

    A window is `load`, one `run`, or several where the executor `splits`, and `read`. Methods raise
    an `ExecutorError` where the device is lost; the session is closed then.
    """

    def load(self, window: Window) -> None:
        """Begin a window."""

    def run(self, tiles: LoadedTiles) -> None:
        """Go over the next tiles of the window, whole mini-batches of them, in their order."""

    def read(self) -> Trained:
        """Give what has become of the model."""

    def counters(self) -> Counters:
        """What was done since the session was opened: numbers never go down."""

    def close(self) -> None:
        """Let go of the device; once more does nothing. Other methods raise an `ExecutorError`."""


class Executor(Protocol):
    """Something that runs windows. It holds nothing itself, and may be made any number of times.

    An entry point of the group ``zipml_ooc.executors`` names something that returns one when it is
    called without arguments; the entry point's name is the executor's.

    Attributes
    ----------
    name : str
    summary : str
        A line that says what it is.
    """

    name: str
    summary: str

    def capabilities(self) -> Capabilities:
        """What it can do."""

    def unavailable(self) -> str | None:
        """Why it cannot be used on this machine and what to do about it, in a line; None: it can.

        Nothing is opened or compiled for that.
        """

    def check(self, problem: Problem, options: TrainOptions, settings: Settings) -> None:
        """Refuse what its capabilities cannot tell.

        Raises
        ------
        UsageError
            One line: what does not go, and what to change.
        """

    def largest_step(self, problem: Problem, batch_rows: int, settings: Settings) -> float:
        """The largest step size that it takes, in units of the problem; infinite without a limit.

        Steps that are chosen from the data are held to it.
        """

    def devices(self, settings: Settings) -> Sequence[str] | None:
        """Names of the devices that a process may open, or None: as many as there are threads."""

    def open(self, device: str | None, problem: Problem, settings: Settings) -> Session:
        """Open a session, on one of `devices` where there are any, for windows of a problem.

        Later windows may be of another precision of the same dataset. A device that another process
        has is an error, and the next one is tried.

        Raises
        ------
        ExecutorError
            The device does not answer, or somebody else has it.
        """
