"""The other sides: scikit-learn, dask-ml and Vowpal Wabbit, each fed as its manual says.

scikit-learn and dask-ml read the uncompressed float32 Zarr chunks, Vowpal Wabbit its own binary
cache. Rows go by in the order of the file, for they are drawn independently.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import zarr

from .runs import ENOUGH, Run
from .table import Quadratic, blocks

# Its text form takes 12 bytes a value and its cache five: a part of the rows tells the pace.
_WABBIT_VALUES = 5_000_000


def scikit_learn(source: Path, loss: Quadratic, epochs: int) -> Run:
    """`SGDRegressor.partial_fit`, chunk by chunk, with averaging as zipml does."""
    from sklearn.linear_model import SGDRegressor

    group = zarr.open_group(source, mode="r")
    x, y = group["X"], group["y"]
    model = SGDRegressor(average=True, alpha=0.0, random_state=0)
    seconds: list[float] = []
    read_seconds: list[float] = []
    spent, enough, excess = 0.0, None, float("inf")
    for _ in range(epochs):
        of_epoch = reading = 0.0
        for start in range(0, x.shape[0], x.chunks[0]):
            began = time.perf_counter()
            features, target = (array[start : start + x.chunks[0]] for array in (x, y))
            read = time.perf_counter()
            model.partial_fit(features, target)
            ended = time.perf_counter()
            reading, of_epoch = reading + read - began, of_epoch + ended - began
            excess = loss.excess(model.coef_, float(model.intercept_[0]))
            if enough is None and excess <= ENOUGH:
                enough = spent + of_epoch
        spent += of_epoch
        seconds.append(of_epoch)
        read_seconds.append(reading)
    return Run(
        name="scikit-learn partial_fit",
        epoch_seconds=tuple(seconds),
        read_seconds=tuple(read_seconds),
        bytes_per_epoch=4 * x.size,
        values=x.size,
        excess=excess,
        seconds_to_enough=enough,
    )


def dask_ml(source: Path, loss: Quadratic, epochs: int, threads: int) -> Run:
    """`Incremental` around the same estimator, over Dask arrays of the same chunks."""
    import dask
    import dask.array as da
    from dask_ml.wrappers import Incremental
    from sklearn.linear_model import SGDRegressor

    x = da.from_zarr(str(source), component="X")
    y = da.from_zarr(str(source), component="y").rechunk(x.chunks[0])
    model = Incremental(SGDRegressor(average=True, alpha=0.0, random_state=0), shuffle_blocks=False)
    seconds, enough, excess = [], None, float("inf")
    with dask.config.set(scheduler="threads", num_workers=threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(epochs):
            began = time.perf_counter()
            model.partial_fit(x, y)
            seconds.append(time.perf_counter() - began)
            fitted = model.estimator_
            excess = loss.excess(fitted.coef_, float(fitted.intercept_[0]))
            if enough is None and excess <= ENOUGH:
                enough = sum(seconds)
    return Run(
        name="dask-ml Incremental",
        epoch_seconds=tuple(seconds),
        read_seconds=(),
        bytes_per_epoch=4 * x.size,
        values=x.size,
        excess=excess,
        seconds_to_enough=enough,
    )


class VowpalWabbit:
    """Passes over its own cache, which is written once: long runs less short ones."""

    def __init__(self, source: Path, folder: Path) -> None:
        from vowpalwabbit import Workspace

        self._workspace = Workspace
        self._text, self._cache = folder / "rows.vw", folder / "rows.cache"
        self.values = 0
        with self._text.open("w") as file:
            for features, target in blocks(source):
                for row, value in zip(features, target, strict=True):
                    pairs = " ".join(f"{i}:{v:g}" for i, v in enumerate(row.tolist()))
                    file.write(f"{value:g} | {pairs}\n")
                    self.values += len(row)
                    if self.values >= _WABBIT_VALUES:
                        break
                if self.values >= _WABBIT_VALUES:
                    break
        self._passes(1)

    def _passes(self, number: int) -> float:
        began = time.perf_counter()
        self._workspace(
            f"-d {self._text} --cache_file {self._cache} --passes {number} --holdout_off --quiet"
        ).finish()
        return time.perf_counter() - began

    def run(self, epochs: int) -> Run:
        """Time epochs: one of two passes more each."""
        started = self._passes(2)
        seconds = [(self._passes(2 + epochs) - started) / epochs]
        return Run(
            name="Vowpal Wabbit",
            epoch_seconds=tuple(seconds),
            read_seconds=(),
            bytes_per_epoch=self._cache.stat().st_size,
            values=self.values,
            excess=None,
            seconds_to_enough=None,
        )
