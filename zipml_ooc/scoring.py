"""Apply a model to data: raw sources of any kind, or a compressed dataset.

A compressed dataset is scored as it is stored, a few tiles at a time: its quantised values add
the rounding noise that `zipml info` shows to every margin.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zipml_codecs import TILE_ROWS

from .dataset import Dataset, open_dataset
from .dataset_spec import ATTRIBUTE
from .errors import DataError, UsageError
from .features import FeatureEncoder
from .losses import LOSSES
from .metrics import ClassificationMetrics, RegressionMetrics
from .model import LinearModel, load_model
from .multiclass_metrics import MulticlassMetrics
from .predictions import open_writer
from .sources import SourceOptions, open_source
from .stores import open_store
from .targets import TargetEncoder

__all__ = ["evaluate", "predict"]

F64 = npt.NDArray[np.float64]
Path_ = str | os.PathLike[str]
Data = Path_ | Dataset | Sequence[Path_]
Progress = Callable[[int, int | None], None]

_BLOCK_ROWS = 8192
_BLOCK_VALUES = 1 << 21


@dataclass(frozen=True)
class _Rows:
    """Raw columns of some rows, and their targets as the model knows them (or None)."""

    values: F64
    target: npt.NDArray[Any] | None


def evaluate(
    model: LinearModel | Path_,
    data: Data,
    *,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a model on data whose target is known.

    Parameters
    ----------
    model : LinearModel or path
    data : Dataset, or path(s) of a compressed dataset or of any source that `compress` takes
    source_options : SourceOptions
        How to read a raw source; the target columns are the model's.

    Returns
    -------
    dict
        ``rows, loss, r2, rmse, mae`` or ``rows, loss, accuracy, log_loss, auc``. The squared
        loss is half of the mean squared error, summed over outputs; the other losses are those
        that the model minimised. ``log_loss`` is None where there are no probabilities; ``auc``
        is that of the second class, or the mean over three and more.

    Raises
    ------
    UsageError, DataError
        Columns or targets that the model does not know, or values that cannot be used.
    """
    fitted = model if isinstance(model, LinearModel) else load_model(model)
    metrics = _metrics(fitted)
    done = 0
    for rows in _rows(fitted, data, source_options, target_needed=True):
        margin = fitted.decision_function(rows.values)
        target = rows.target
        assert target is not None
        metrics.update(target.reshape(len(margin), -1), margin)
        done += len(margin)
        if progress is not None:
            progress(done, None)
    if done == 0:
        raise DataError(f"{data}: no rows to score")
    return metrics.result()


def _metrics(model: LinearModel) -> RegressionMetrics | ClassificationMetrics | MulticlassMetrics:
    if model.classes is None:
        delta = model.record.get("huber_delta") if model.loss == "huber" else None
        return RegressionMetrics(len(model.targets), delta)
    # The squared loss on classes is that on -1 and 1.
    loss = model.loss if LOSSES[model.loss].of_classes else "ls-svm"
    if len(model.classes) == 2:
        return ClassificationMetrics(loss)
    return MulticlassMetrics(len(model.classes), loss)


