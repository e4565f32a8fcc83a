"""Training on the accelerator's arithmetic beside `native`: `python -m benchmarks.executors`.

The arithmetic is that of the native core, which is that of the gateware bit for bit; the table is
in docs/executors.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from zipml_ooc import CompressOptions, SourceOptions, TrainOptions, compress, train
from zipml_ooc.executors import Settings
from zipml_ooc.executors.fpga import FpgaExecutor
from zipml_ooc.executors.registry import offered
from zipml_ooc.gateware.driver import Device
from zipml_ooc.gateware.emulator import Emulator
from zipml_ooc.gateware.formats import Format

from .machine import about_machine, about_versions
from .tables import add_data_option, read_csv, read_mnist

BITS = (2, 4, 8)
CLASS_LOSSES = ("logistic", "squared-hinge", "ls-svm")

Array = npt.NDArray[Any]


def _emulator(form: Format, device: str | None, settings: Settings) -> Device:
    return Emulator(form)


def tables(data: Path | None) -> Iterator[tuple[str, Array, Array, str]]:
    """Names, columns, targets and losses."""
    if data is not None:
        for name in ("cadata", "cpusmall"):
            yield (name, *read_csv(data / f"{name}.csv.gz"), "squared")
        x, digit = read_mnist(data)
        pair = (digit == 3) | (digit == 8)
        kept = x[pair][:, x[pair].std(axis=0) > 0].astype(np.float32)
        yield "MNIST 3 and 8", kept, np.where(digit[pair] == 3, 1.0, -1.0), "squared"
        for loss in CLASS_LOSSES:
            yield "MNIST 3 and 8", kept, np.where(digit[pair] == 3, "a", "b"), loss
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5000, 10))
    y = x @ rng.standard_normal(10) * 1.5 + rng.logistic(size=5000) + 0.5
    for loss in CLASS_LOSSES:
        yield "made, 5000 x 10", x, np.where(y > 0, "a", "b"), loss


def _ratio(x: Array, y: Array, loss: str, bits: int, folder: Path) -> tuple[float, int, int]:
    """Loss over that of native, runs, and those in which a number of the model was clipped."""
    np.savez(folder / "table.npz", X=x, y=y)
    task = "regression" if loss == "squared" else "classification"
    stored = CompressOptions(bits=bits, samples=1, levels="uniform", task=task)
    dataset = compress(
        folder / "table.npz", folder / "d", stored, source_options=SourceOptions(), force=True
    )
    executor = FpgaExecutor("arithmetic", "the accelerator's", _emulator, lambda: None)
    native = train(dataset, TrainOptions(loss=loss)).loss
    with offered(executor):
        found = train(dataset, TrainOptions(loss=loss, executor="arithmetic"))
    assert found.counters is not None
    return found.loss / native, found.counters.runs, found.counters.model_clipped


def main() -> int:
    """Print a row for each table and loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_option(parser)
    data = parser.parse_args().data
    print(f"{about_machine()}\n{about_versions()}\n")
    print("| Table | Loss | " + " | ".join(f"{bits} bits" for bits in BITS) + " |")
    print("|---|---|" + "---|" * len(BITS))
    for name, x, y, loss in tables(data):
        cells = []
        for bits in BITS:
            with TemporaryDirectory() as folder:
                ratio, runs, clipped = _ratio(x, y, loss, bits, Path(folder))
            cells.append(f"{ratio:.4f} ({clipped} of {runs} runs clipped)")
        print(f"| {name} | {loss} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
