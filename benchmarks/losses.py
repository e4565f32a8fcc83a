"""What the correction of rounding gains for each loss: `python -m benchmarks.losses`.

Normal columns, two samples, equally spaced levels, ten epochs. Excess of the full-precision loss
over its optimum, which a general minimiser finds on the same rows. The table is in
docs/estimators.md.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from zipml_codecs.reference_losses import ReferenceLoss

from zipml_ooc import CompressOptions, SourceOptions, TrainOptions, compress, train
from zipml_ooc.losses import LOSSES, probabilities, summed_loss

ROWS, COLUMNS, DELTA = 100_000, 8, 1.345
BITS = (2, 3, 4)
FORMS = {"naive": ("naive", "mean"), "mean": ("auto", "mean"), "split": ("auto", "split")}

F64 = npt.NDArray[np.float64]


def table(loss: str) -> tuple[F64, F64, int]:
    """Columns, targets or class codes, and the number of outputs."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((ROWS, COLUMNS))
    signal = rng.standard_normal(COLUMNS) / np.sqrt(COLUMNS)
    if not LOSSES[loss].of_classes:
        y = x @ signal + 0.5 * rng.standard_t(2, ROWS)
        return x, (y - y.mean()) / y.std(), 1
    classes = 4 if loss == "softmax" else 2
    weights = rng.standard_normal((COLUMNS, classes)) / np.sqrt(COLUMNS / 2)
    code = (x @ weights + rng.gumbel(size=(ROWS, classes))).argmax(axis=1)
    return x, code.astype(np.float64), classes if classes > 2 else 1


def mean_loss(loss: str, x: F64, y: F64, w: F64, b: F64) -> float:
    """Mean loss of a row in full precision."""
    return summed_loss(loss, x @ w.T + b, y[:, None], huber_delta=DELTA) / len(x)


def optimum(loss: str, x: F64, y: F64, outputs: int) -> float:
    """Least mean loss."""
    hot = np.asarray(y[:, None] == np.arange(outputs), np.float64)

    def at(v: F64) -> tuple[float, F64]:
        w, b = v[: outputs * COLUMNS].reshape(outputs, COLUMNS), v[outputs * COLUMNS :]
        margin = x @ w.T + b
        if loss == "softmax":
            slope = probabilities(loss, margin) - hot
        else:
            slope = ReferenceLoss(loss, DELTA).terms(margin, y[:, None])[1]
        parts = [(slope.T @ x / len(x)).ravel(), slope.mean(axis=0)]
        return mean_loss(loss, x, y, w, b), np.concatenate(parts)

    start = np.zeros(outputs * (COLUMNS + 1))
    return float(minimize(at, start, jac=True, method="L-BFGS-B").fun)


def main() -> None:
    """Print the table."""
    print("| Loss | Bits | `naive` | `double`, mean | `double`, split |\n|---|---|---|---|---|")
    with TemporaryDirectory() as folder:
        for loss in LOSSES:
            x, y, outputs = table(loss)
            best = optimum(loss, x, y, outputs)
            source = Path(folder) / f"{loss}.npz"
            np.savez(source, X=x, y=y)
            for bits in BITS:
                task = "classification" if LOSSES[loss].of_classes else "regression"
                options = CompressOptions(task=task, bits=bits, levels="uniform")
                dest = Path(folder) / f"{loss}{bits}"
                dataset = compress(source, dest, options, source_options=SourceOptions())
                cells = []
                for sampling, form in FORMS.values():
                    asked = TrainOptions(loss=loss, sampling=sampling, double_form=form, epochs=10)
                    model = train(dataset, asked).model
                    found = mean_loss(loss, x, y, model.coef / x.std(axis=0), model.intercept
                                      - model.coef @ (x.mean(axis=0) / x.std(axis=0)))  # fmt: skip
                    cells.append(f"{100 * (found / best - 1):.2g} %")
                print(f"| {loss} | {bits} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
