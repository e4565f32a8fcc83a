"""What a training run is asked to do, checked once and for all before anything is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zipml_codecs import TILE_ROWS

from ..errors import UsageError
from ..executors.registry import NATIVE
from ..losses import LOSSES
from .precision import parse_bits
from .schedules import SCHEDULES

__all__ = [
    "ARITHMETICS",
    "CLASS_WEIGHTS",
    "DOUBLE_FORMS",
    "GRADIENT_NORMS",
    "LOSS_CHOICES",
    "MULTICLASS",
    "ON_ERROR",
    "SAMPLINGS",
    "SCHEDULES",
    "SOLVERS",
    "TrainOptions",
]

LOSS_CHOICES = ("auto", *LOSSES)
MULTICLASS = ("auto", "ovr", "softmax")
CLASS_WEIGHTS = ("none", "balanced")
SAMPLINGS = ("auto", "double", "corrected", "naive", "refetch", "chebyshev")
DOUBLE_FORMS = ("mean", "split")
ARITHMETICS = ("auto", "float", "int16", "int8")
SOLVERS = ("sgd", "svrg", "gram")
ON_ERROR = ("raise", "skip")
GRADIENT_NORMS = ("max", "l2")
_MODEL_BITS = {8: "int8", 16: "int16", 32: "float"}
_MAX_L2 = 1e30
_MAX_REPLICAS = 64


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Parameters
    ----------
    loss : {"auto", "squared", "huber", "logistic", "hinge", "squared-hinge", "ls-svm", "softmax"}
        ``squared`` and ``huber`` take numbers, the others classes. ``auto``: logistic for classes,
        squared otherwise.
    multiclass : {"auto", "ovr", "softmax"}
        Three and more classes: one output for each, trained against the rest, or all of them
        together. ``auto``: softmax for the logistic loss, else one against the rest.
    class_weight : {"none", "balanced"}
        ``balanced``: a row counts rows / (classes * rows of its class) times, as in scikit-learn;
        the dataset's own weights multiply it.
    huber_delta : float
        Distance from the target at which Huber's loss becomes linear, in standard deviations of
        the target.
    l2 : float
        Strength of the penalty ``l2 / 2 * |coef|**2`` on the coefficients of the stored columns,
        beside the mean loss of a row.
    l1 : float
        Strength of the penalty ``l1 * |coef|``, summed over the same coefficients: coefficients
        that it holds at zero are exactly zero. With `l2` it is the elastic net.
    sampling : {"auto", "double", "corrected", "naive", "chebyshev", "refetch"}
        Gradient estimator. ``double`` (ZipML, section 2.2) needs two samples; ``corrected`` takes
        the known rounding variance out of a single sample's gradient; ``naive`` does not and is
        biased like a ridge penalty. ``auto``: ``double`` on two samples and more, ``corrected`` on
        one. ``chebyshev`` (ZipML, section 4), for the logistic loss and the hinge, takes a
        polynomial for the derivative and needs four or eight samples. ``refetch``, for the hinge
        loss and the weaved layout: rows whose slope cannot be told from `bits` are read again at
        all bits.
    double_form : {"mean", "split"}
        ``split`` draws the two samples apart again and is the paper's estimator; ``mean`` takes
        their mean and subtracts the rounding variance: same expectation, less noise, less work.
    arithmetic : {"auto", "float", "int16", "int8"}
        What the codes are multiplied by: the model and the residuals in single precision, or
        rounded stochastically to 16 or 8 bits in every mini-batch and multiplied in integers
        (ZipML, section 2.4): faster on wide tables, noisier, and unbiased for the squared loss
        (for the logistic to first order). ``auto``: int16 from 32 columns on, else float.
    bits : int or str, optional
        At how many bits to read a dataset of the weaved layout, one of its precisions: nothing
        else of it is fetched. By default all. ``"2:4:8"`` reads each for an equal part of the
        run; ``"auto"`` begins at the lowest precision and goes on to the next where an epoch
        does not bring the loss (that of held-out rows, if there are any) down by 5 %.
    solver : {"sgd", "svrg", "gram"}
        Mini-batch SGD; SGD whose steps are freed of variance by a full gradient in each epoch,
        which converges to the optimum of the stored data; or, for the squared loss and LS-SVM,
        one pass for the second moments and then the solution itself.
    full_gradient_bits : int, optional
        At how many bits the full gradients of ``svrg`` read a dataset of the weaved layout; the
        steps read it at `bits`. By default as many as the steps.
    l2_path : tuple of float
        Strengths of the L2 penalty to try with ``gram``, from the same pass; the one with the
        smallest validation loss is kept.
    epochs : int, optional
        By default as many as give 20,000 mini-batches, at least 5 and at most 200.
    batch_rows : int
        Rows of a mini-batch, rounded up to whole tiles of 64.
    step_size : float, optional
        In units of the standardised problem; by default from the spectrum of the data, and
        lowered if the run diverges.
    shrinkage : float, optional
        Part of the correction that is applied, 0 to 1; by default from the guard.
    schedule : {"auto", "constant", "inverse", "cosine", "1cycle", "linear"}
        How the step changes over the run: not at all; as ``1 / (1 + 19 t)`` with ``t`` from 0 to
        1; half a wave down; up over 30% of the run and then half a wave down; constant over the
        first half and then down in a straight line. All but the first end at a twentieth.
        ``auto``: linear, and constant for ``svrg``.
    momentum : float
        Weight of the gradients before in a step, 0 up to 1; a step follows their weighted mean.
    average : bool
        Average the iterates of the second half of the run (``sgd`` only).
    model_bits : int, optional
        Bits of the model and of the residuals inside the kernels: another name for `arithmetic`,
        8 for int8, 16 for int16, 32 for float.
    gradient_bits : int
        Bits of an entry of what replicas send after a round, 2 to 8; 32: no rounding.
    gradient_norm : {"max", "l2"}
        What the largest code of 512 such entries stands for: their largest magnitude, or their
        Euclidean norm (QSGD).
    replicas : int, optional
        Copies of the model that advance side by side; by default from the size of the data.
    validation : float
        Part of the rows held out, 0 up to 1; whole tiles of 64 rows, at least one.
    patience : int, optional
        Stop after this many epochs without a better validation loss, and keep the best model.
    fit_intercept : bool
        Without it the model passes through the origin of the columns as they are stored: through
        their means if they are standardised.
    on_error : {"raise", "skip"}
        What to do about chunks that are missing or damaged: end with an error, or leave out their
        rows. To skip, all chunks are read once before the run begins.
    seed : int
        Keys the order of the rows, the held-out rows, the splits and the rounding.
    executor : str
        What computes the steps: a name that `zipml_ooc.executors.executors` lists. The spectrum,
        full gradients and losses come from the native core, whatever this is.
    executor_options : mapping
        The executor's own options, by name.
    fallback : {"native"}, optional
        What the run goes on with if the executor's device is lost on the way; by default that is an
        error.
    """

    loss: str = "auto"
    multiclass: str = "auto"
    huber_delta: float = 1.345
    class_weight: str = "none"
    l1: float = 0.0
    l2: float = 0.0
    sampling: str = "auto"
    double_form: str = "mean"
    arithmetic: str = "auto"
    bits: int | str | None = None
    solver: str = "sgd"
    full_gradient_bits: int | None = None
    l2_path: tuple[float, ...] = ()
    epochs: int | None = None
    batch_rows: int = TILE_ROWS
    step_size: float | None = None
    shrinkage: float | None = None
    schedule: str = "auto"
    momentum: float = 0.0
    average: bool = True
    model_bits: int | None = None
    gradient_bits: int = 32
    gradient_norm: str = "max"
    replicas: int | None = None
    validation: float = 0.0
    patience: int | None = None
    fit_intercept: bool = True
    on_error: str = "raise"
    seed: int = 0
    executor: str = NATIVE
    executor_options: Mapping[str, Any] = field(default_factory=dict)
    fallback: str | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("loss", self.loss, LOSS_CHOICES),
            ("multiclass", self.multiclass, MULTICLASS),
            ("class weight", self.class_weight, CLASS_WEIGHTS),
            ("sampling", self.sampling, SAMPLINGS),
            ("double form", self.double_form, DOUBLE_FORMS),
            ("arithmetic", self.arithmetic, ARITHMETICS),
            ("solver", self.solver, SOLVERS),
            ("schedule", self.schedule, SCHEDULES),
            ("on error", self.on_error, ON_ERROR),
            ("gradient norm", self.gradient_norm, GRADIENT_NORMS),
            ("fallback", self.fallback, (None, NATIVE)),
        ):
            if value not in allowed:
                names = ", ".join(filter(None, allowed))
                raise UsageError(f"{name} must be one of {names}; got {value!r}")
        given = self.executor_options
        named = "a mapping of names to values"
        _require(isinstance(given, Mapping), "executor options", given, named)
        delta = self.huber_delta
        _require(1e-6 <= delta <= 1e6, "Huber's delta", delta, "1e-6 to 1e6")
        for name, strength in (("l1", self.l1), ("l2", self.l2)):
            _require(0 <= strength <= _MAX_L2, name, strength, f"0 to {_MAX_L2:g}")
        for strength in self.l2_path:
            _require(0 <= strength <= _MAX_L2, "l2 path", strength, f"0 to {_MAX_L2:g}")
        _require(self.epochs is None or self.epochs >= 1, "epochs", self.epochs, "1 or more")
        _require(self.batch_rows >= 1, "batch rows", self.batch_rows, "1 or more")
        step = self.step_size
        _require(step is None or (math.isfinite(step) and step > 0), "step size", step, "above 0")
        _require(
            self.shrinkage is None or 0 <= self.shrinkage <= 1,
            "shrinkage",
            self.shrinkage,
            "0 to 1",
        )
        _require(0 <= self.validation < 1, "validation", self.validation, "0 up to, not with, 1")
        _require(
            self.patience is None or self.patience >= 1, "patience", self.patience, "1 or more"
        )
        _require(0 <= self.seed < 2**64, "seed", self.seed, "0 to 2**64 - 1")
        if self.patience is not None and self.validation == 0:
            raise UsageError("patience needs held-out rows to watch: set a validation part above 0")
        object.__setattr__(self, "bits", parse_bits(self.bits))
        self._check_channels()
        self._check_solver()

    def _check_channels(self) -> None:
        bits, most = self.model_bits, _MAX_REPLICAS
        _require(bits is None or bits in _MODEL_BITS, "model bits", bits, "8, 16 or 32")
        if bits is not None:
            if self.arithmetic not in ("auto", _MODEL_BITS[bits]):
                raise UsageError(
                    f"model bits {bits} and arithmetic {self.arithmetic} contradict each other: "
                    "give one of them"
                )
            object.__setattr__(self, "arithmetic", _MODEL_BITS[bits])
        sent = self.gradient_bits
        _require(2 <= sent <= 8 or sent == 32, "gradient bits", sent, "2 to 8, or 32")
        count = self.replicas
        _require(count is None or 1 <= count <= most, "replicas", count, f"1 to {most}")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "0 up to, not with, 1")

    def _check_solver(self) -> None:
        if self.sampling == "chebyshev":
            if self.solver != "sgd":
                raise UsageError(
                    f"polynomial gradients are taken in steps of sgd, not by {self.solver}: leave "
                    "out --solver, or use --gradient double"
                )
            if self.arithmetic in ("int16", "int8"):
                raise UsageError(
                    f"polynomial gradients and {self.arithmetic} arithmetic do not go together: "
                    "use --arithmetic float"
                )
        if self.solver == "svrg" and self.arithmetic in ("int16", "int8"):
            raise UsageError(
                f"solver svrg and {self.arithmetic} arithmetic do not go together: the rounding "
                "puts back the variance that svrg removes; use --arithmetic float"
            )
        if self.full_gradient_bits is not None and self.solver != "svrg":
            raise UsageError("full gradient bits are those of --solver svrg: leave them out")
        if self.l2_path:
            if self.solver != "gram":
                raise UsageError("an l2 path needs --solver gram: other solvers run once for each")
            if self.validation == 0:
                raise UsageError(
                    "an l2 path needs held-out rows to choose by: set a validation part above 0"
                )
            if self.l2 or self.l1:
                raise UsageError("an l2 path takes the place of l2, and excludes l1")
        if self.solver == "gram":
            stepwise = {
                "epochs": self.epochs is not None,
                "step size": self.step_size is not None,
                "schedule": self.schedule != "auto",
                "momentum": self.momentum > 0,
                "patience": self.patience is not None,
                f"bits {self.bits}": isinstance(self.bits, str),
            }
            given = [name for name, there in stepwise.items() if there]
            if given:
                raise UsageError(f"solver gram takes no steps: leave out {', '.join(given)}")

    @property
    def batch_tiles(self) -> int:
        """Tiles of a mini-batch."""
        return -(-self.batch_rows // TILE_ROWS)

    @property
    def step_schedule(self) -> str:
        """Name of the schedule of steps, ``auto`` resolved."""
        if self.schedule != "auto":
            return self.schedule
        return "constant" if self.solver == "svrg" else "linear"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; without the executor, where that is the native core."""
        values = asdict(self) | {"l2_path": list(self.l2_path)}
        values["executor_options"] = dict(self.executor_options)
        native = self.executor == NATIVE and not self.executor_options and self.fallback is None
        left_out = ("executor", "executor_options", "fallback") if native else ()
        return {name: value for name, value in values.items() if name not in left_out}


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UsageError(f"{name} must be {allowed}; got {value}")