def predict(
    model: LinearModel | Path_,
    data: Data,
    out: Path_,
    *,
    source_options: SourceOptions = SourceOptions(),  # noqa: B008 - frozen
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a model's predictions for data, with or without its target.

    Parameters
    ----------
    model, data, source_options
        As for `evaluate`.
    out : path ending in .csv, .parquet or .npy
        One row for each row of the data. Tables have a column for each target, and for classes
        with probabilities a column ``probability_<class>`` of the second class, or of each of
        three and more; npy files hold the predictions alone.
    force : bool
        Replace an existing file.

    Returns
    -------
    dict
        ``rows`` and ``path``.
    """
    fitted = model if isinstance(model, LinearModel) else load_model(model)
    done = 0
    with open_writer(Path(out), fitted, force=force) as write:
        for rows in _rows(fitted, data, source_options, target_needed=False):
            write(rows.values)
            done += len(rows.values)
            if progress is not None:
                progress(done, None)
        if done == 0:
            raise DataError(f"{data}: no rows to predict")
    return {"rows": done, "path": os.fspath(out)}


def _rows(
    model: LinearModel, data: Data, options: SourceOptions, *, target_needed: bool
) -> Iterator[_Rows]:
    if isinstance(data, Dataset):
        return _stored_rows(model, data, target_needed=target_needed)
    paths = [data] if isinstance(data, str | os.PathLike) else list(data)
    if len(paths) == 1 and _is_compressed(paths[0]):
        return _stored_rows(model, open_dataset(paths[0]), target_needed=target_needed)
    return _source_rows(model, [os.fspath(p) for p in paths], options, target_needed=target_needed)


def _is_compressed(path: Path_) -> bool:
    try:
        store = open_store(path)
    except UsageError:  # the reader of sources says what is wrong with this URL
        return False
    for name in ("zarr.json", ".zattrs"):
        try:
            if f'"{ATTRIBUTE}"'.encode() in bytes(store.read(name)):
                return True
        except OSError:
            continue
    return False


def _stored_rows(model: LinearModel, dataset: Dataset, *, target_needed: bool) -> Iterator[_Rows]:
    spec = dataset.spec
    if spec.columns != model.columns:
        raise UsageError(
            f"the model was trained on {_columns(model.columns)}, "
            f"{dataset.path} holds {_columns(spec.columns)}: the columns must be the same"
        )
    if target_needed and (spec.targets != model.targets or spec.classes != model.classes):
        raise UsageError(
            f"the model predicts {', '.join(model.targets)} "
            f"({_kind(model.classes)}), {dataset.path} holds "
            f"{', '.join(spec.targets) or 'no target'} ({_kind(spec.classes)})"
        )
    at_once = max(1, _BLOCK_VALUES // (TILE_ROWS * max(len(spec.columns), 1))) * TILE_ROWS
    for number in range(spec.chunks):
        chunk = dataset.read_chunk(number)
        first = number * spec.chunk_rows
        for start in range(0, chunk.header.rows, at_once):
            count = min(at_once, chunk.header.rows - start)
            stored = chunk.decode_rows(start // TILE_ROWS, count).astype(np.float64)
            target = None
            if target_needed:
                target = dataset.read_target(first + start, first + start + count)
            yield _Rows(stored * spec.scale + spec.mean, target)


def _source_rows(
    model: LinearModel, paths: list[str], options: SourceOptions, *, target_needed: bool
) -> Iterator[_Rows]:
    encoder = FeatureEncoder.from_dict(model.encoder["features"])
    fill = model.encoder["fill"]
    source = open_source(
        paths,
        replace(
            options,
            target=options.target or model.targets,
            target_optional=not target_needed,
            select=encoder.columns,
            text=tuple(encoder.categories),
        ),
    )
    if target_needed and not source.targets:
        raise UsageError(
            f"{', '.join(paths)} has no target: scoring needs {', '.join(model.targets)}"
        )
    task = "regression" if model.classes is None else "classification"
    targets = TargetEncoder(task, model.targets, model.classes)
    for block in source.blocks(_BLOCK_ROWS):
        values = encoder.transform(block)
        if fill is not None:
            values = np.where(np.isnan(values), np.asarray(fill), values)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(
                f"{', '.join(paths)}: column {encoder.names[column]!r} is {values[row, column]} in "
                f"row {block.first_row + row} (counted from 0): fill it in or remove the row"
            )
        target = None
        if target_needed:
            assert block.target is not None
            if (block.target.size // block.rows) != len(model.targets):
                raise UsageError(
                    f"{', '.join(paths)} has targets {', '.join(source.targets)}, "
                    f"the model predicts {', '.join(model.targets)}"
                )
            target = targets.transform(block.target, block.first_row)
        yield _Rows(values, target)


def _columns(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} columns ({shown})"


def _kind(classes: Sequence[Any] | None) -> str:
    return "a number" if classes is None else f"classes {', '.join(map(repr, classes[:5]))}"
