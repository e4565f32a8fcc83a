"""What a training run is asked to do, checked once and for all before anything is read."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from zipml_codecs import TILE_ROWS

from ..errors import UsageError

__all__ = ["ARITHMETICS", "DOUBLE_FORMS", "LOSSES", "SAMPLINGS", "TrainOptions"]

LOSSES = ("auto", "squared", "logistic")
SAMPLINGS = ("auto", "double", "corrected", "naive")
DOUBLE_FORMS = ("mean", "split")
ARITHMETICS = ("auto", "float", "int16", "int8")
_MAX_L2 = 1e30


@dataclass(frozen=True)
class TrainOptions:
    """How to train.

    Parameters
    ----------
    loss : {"auto", "squared", "logistic"}
        ``auto``: logistic for classes, squared otherwise.
    l2 : float
        Strength of the penalty ``l2 / 2 * |coef|**2`` on the coefficients of the stored columns,
        beside the mean loss of a row.
    sampling : {"auto", "double", "corrected", "naive"}
        Gradient estimator. ``double`` (ZipML, section 2.2) needs two samples; ``corrected`` takes
        the known rounding variance out of a single sample's gradient; ``naive`` does not and is
        biased like a ridge penalty. ``auto``: ``double`` on two samples, ``corrected`` on one.
    double_form : {"mean", "split"}
        ``split`` draws the two samples apart again and is the paper's estimator; ``mean`` takes
        their mean and subtracts the rounding variance: same expectation, less noise, less work.
    arithmetic : {"auto", "float", "int16", "int8"}
        What the codes are multiplied by: the model and the residuals in single precision, or
        rounded stochastically to 16 or 8 bits in every mini-batch and multiplied in integers
        (ZipML, section 2.4): faster on wide tables, noisier, and unbiased for the squared loss
        (for the logistic to first order). ``auto``: int16 from 32 columns on, else float.
    epochs : int, optional
        By default as many as give 20,000 mini-batches, at least 5 and at most 200.
    batch_rows : int
        Rows of a mini-batch, rounded up to whole tiles of 64.
    step_size : float, optional
        In units of the standardised problem; by default from the spectrum of the data, and
        lowered if the run diverges.
    shrinkage : float, optional
        Part of the correction that is applied, 0 to 1; by default from the guard.
    average : bool
        Average the iterates of the second half of the run.
    validation : float
        Part of the rows held out, 0 up to 1; whole tiles of 64 rows, at least one.
    patience : int, optional
        Stop after this many epochs without a better validation loss, and keep the best model.
    fit_intercept : bool
        Without it the model passes through the origin of the columns as they are stored: through
        their means if they are standardised.
    seed : int
        Keys the order of the rows, the held-out rows, the splits and the rounding.
    """

    loss: str = "auto"
    l2: float = 0.0
    sampling: str = "auto"
    double_form: str = "mean"
    arithmetic: str = "auto"
    epochs: int | None = None
    batch_rows: int = TILE_ROWS
    step_size: float | None = None
    shrinkage: float | None = None
    average: bool = True
    validation: float = 0.0
    patience: int | None = None
    fit_intercept: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("loss", self.loss, LOSSES),
            ("sampling", self.sampling, SAMPLINGS),
            ("double form", self.double_form, DOUBLE_FORMS),
            ("arithmetic", self.arithmetic, ARITHMETICS),
        ):
            if value not in allowed:
                raise UsageError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        _require(0 <= self.l2 <= _MAX_L2, "l2", self.l2, f"0 to {_MAX_L2:g}")
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

    @property
    def batch_tiles(self) -> int:
        """Tiles of a mini-batch."""
        return -(-self.batch_rows // TILE_ROWS)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def _require(ok: bool, name: str, value: object, allowed: str) -> None:
    if not ok:
        raise UsageError(f"{name} must be {allowed}; got {value}")
