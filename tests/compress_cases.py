"""A table with targets and weights, and a compression of it that stops in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tables import write_csv

from zipml_ooc import CompressOptions, SourceOptions, compress

OPTIONS = CompressOptions(bits=3, chunk_rows=64, weight="w")
TARGETS = SourceOptions(target=("y", "z"))


def table(path: Path, rows: int = 1000) -> Path:
    rng = np.random.default_rng(0)
    values = rng.standard_normal((rows, 6)).round(3)
    columns: dict[str, Any] = {f"c{j}": values[:, j] for j in range(4)}
    columns |= {"y": values[:, 4], "z": values[:, 5], "w": np.abs(values[:, 0])}
    return write_csv(path, columns)


def interrupted(source: Path, dest: Path, options: CompressOptions = OPTIONS) -> Path:
    """Stop in the middle of the second pass, and return where the rest lies."""

    def stop(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows >= 500:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, dest, options, source_options=TARGETS, progress=stop)
    partial = dest.with_name(f".{dest.name}.partial")
    assert 5 <= len(list(partial.glob("dataset/X/c/*"))) < 16
    return partial
