"""zipml's side: whole runs, whose epochs report their own times."""

from __future__ import annotations

import numpy as np

from zipml_ooc import Dataset, LinearModel, TrainOptions, train

from .runs import ENOUGH, Run
from .table import Quadratic

# A run's schedule depends on how many epochs it has: the time to a loss is that of a whole run.
_LENGTHS = (1, 2, 3, 5, 8)


def run(
    name: str, dataset: Dataset, loss: Quadratic, options: TrainOptions, threads: int, epochs: int
) -> Run:
    """Train on packed codes; a run includes the choice of the step and the final score."""
    options = TrainOptions(**{**options.to_dict(), "epochs": epochs})
    result = train(dataset, options, threads=threads)
    return Run(
        name=name,
        epoch_seconds=tuple(epoch.seconds for epoch in result.epochs),
        read_seconds=(),
        bytes_per_epoch=dataset.stored_bytes,
        values=dataset.spec.rows * len(dataset.spec.columns),
        excess=_excess(result.model, loss),
        seconds_to_enough=_to_enough(dataset, loss, options, threads),
    )


def _to_enough(
    dataset: Dataset, loss: Quadratic, options: TrainOptions, threads: int
) -> float | None:
    """Seconds of the shortest run that ends close enough to the best loss."""
    for epochs in _LENGTHS:
        shorter = TrainOptions(**{**options.to_dict(), "epochs": epochs})
        result = train(dataset, shorter, threads=threads)
        if _excess(result.model, loss) <= ENOUGH:
            return result.seconds
    return None


def _excess(model: LinearModel, loss: Quadratic) -> float:
    coef = model.coef[0] / model.scale
    return loss.excess(coef, float(model.intercept[0] - np.dot(coef, model.mean)))
