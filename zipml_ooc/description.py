"""What a compressed dataset is: the facts behind `zipml info`."""

from __future__ import annotations

import os
from typing import Any

from .dataset import Dataset, open_dataset

__all__ = ["describe"]


def describe(dataset: Dataset | str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a compressed dataset by plain JSON values.

    Parameters
    ----------
    dataset : Dataset or path

    Returns
    -------
    dict
        Sizes in bytes; ``ratio`` is how many times smaller X is than as float32. Each entry of
        ``per_column`` has the range of the source's values, and, in units of the stored values,
        the ``step`` between levels and the rounding ``variance`` of one sample (for standardised
        columns: relative to the column's own variance).
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec = opened.spec
    q = spec.quantizer
    values = spec.rows * len(spec.columns)
    stored, full = opened.stored_bytes, 4 * values
    statistics = spec.statistics
    per_column = []
    for j, name in enumerate(spec.columns):
        step = None
        if spec.lower is not None and spec.upper is not None:
            step = (float(spec.upper[j]) - float(spec.lower[j])) / q.intervals
        per_column.append(
            {
                "name": name,
                "min": float(statistics.minimum[j]),
                "max": float(statistics.maximum[j]),
                "mean": float(statistics.mean[j]),
                "std": float(statistics.std[j]),
                "missing": int(statistics.missing[j]),
                "step": step,
                "variance": float(spec.variance[j]),
            }
        )
    return {
        "path": str(opened.path),
        "rows": spec.rows,
        "columns": len(spec.columns),
        "bits": q.bits,
        "samples": q.samples,
        "layout": "packed",
        "levels": "uniform",
        "scale": q.scale,
        "standardized": spec.standardized,
        "nan": q.nan,
        "seed": q.seed,
        "bytes": stored,
        "float32_bytes": full,
        "ratio": full / stored,
        "bytes_per_value": stored / values,
        "zarr_format": opened.zarr_format,
        "chunk_rows": spec.chunk_rows,
        "chunks": spec.chunks,
        "task": spec.task,
        "targets": list(spec.targets),
        "classes": None if spec.classes is None else list(spec.classes),
        "per_column": per_column,
        "source": dict(spec.source),
    }
