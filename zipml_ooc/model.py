"""The trained linear model: what it predicts and the `.zipml` file that keeps it.

A `LinearModel` is all that prediction needs: coefficients for the standardised columns, the
standardisation itself, names, class labels, the encoder that made the columns, and the record of
the training. This module is not for encoding raw tables into columns and not for training: it
stores the encoder and the record without looking inside. `zipml_ooc.model_file` holds the bytes.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.losses import LOSSES, probabilities
from zipml_ooc.model_file import read_model_file, write_model_file

__all__ = ["ClassLabel", "LinearModel", "load_model"]

ClassLabel = str | int | float | bool
FloatArray = NDArray[np.float64]

_ARRAYS = ("coef", "intercept", "mean", "scale")
_LABEL_TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
_BLOCK_VALUES = 1 << 20  # float64 values in the scratch block of a prediction: 8 MiB


@dataclass(frozen=True, eq=False)
class LinearModel:
    """A linear model over standardised columns, ``z = (x - mean) / scale``.

    Arrays are copied and made read-only; `encoder` and `record` are kept as JSON keeps them
    (a tuple becomes a list), so that a model in memory and the same model loaded behave alike.

    Parameters
    ----------
    loss : str
        The loss that was minimised, a name of `zipml_ooc.losses.LOSSES`: for numbers "squared" or
        "huber", else one for `classes`.
    coef : ndarray, shape (outputs, d), float64
        Coefficients for the standardised columns. Two classes have one output, which tells the
        second from the first; three and more have one each.
    intercept : ndarray, shape (outputs,), float64
        One intercept for each output.
    columns : tuple of str
        Names of the d columns after encoding.
    mean, scale : ndarray, shape (d,), float64
        The standardisation; every scale is above 0.
    targets : tuple of str
        One name for each output; of classes, one name.
    classes : tuple of labels, or None
        Class labels (str, int, float or bool) with their types; None for regression.
    encoder, record : dict
        JSON-able description of the feature encoding, and of the training.

    Raises
    ------
    DataError
        Parts that do not fit together, are not finite or are not JSON.
    """

    loss: str
    coef: FloatArray
    intercept: FloatArray
    columns: tuple[str, ...]
    mean: FloatArray
    scale: FloatArray
    targets: tuple[str, ...]
    classes: tuple[ClassLabel, ...] | None
    encoder: dict[str, Any]
    record: dict[str, Any]

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = np.array(getattr(self, name), dtype=np.float64, order="C")
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        for name in ("columns", "targets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(_plain_label(c) for c in self.classes))
        for name in ("encoder", "record"):
            object.__setattr__(self, name, _plain_json(name, getattr(self, name)))
        _check(self)

    def decision_function(self, x: NDArray[Any]) -> FloatArray:
        """Margins (regression: predictions) of raw, unstandardised columns.

        The columns are standardised first, in float64 and in row blocks, instead of folding
        ``mean / scale`` into the intercept: where a mean is large beside its scale (years, time
        stamps, prices) the folded form subtracts two large numbers and loses the digits that
        ``x - mean`` keeps.

        Parameters
        ----------
        x : ndarray, shape (rows, d), any real dtype

        Returns
        -------
        ndarray, shape (rows, outputs), float64

        Raises
        ------
        DataError
            A wrong number of columns, a dtype that is not a real number, NaN or infinity.
        """
        return self._margins(x, standardise=True)

    def decision_standardised(self, z: NDArray[Any]) -> FloatArray:
        """Margins of columns that are standardised already; otherwise as `decision_function`."""
        return self._margins(z, standardise=False)

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Predicted values, or predicted class labels.

        Parameters
        ----------
        x : ndarray, shape (rows, d), any real dtype
            Raw, unstandardised columns.

        Returns
        -------
        ndarray
            Regression: float64, (rows,) for one output, else (rows, outputs). Classification:
            (rows,), of two classes the label ``classes[1]`` where the margin is above 0, else
            ``classes[0]``; of more the one with the largest margin, the first of equal ones;
            int64, float64 or bool for labels of that one type, object otherwise.
        """
        return self.from_margins(self.decision_function(x))

    def from_margins(self, margins: FloatArray) -> NDArray[Any]:
        """What `predict` makes of margins (rows, outputs)."""
        if self.classes is None:
            return margins[:, 0] if margins.shape[1] == 1 else margins
        if margins.shape[1] == 1:
            return np.asarray(self.labels[(margins[:, 0] > 0).astype(np.intp)])
        return np.asarray(self.labels[margins.argmax(axis=1)])

    @property
    def labels(self) -> NDArray[Any]:
        """The class labels as an array: int64, float64 or bool for that one type, else object."""
        return _label_array(self.classes or ())

    @property
    def probabilistic(self) -> bool:
        """Whether `predict_proba` has an answer."""
        return LOSSES[self.loss].probabilistic

    def predict_proba(self, x: NDArray[Any]) -> FloatArray:
        """Class probabilities of a logistic or softmax model, in the order of `classes`.

        Parameters
        ----------
        x : ndarray, shape (rows, d), any real dtype
            Raw, unstandardised columns.

        Returns
        -------
        ndarray, shape (rows, classes), float64
            Without overflow for any margin; of two, the smaller probability keeps its relative
            accuracy. Classes that were trained against the rest have their probabilities divided
            by their sum, as scikit-learn does.

        Raises
        ------
        UsageError
            The model's loss knows no probabilities.
        """
        if not self.probabilistic:
            raise UsageError(
                f"a model with {self.loss} loss has no probabilities; "
                "use predict, or train with logistic loss"
            )
        return probabilities(self.loss, self.decision_function(x))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to `path`, whole or not at all; the same model gives the same bytes.

        Raises
        ------
        UsageError
            The directory is missing or not writable, or `path` is a directory.
        DataError
            The disk is full or failed; an older file stays as it was.
        """
        classes = self.classes
        header = {
            "loss": self.loss,
            "columns": list(self.columns),
            "targets": list(self.targets),
            "classes": classes and [{"type": type(c).__name__, "value": c} for c in classes],
            "encoder": self.encoder,
            "record": self.record,
        }
        write_model_file(path, header, {name: getattr(self, name) for name in _ARRAYS})

    def _margins(self, x: NDArray[Any], *, standardise: bool) -> FloatArray:
        x = np.asarray(x)
        width = len(self.columns)
        if x.ndim != 2:
            raise DataError(
                f"X has {x.ndim} dimensions, but the model expects 2: (rows, {width} columns)"
            )
        if x.shape[1] != width:
            raise DataError(f"X has {x.shape[1]} columns, but the model expects {width}")
        if x.dtype.kind not in "biuf":
            raise DataError(f"X has dtype {x.dtype}, but the model expects real numbers")
        margins = np.empty((x.shape[0], self.coef.shape[0]))
        step = max(1, _BLOCK_VALUES // width)
        for start in range(0, x.shape[0], step):
            z = x[start : start + step].astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):  # judged below, with the place
                if standardise:
                    z -= self.mean
                    z /= self.scale
                block = z @ self.coef.T + self.intercept
            if not (np.isfinite(z).all() and np.isfinite(block).all()):
                self._raise_not_finite(x[start : start + step], z, block, start)
            margins[start : start + step] = block
        return margins

    def _raise_not_finite(
        self, x: NDArray[Any], z: FloatArray, margins: FloatArray, start: int
    ) -> NoReturn:
        for values in (x, z):
            bad = np.argwhere(~np.isfinite(values))
            if len(bad):
                row, column = bad[0]
                raise DataError(
                    f"X has {x[row, column]} in row {start + row}, column "
                    f"{self.columns[column]!r}, which the model cannot use; fill or drop it"
                )
        row = np.argwhere(~np.isfinite(margins))[0, 0]
        raise DataError(
            f"the prediction for row {start + row} of X is too large for float64; "
            "check the row for values far outside the training data"
        )


def load_model(path: str | os.PathLike[str]) -> LinearModel:
    """Read a model that `LinearModel.save` wrote.

    Nothing is unpickled, and every part is checked before it is used.

    Raises
    ------
    UsageError
        The file is missing, a directory or not readable.
    DataError
        The file is truncated, corrupted, of another kind or of a newer major version.
    """
    try:
        header, arrays = read_model_file(path, _ARRAYS)
        return _from_parts(header, arrays)
    except DataError as error:
        raise DataError(f"{os.fspath(path)} cannot be used as a model: {error}") from error


def _check(model: LinearModel) -> None:
    """Raise DataError at the first part of `model` that does not fit the others."""
    if model.loss not in LOSSES:
        raise DataError(
            f"unknown loss {model.loss!r}; known: {', '.join(map(repr, LOSSES))}: "
            "a newer version of zipml-ooc may have written it"
        )
    for what in ("columns", "targets"):
        names = getattr(model, what)
        if not names or not all(isinstance(name, str) for name in names):
            raise DataError(f"{what} must be one or more strings, not {names!r:.80}")
    d, outputs = len(model.columns), len(model.targets)
    what_for = f"{outputs} targets"
    if model.classes is not None and len(model.classes) > 2:
        outputs, what_for = len(model.classes), f"{len(model.classes)} classes"
    shapes = {"coef": (outputs, d), "intercept": (outputs,), "mean": (d,), "scale": (d,)}
    for what, shape in shapes.items():
        array = getattr(model, what)
        if array.shape != shape:
            raise DataError(
                f"{what} has shape {array.shape}, but {d} columns and {what_for} need {shape}"
            )
        if not np.isfinite(array).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise DataError(
                f"{what} has {array[place]} at {place}, where a finite number is needed; "
                "if the training diverged, train with a smaller step"
            )
    if not (model.scale > 0).all():
        j = int(np.argmax(~(model.scale > 0)))
        raise DataError(
            f"scale is {model.scale[j]} for column {model.columns[j]!r}; it must be above 0"
        )
    if model.classes is None:
        if LOSSES[model.loss].of_classes:
            raise DataError(f"a {model.loss} model needs its class labels, but classes is None")
        return
    different = len({(type(c), c) for c in model.classes})
    if len(model.targets) != 1 or different < 2 or different != len(model.classes):
        raise DataError(
            f"a classifier has one target and two or more different classes, not "
            f"{len(model.targets)} target(s) and classes {model.classes!r:.80}"
        )
    if LOSSES[model.loss].coupled and different == 2:
        raise DataError(f"the {model.loss} loss takes three or more classes, not two")


def _plain_label(label: Any) -> ClassLabel:
    """The label as exactly str, int, float or bool: NumPy's scalars lose their wrapping."""
    plain = label.item() if isinstance(label, np.generic) else label
    if type(plain) not in _LABEL_TYPES.values() or (
        isinstance(plain, float) and not math.isfinite(plain)
    ):
        raise DataError(
            f"class label {plain!r:.80} of type {type(plain).__name__}; a label is a string, "
            "an integer, a finite float or a boolean"
        )
    return plain  # type: ignore[no-any-return]


