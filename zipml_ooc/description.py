"""What a compressed dataset is: the facts behind `zipml info`."""

from __future__ import annotations

import os
from typing import Any

from zipml_codecs.tables import table_bits_of

from .dataset import Dataset, open_dataset

__all__ = ["describe"]

_MOST_SHOWN = 3


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
        columns: relative to the column's own variance). With fitted levels ``step`` is None,
        and ``saved`` is the part of the rounding variance of equally spaced levels that they
        avoid (None where those have none): of each column, and as ``variance_saved`` of the sum
        over columns that are scaled to variance one. ``precisions`` says for each precision of
        the weaved layout how many bytes of X a pass over it reads, and the mean rounding variance.
    """
    opened = dataset if isinstance(dataset, Dataset) else open_dataset(dataset)
    spec = opened.spec
    q = spec.quantizer
    values = spec.rows * len(spec.columns)
    stored, full = opened.stored_bytes, 4 * values
    statistics = spec.statistics
    tables = spec.level_tables
    uniform = spec.variance if tables is None else tables.uniform_variance
    relative = spec.stored_std**-2.0
    per_column: list[dict[str, Any]] = []
    for j, name in enumerate(spec.columns):
        step = None
        if spec.lower is not None and spec.upper is not None and tables is None:
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
                "uniform_variance": None if tables is None else float(uniform[j]),
                "saved": None if tables is None else _saved(spec.variance[j], uniform[j]),
            }
        )
    return {
        "path": str(opened.path),
        "rows": spec.rows,
        "columns": len(spec.columns),
        "bits": q.bits,
        "samples": q.samples,
        "layout": q.layout,
        "stored_bits": q.stored_bits,
        "precisions": [
            {"bits": k, "bytes": opened.bytes_at(k), "variance": _mean_variance(opened, k)}
            for k in q.precisions
        ],
        "levels": q.levels,
        "table_bits": None if tables is None else table_bits_of(tables.places),
        "variance_saved": None
        if tables is None
        else _saved((spec.variance * relative).sum(), (uniform * relative).sum()),
        "most_saved": _most_saved(per_column),
        "scale": q.scale,
        "standardized": spec.standardized,
        "weight": spec.weight,
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


def _mean_variance(dataset: Dataset, precision: int) -> float:
    """Rounding variance of one sample at a precision, relative to the columns' own: the mean."""
    spec = dataset.spec.at(precision)
    return float((spec.variance / spec.stored_std**2).mean())


def _saved(variance: float, uniform: float) -> float | None:
    return float(1 - variance / uniform) if uniform > 0 else None


def _most_saved(per_column: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Name and part of the columns that gain most from their levels."""
    gaining = [c for c in per_column if c["saved"] is not None]
    gaining.sort(key=lambda c: -c["saved"])
    return [{"name": c["name"], "saved": c["saved"]} for c in gaining[:_MOST_SHOWN]]
