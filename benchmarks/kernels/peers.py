"""The float32 peers: compiled kernels (benchmarks/peers.cpp), BLAS and scikit-learn."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import SGDRegressor

SOURCE = Path(__file__).parents[1] / "peers.cpp"
# Not -ffast-math: linking with it would flush denormals to zero in this process.
FLAGS = (
    "-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fassociative-math",
    "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno", "-shared", "-fPIC",
)  # fmt: skip
PADDING = 16  # floats that the kernels may read behind a table and want behind a model

Floats = npt.NDArray[np.float32]


class PeerKernels:
    """SGD over a table of floats, one row or one mini-batch at a time, in several forms."""

    def __init__(self, folder: Path) -> None:
        library = folder / "peers.so"
        compiler = os.environ.get("CXX", "c++")
        subprocess.run([compiler, *FLAGS, str(SOURCE), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))  # its calls release the GIL
        for name in ("row_forms", "batch_forms"):
            getattr(self._library, name).restype = ctypes.c_char_p
        pointer, size, real = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float
        self._library.row_sgd.argtypes = [
            ctypes.c_int, pointer, pointer, size, size, real, pointer, pointer,
        ]  # fmt: skip
        self._library.batch_sgd.argtypes = [
            ctypes.c_int, pointer, pointer, size, size, size, real, pointer, pointer, pointer,
        ]  # fmt: skip
        self.row_forms: list[str] = self._library.row_forms().decode().split(",")
        self.batch_forms: list[str] = self._library.batch_forms().decode().split(",")

    def row_sgd(self, form: str, x: Floats, y: Floats, step: float) -> tuple[Floats, float] | None:
        """One pass, row by row, from a model of zeros; None if the form is not for this width.

        `x` is C-contiguous with `PADDING` readable floats behind it (`padded_table`).
        """
        rows, columns = x.shape
        model, intercept = np.zeros(columns + 2 * PADDING, "f4"), np.zeros(1, "f4")
        refused = self._library.row_sgd(
            self.row_forms.index(form), x.ctypes.data, y.ctypes.data, rows, columns, step,
            model.ctypes.data, intercept.ctypes.data,
        )  # fmt: skip
        return None if refused else finite(model[:columns], float(intercept[0]))

    def batch_sgd(
        self, form: str, x: Floats, y: Floats, step: float, batch: int
    ) -> tuple[Floats, float] | None:
        """One pass in mini-batches; otherwise as `row_sgd`."""
        rows, columns = x.shape
        model, intercept = np.zeros(columns + 2 * PADDING, "f4"), np.zeros(1, "f4")
        gradient = np.zeros_like(model)
        refused = self._library.batch_sgd(
            self.batch_forms.index(form), x.ctypes.data, y.ctypes.data, rows, columns, batch, step,
            gradient.ctypes.data, model.ctypes.data, intercept.ctypes.data,
        )  # fmt: skip
        return None if refused else finite(model[:columns], float(intercept[0]))


def finite(model: Floats, intercept: float) -> tuple[Floats, float]:
    """The model, once it is known that nothing diverged: infinities would be another speed."""
    if not (np.isfinite(model).all() and np.isfinite(intercept)):
        raise FloatingPointError("a peer diverged: the step is too large for this table")
    return model, intercept


def blas_sgd(x: Floats, y: Floats, step: float, batch: int) -> tuple[Floats, float]:
    """Mini-batch SGD in NumPy: two matrix-vector products of the BLAS for each batch."""
    model, intercept = np.zeros(x.shape[1], "f4"), np.float32(0)
    scale = np.float32(step / batch)
    for start in range(0, len(x), batch):
        rows = x[start : start + batch]
        residual = rows @ model
        residual += intercept
        residual -= y[start : start + batch]
        model -= scale * (rows.T @ residual)
        intercept -= scale * residual.sum()
    return finite(model, float(intercept))


def sklearn_sgd(
    x: npt.NDArray[np.floating[Any]], y: npt.NDArray[np.floating[Any]], step: float
) -> tuple[Floats, float]:
    """One `partial_fit` in the order of the table."""
    model = SGDRegressor(
        penalty=None, alpha=0.0, learning_rate="constant", eta0=step, shuffle=False, average=False
    )
    model.partial_fit(x, y)
    return finite(model.coef_, float(model.intercept_[0]))


def padded_table(values: int) -> Floats:
    """Room for a table, with what the kernels may read behind it."""
    return np.zeros(values + 2 * PADDING, "f4")


def check(kernels: PeerKernels) -> None:
    """Compare every peer with NumPy in double precision: none may be fast by being wrong."""
    rng = np.random.default_rng(0)
    rows = 203  # no multiple of any block or batch
    for columns in (1, 5, 8, 12, 16, 17, 90, 100, 150):
        buffer = padded_table(rows * columns)
        buffer[rows * columns :] = np.nan  # what lies behind the table must not matter
        x = buffer[: rows * columns].reshape(rows, columns)
        x[:] = rng.standard_normal(x.shape)
        y = rng.standard_normal(rows).astype("f4")
        step = 0.2 / (columns + 1)
        expected = _reference(x, y, step, 1)
        for form in kernels.row_forms:
            _compare(f"row {form}", columns, kernels.row_sgd(form, x, y, step), expected)
        _compare("scikit-learn", columns, sklearn_sgd(x, y, step), expected)
        for batch in (64, 256):
            expected = _reference(x, y, step, batch)
            for form in kernels.batch_forms:
                found = kernels.batch_sgd(form, x, y, step, batch)
                _compare(f"batch {form}", columns, found, expected)
            _compare("BLAS", columns, blas_sgd(x, y, step, batch), expected)


def _reference(x: Floats, y: Floats, step: float, batch: int) -> tuple[Any, float]:
    model, intercept = np.zeros(x.shape[1]), 0.0
    for start in range(0, len(x), batch):
        rows = x[start : start + batch].astype("f8")
        residual = rows @ model + intercept - y[start : start + batch]
        model = model - step / batch * (rows.T @ residual)
        intercept -= step / batch * residual.sum()
    return model, float(intercept)


def _compare(
    name: str, columns: int, found: tuple[Floats, float] | None, expected: tuple[Any, float]
) -> None:
    if found is None:
        return
    for got, wanted in zip(found, expected, strict=True):
        if not np.allclose(got, wanted, rtol=1e-4, atol=1e-5):
            raise AssertionError(f"the peer {name!r} is wrong for {columns} columns")


def forms_for(
    forms: list[str], run: Callable[[str], tuple[Floats, float] | None]
) -> dict[str, Callable[[], Any]]:
    """The forms that take tables of this width, as runs without arguments."""
    return {form: (lambda form=form: run(form)) for form in forms if run(form) is not None}
