"""Tables that benchmarks read, where they lie, and the loss that models are compared with."""

from __future__ import annotations

import argparse
import csv
import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["add_data_option", "least_squares_loss", "read_csv", "read_mnist"]

Array = npt.NDArray[Any]


def read_csv(path: Path, target: str | None = None) -> tuple[Array, Array]:
    """Columns and target (the last column if it is not named) of a CSV file of numbers."""
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as file:
        names = next(csv.reader(file))
        table = np.loadtxt(file, delimiter=",")
    at = len(names) - 1 if target is None else names.index(target)
    return np.delete(table, at, axis=1), table[:, at]


def read_mnist(folder: Path) -> tuple[Array, Array]:
    """Pixels, (images, 784), and digits of MNIST's test images."""
    images = _read_idx(folder / "mnist-t10k-images-idx3-ubyte.gz")
    return images.reshape(-1, 784), _read_idx(folder / "mnist-t10k-labels-idx1-ubyte.gz")


def _read_idx(path: Path) -> Array:
    """An array in MNIST's own format."""
    raw = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(raw, ">u4", raw[3], offset=4).astype(int)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def add_data_option(parser: argparse.ArgumentParser) -> None:
    """Let ``--data``, or the environment variable that tests use, name the folder of the tables."""

    def folder(text: str) -> Path:
        if not Path(text).is_dir():
            raise argparse.ArgumentTypeError(f"there is no folder {text}")
        return Path(text)

    parser.add_argument(
        "--data",
        type=folder,
        default=os.environ.get("ZIPML_TEST_DATA"),
        help="folder of the real tables (default: ZIPML_TEST_DATA)",
    )


def least_squares_loss(x: Array, y: Array) -> float:
    """Half the mean squared residual of the best linear model with intercept, in float64."""
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    std = centred.std(axis=0)
    design = np.column_stack([centred / np.where(std > 0, std, 1), np.ones(len(x))])
    coefficients = np.linalg.lstsq(design, y.astype(np.float64), rcond=None)[0]
    return 0.5 * float(np.mean((design @ coefficients - y) ** 2))