def _label_array(classes: tuple[ClassLabel, ...]) -> NDArray[Any]:
    kinds = {type(c) for c in classes}
    dtype: Any = object
    if kinds <= {bool} or kinds <= {float}:
        dtype = kinds.pop()
    elif kinds <= {int} and all(-(2**63) <= c < 2**63 for c in classes if isinstance(c, int)):
        dtype = np.int64
    labels = np.empty(len(classes), dtype=dtype)
    labels[:] = classes
    return labels


def _plain_json(name: str, value: Any) -> dict[str, Any]:
    """`value` as it will come back from the file; DataError where JSON cannot hold it."""
    try:
        plain = json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{name} cannot be written as JSON: {error}; use only dict, list, str, int, finite "
            "float, bool and None"
        ) from error
    if not isinstance(plain, dict):
        raise DataError(f"{name} must be a dict, not {type(value).__name__}")
    return plain


def _from_parts(header: dict[str, Any], arrays: dict[str, FloatArray]) -> LinearModel:
    types = {"loss": str, "columns": list, "targets": list, "encoder": dict, "record": dict}
    for key, kind in types.items():
        if not isinstance(header.get(key), kind):
            raise DataError(f"{key!r} in model.json is missing or not a {kind.__name__}")
    parts: dict[str, Any] = {**arrays, **{key: header[key] for key in types}}
    return LinearModel(**parts, classes=_read_classes(header.get("classes")))


def _read_classes(tagged: Any) -> tuple[ClassLabel, ...] | None:
    if tagged is None:
        return None
    labels: list[ClassLabel] = []
    for item in tagged if isinstance(tagged, list) else [tagged]:
        kind = _LABEL_TYPES.get(str(item.get("type"))) if isinstance(item, dict) else None
        if kind is None or type(item.get("value")) is not kind:
            raise DataError(f"'classes' in model.json holds {item!r:.80}, not a label and its type")
        labels.append(item["value"])
    return tuple(labels)
