"""Which claims of the ZipML paper (arXiv 1611.05402) hold here, in tables.

    python -m benchmarks.paper [--only levels,convergence,...] [--quick] [--data FOLDER]

Real tables (cadata, cpusmall) are read from the folder given by `--data` or by the environment
variable ZIPML_TEST_DATA; without it tables of scikit-learn take their place. After each table there
is a line for every claim, and whether it holds. The figures are in `notebooks/paper.ipynb`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .text import Findings

__all__ = ["PARTS", "measure"]

PARTS = ("levels", "convergence", "movement", "channels", "schedules", "refetch", "logistic")


def measure(part: str, data: Path | None = None, *, quick: bool = False) -> list[Findings]:
    """Measure one part; `data` is the folder of the real tables."""
    found: list[Findings] = importlib.import_module(f".{part}", __name__).measure(data, quick)
    return found
