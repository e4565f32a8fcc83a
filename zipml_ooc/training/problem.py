"""The training problem in well-scaled coordinates.

Training sees columns of mean zero and variance one, and a target of variance one, however the
dataset stores them: the change of coordinates is affine and is folded into the map from code to
value that the kernels apply anyway. `to_model` folds it out again. A model without an intercept
could not take up a shift: then nothing is centred, and the mean square is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs.tables import code_entries, grid_steps, table_bits_of

from ..dataset_spec import DatasetSpec
from ..errors import UsageError
from ..losses import LOSSES
from .options import TrainOptions
from .polynomial import Polynomial, first_polynomial
from .refetching import REFETCH, require_refetching
from .step_polynomial import first_step

__all__ = ["Problem", "RowWeights", "make_problem"]

# A penalty beyond this holds a coefficient at zero all the same, and float32 can hold it.
_LARGEST_L2 = 1e30
_MAX_COUPLED_OUTPUTS = 64
# Integers pay from so many columns on, and sums of so many products of a code and an int8 fit 32
# bits.
_INTEGER_COLUMNS = range(32, (1 << 17) + 1)

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RowWeights:
    """How often rows count.

    Attributes
    ----------
    stored : bool
        Whether the dataset has weights of its own.
    by_class : tuple of float, or None
        What those are multiplied by for each class.
    unit : float
        What makes the mean weight one.
    at_zero : float
        How much they raise the loss of the zero model for numbers.
    """

    stored: bool
    by_class: tuple[float, ...] | None
    unit: float
    at_zero: float


@dataclass(frozen=True)
class Problem:
    """A loss over scaled columns; (columns,) arrays unless said.

    Value of column j in row i: ``row_scale[i] * (offset[j] + slope[j] * code) - centre[j]``, where
    ``tables[j, code]`` stands in the place of the code if there are level tables.

    Attributes
    ----------
    loss : str
        A name of `zipml_ooc.losses.LOSSES`.
    huber_delta : float
        In scaled coordinates, as all below.
    class_codes : bool
        Whether targets are class codes, one a row, and outputs are the classes.
    estimator : {"mean", "split", "polynomial"}
        How a stored code enters the gradient: as it is (the mean of its samples), or as the samples
        drawn apart again.
    corrected : bool
        Whether the rounding variance is taken out of the gradient.
    arithmetic : {"float", "int16", "int8"}
        What the codes are multiplied by.
    variance : float32
        Rounding variance of the stored code's value, in scaled coordinates.
    l2 : float32
        Strength of the penalty of each scaled coefficient.
    column_mean, column_std : float64
        A scaled column is (stored - mean) / std.
    target_mean, target_std : (outputs,) float64
    tables : (columns, codes) uint8 or uint16, or None
    l1 : float32 or None
        As `l2`, of the absolute values.
    weights : RowWeights or None
        None where every row counts once.
    polynomial : Polynomial or None
        That of the estimator, as it is before there is a model to choose it by.
    samples : int
        That a stored code is the sum of.
    precision : int
        At how many bits codes are read.
    woven : int
        Sample planes of the weaved layout; 0 if codes are packed.
    finer : int
        At how many bits rows are read again that these leave open; 0 if none are.
    """

    loss: str
    huber_delta: float
    class_codes: bool
    estimator: str
    corrected: bool
    arithmetic: str
    outputs: int
    stored_bits: int
    offset: F32
    slope: F32
    centre: F32
    variance: F32
    l2: F32
    column_mean: F64
    column_std: F64
    target_mean: F64
    target_std: F64
    tables: npt.NDArray[Any] | None = None
    l1: F32 | None = None
    samples: int = 1
    precision: int = 0
    woven: int = 0
    finer: int = 0
    weights: RowWeights | None = None
    polynomial: Polynomial | None = None

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.offset)

    @property
    def loss_at_zero(self) -> float:
        """Mean loss of a row under the zero model, in scaled coordinates; of numbers, at most."""
        loss = LOSSES[self.loss]
        raised = 1.0 if self.weights is None else self.weights.at_zero
        return math.log(self.outputs) if loss.coupled else raised * loss.at_zero * self.outputs

    @property
    def loss_unit(self) -> float:
        """What a loss in scaled coordinates is to be multiplied by."""
        return 1.0 if LOSSES[self.loss].of_classes else float(self.target_std[0] ** 2)

    def scale_target(self, target: F64) -> F32:
        """Targets in scaled coordinates; class codes as they are."""
        if LOSSES[self.loss].of_classes:
            return target.astype(np.float32)
        return ((target - self.target_mean) / self.target_std).astype(np.float32)

    def to_model(self, model: npt.NDArray[np.floating], intercept: F64) -> tuple[F64, F64]:
        """Coefficients (outputs, columns) and intercepts for the stored columns."""
        coef = model.astype(np.float64) * self.target_std[:, None] / self.column_std
        offset = intercept * self.target_std + self.target_mean - coef @ self.column_mean
        return coef, offset


def resolve_loss(spec: DatasetSpec, options: TrainOptions) -> str:
    """Choose the loss and check that it fits the target."""
    if spec.task is None:
        raise UsageError("the dataset holds no target: compress the source again with --target")
    classes, loss = spec.classes, options.loss
    if loss == "auto":
        loss = "squared" if classes is None else "logistic"
    if LOSSES[loss].of_classes and classes is None:
        raise UsageError(
            f"the {loss} loss needs classes and target {spec.targets[0]!r} holds numbers: "
            "compress with --task classification, or use --loss squared"
        )
    if not LOSSES[loss].of_classes and classes is not None:
        raise UsageError(
            f"the {loss} loss needs numbers and target {spec.targets[0]!r} holds classes: "
            "compress with --task regression, or use --loss logistic or ls-svm"
        )
    together = loss == "softmax" or options.multiclass == "softmax"
    if options.multiclass == "softmax" and loss not in ("logistic", "softmax"):
        raise UsageError(
            f"--multiclass softmax goes with the logistic loss, not with {loss}: use ovr"
        )
    if loss == "softmax" and options.multiclass == "ovr":
        raise UsageError("--loss softmax takes all classes together: use logistic for ovr")
    if classes is not None and loss in ("logistic", "softmax"):
        # Softmax of two classes is the logistic loss of the difference of their margins.
        together |= options.multiclass == "auto"
        return "softmax" if together and len(classes) > 2 else "logistic"
    return loss


def resolve_sampling(spec: DatasetSpec, options: TrainOptions) -> str:
    """Choose the estimator and check that the dataset has the samples for it."""
    samples, sampling = spec.quantizer.samples, options.sampling
    if sampling == "auto":
        sampling = "double" if samples >= 2 else "corrected"
    if sampling == "double" and samples == 1:
        raise UsageError(
            "double sampling needs two samples and the dataset holds one: compress with "
            "--samples 2, or use --sampling corrected"
        )
    if sampling == "double" and options.double_form == "split" and samples > 2:
        raise UsageError(
            f"the split form draws two samples apart and the dataset holds {samples}: use "
            "--double-form mean"
        )
    if sampling == "chebyshev":
        _check_polynomial(spec, options)
    return sampling


def _check_polynomial(spec: DatasetSpec, options: TrainOptions) -> None:
    """Say what a polynomial gradient lacks."""
    loss, samples = resolve_loss(spec, options), spec.quantizer.samples
    if loss == "softmax":
        raise UsageError(
            "polynomial gradients take one class against the rest: use --multiclass ovr with "
            "--gradient chebyshev"
        )
    if loss in ("squared", "ls-svm"):
        raise UsageError(
            f"the gradient of the {loss} loss is a polynomial of degree 1, for which double "
            "sampling is exact: use --gradient double"
        )
    if loss not in ("logistic", "hinge"):
        raise UsageError(
            f"polynomial gradients are those of the logistic loss and the hinge, not of {loss}: "
            "use --loss logistic or hinge, or --gradient double"
        )
    if samples <= 2:
        raise UsageError(
            "polynomial gradients need four samples or eight, for degree 3 or 7, and the dataset "
            f"holds {samples}: compress with --samples 4, or use --gradient double"
        )


def resolve_arithmetic(columns: int, options: TrainOptions) -> str:
    """Choose what the codes are multiplied by, and check that integers hold the sums."""
    if options.arithmetic == "auto":
        # With svrg rounding would put back the variance that it removes.
        if options.solver == "svrg" or options.sampling == "chebyshev":
            return "float"
        return "int16" if columns in _INTEGER_COLUMNS else "float"
    most = _INTEGER_COLUMNS[-1]
    if options.arithmetic != "float" and columns > most:
        raise UsageError(
            f"integer arithmetic takes up to {most} columns and the dataset has {columns}: "
            "use --arithmetic float"
        )
    return options.arithmetic


def make_problem(spec: DatasetSpec, options: TrainOptions) -> Problem:
    """Set up the coordinates and the estimator of a run."""
    loss, sampling = resolve_loss(spec, options), resolve_sampling(spec, options)
    bits = options.bits
    assert not isinstance(bits, str)  # a schedule has a problem for each of its precisions
    finer = 0
    if sampling == REFETCH:
        require_refetching(spec.quantizer, bits, loss, options.solver)
        finer = spec.quantizer.bits
    spec = spec.at(bits)
    q = spec.quantizer
    mean, std = spec.stored_mean, spec.stored_std
    if not options.fit_intercept:  # nothing could take up what centring leaves
        mean, std = np.zeros_like(mean), np.hypot(mean, std)
    steps, tables = q.intervals, None
    if spec.level_tables is not None:
        places = spec.level_tables.places
        steps = grid_steps(table_bits_of(places), q.samples)
        tables = code_entries(places, q.samples)
    if spec.lower is None or spec.upper is None:  # a row's values are its scale times -1 .. 1
        lower, step = np.full(len(mean), -1.0), np.full(len(mean), 2.0 / q.intervals)
        offset, centre = lower / std, mean / std
    else:
        lower = spec.lower.astype(np.float64)
        step = (spec.upper.astype(np.float64) - lower) / steps
        offset, centre = (lower - mean) / std, np.zeros(len(mean))
    outputs = len(spec.targets)
    if spec.classes is not None and len(spec.classes) > 2:
        outputs = len(spec.classes)
    # The correction of softmax takes the product of all pairs of outputs: too many for it.
    uncorrected = loss == "softmax" and outputs > _MAX_COUPLED_OUTPUTS
    target_mean, target_std = np.zeros(outputs), np.ones(outputs)
    if not LOSSES[loss].of_classes and spec.target_statistics is not None:
        # One unit for all outputs, so that the sum of their losses keeps its meaning.
        target_mean, spread = spec.target_statistics.mean, spec.target_statistics.std
        if not options.fit_intercept:
            target_mean, spread = np.zeros(outputs), np.hypot(target_mean, spread)
        largest = float(spread.max())
        target_std = np.full(outputs, largest if largest > 0 else 1.0)
    return Problem(
        loss=loss,
        huber_delta=options.huber_delta,
        class_codes=spec.classes is not None and outputs > 1,
        estimator=_estimator(sampling, options),
        corrected=sampling in ("double", "corrected")
        and LOSSES[loss].corrected
        and not uncorrected,
        arithmetic=resolve_arithmetic(len(mean), options),
        outputs=outputs,
        stored_bits=q.stored_bits,
        offset=offset.astype(np.float32),
        slope=(step / std / q.samples).astype(np.float32),
        centre=centre.astype(np.float32),
        variance=(spec.variance / q.samples / std**2).astype(np.float32) * (not uncorrected),
        l2=np.minimum(options.l2 / std**2, _LARGEST_L2).astype(np.float32),
        column_mean=mean,
        column_std=std,
        target_mean=target_mean,
        target_std=target_std,
        tables=tables,
        l1=np.minimum(options.l1 / std / target_std[0], _LARGEST_L2).astype(np.float32)
        if options.l1 > 0
        else None,
        samples=q.samples,
        precision=q.bits,
        woven=q.samples if q.weaved else 0,
        finer=finer,
        polynomial=_first_polynomial(loss, q.samples) if sampling == "chebyshev" else None,
    )


def _first_polynomial(loss: str, samples: int) -> Polynomial:
    return first_step() if loss == "hinge" else first_polynomial(samples)


def _estimator(sampling: str, options: TrainOptions) -> str:
    if sampling == "chebyshev":
        return "polynomial"
    return "split" if sampling == "double" and options.double_form == "split" else "mean"
