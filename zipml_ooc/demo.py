"""The whole way on a set that is made on the spot, beside the exact answer for the same rows.

What `zipml demo` shows: generate, compress, train, score on rows that were not trained on, and
compare with least squares in float64. This module is not a benchmark: the set is small and easy.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from .compression import CompressOptions, compress
from .dataset import Dataset
from .description import describe
from .errors import UsageError
from .model import LinearModel
from .scoring import evaluate
from .sources import Source, open_source
from .synthesis import synth
from .training import TrainOptions, train

__all__ = ["DemoOptions", "DemoResult", "DemoScores", "run_demo"]

Progress = Callable[[str], None]
"""Called as progress(what begins)."""

_BLOCK_ROWS = 8192


@dataclass(frozen=True)
class DemoOptions:
    """What to demonstrate on: the regression set of `zipml_ooc.synth`, 4 bits by default."""

    rows: int = 20_000
    columns: int = 100
    test_rows: int = 5_000
    bits: int = 4
    seed: int = 0


@dataclass(frozen=True)
class DemoScores:
    """How well one model does.

    Attributes
    ----------
    train_loss : float
        Half the mean squared error on the training rows as they are at full precision.
    test_r2 : float
        On rows that were not trained on, at full precision.
    """

    train_loss: float
    test_r2: float


@dataclass(frozen=True)
class DemoResult:
    """What was done and how it compares.

    Attributes
    ----------
    rows, test_rows, columns, bits, samples : int
    float32_bytes, stored_bytes : int
        Size of the feature columns before and after.
    ratio : float
    compress_seconds, train_seconds, seconds : float
        The last one of everything, the references too.
    epochs : int
    low_precision, naive, full_precision : DemoScores
        Trained on the codes with their rounding corrected for; the same without; least squares in
        float64 on the uncompressed rows.
    folder : str or None
        Where the files are, if they were kept.
    """

    rows: int
    test_rows: int
    columns: int
    bits: int
    samples: int
    float32_bytes: int
    stored_bytes: int
    ratio: float
    compress_seconds: float
    train_seconds: float
    seconds: float
    epochs: int
    low_precision: DemoScores
    naive: DemoScores
    full_precision: DemoScores
    folder: str | None


def run_demo(
    folder: str | os.PathLike[str] | None = None,
    options: DemoOptions = DemoOptions(),
    *,
    force: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """Generate, compress, train and compare.

    Parameters
    ----------
    folder : path, optional
        Keep the files here (made if it is missing); by default they are removed at the end.
    options : DemoOptions
    force : bool
        Replace the files of an earlier demonstration in `folder`.
    threads : int, optional
        For compressing and training; the result does not depend on it.
    progress : callable, optional

    Raises
    ------
    UsageError
        An option out of range, or files of these names in `folder` already.
    DataError
        The disk is full or failed.
    """
    compress_options = CompressOptions(bits=options.bits, seed=options.seed, threads=threads)
    report = progress or (lambda step: None)
    if folder is not None:
        _make_folder(Path(folder))
    place = TemporaryDirectory(prefix="zipml-demo-") if folder is None else nullcontext(folder)
    with place as kept:
        return _run(
            Path(kept), options, compress_options, report,
            force=force, threads=threads, folder=None if folder is None else os.fspath(folder),
        )  # fmt: skip


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"the folder {folder} cannot be made: {error.strerror}") from error


def _run(
    place: Path,
    options: DemoOptions,
    compress_options: CompressOptions,
    report: Progress,
    *,
    force: bool,
    threads: int | None,
    folder: str | None,
) -> DemoResult:
    began = time.perf_counter()
    train_file, dataset_path, model_path = (
        place / name for name in ("demo.npz", "demo.zarr", "demo.zipml")
    )
    if not force:  # synth refuses its own two files
        for path in (dataset_path, model_path):
            if path.exists():
                raise UsageError(f"{path} exists: choose another folder or use --force")

    report(f"generating {options.rows:,} x {options.columns:,} values")
    made = synth(
        train_file,
        rows=options.rows,
        columns=options.columns,
        seed=options.seed,
        test_rows=options.test_rows,
        force=force,
    )
    test_file = Path(made["test_path"])

    report(f"compressing to {options.bits} bits")
    start = time.perf_counter()
    dataset = compress(train_file, dataset_path, compress_options, force=force)
    compress_seconds = time.perf_counter() - start

    report("training on the codes")
    training = TrainOptions(seed=options.seed)
    result = train(dataset, training, threads=threads)
    result.model.save(model_path)

    report("training without the correction")
    naive = train(dataset, replace(training, sampling="naive"), threads=threads)

    report("solving least squares at full precision")
    exact = _least_squares(dataset, open_source([str(train_file)]))

    report("scoring")
    facts = describe(dataset)
    low, uncorrected, full = (
        DemoScores(
            train_loss=evaluate(model, train_file)["loss"],
            test_r2=evaluate(model, test_file)["r2"],
        )
        for model in (result.model, naive.model, exact)
    )
    return DemoResult(
        rows=options.rows,
        test_rows=options.test_rows,
        columns=options.columns,
        bits=facts["bits"],
        samples=facts["samples"],
        float32_bytes=facts["float32_bytes"],
        stored_bytes=facts["bytes"],
        ratio=facts["ratio"],
        compress_seconds=compress_seconds,
        train_seconds=result.seconds,
        seconds=time.perf_counter() - began,
        epochs=len(result.epochs),
        low_precision=low,
        naive=uncorrected,
        full_precision=full,
        folder=folder,
    )


def _least_squares(dataset: Dataset, source: Source) -> LinearModel:
    """The float64 least-squares model of a source of numbers, from its normal equations.

    One pass that holds a block at a time. Squaring the condition number is fine here: the
    columns of the set are independent and of one size.
    """
    spec = dataset.spec
    width = len(spec.columns)
    gram = np.zeros((width + 1, width + 1))
    moment = np.zeros(width + 1)
    for block in source.blocks(_BLOCK_ROWS):
        assert block.target is not None
        assert isinstance(block.features, np.ndarray)
        rows = np.column_stack([block.features.astype(np.float64), np.ones(block.rows)])
        gram += rows.T @ rows
        moment += rows.T @ np.asarray(block.target, np.float64)
    solution = np.asarray(np.linalg.solve(gram, moment), np.float64)
    return LinearModel(
        loss="squared",
        coef=solution[None, :width],
        intercept=solution[width:],
        columns=spec.columns,
        mean=np.zeros(width),
        scale=np.ones(width),
        targets=spec.targets,
        classes=None,
        encoder=dict(spec.encoder),
        record={},
    )
