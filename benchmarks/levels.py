"""What fitted levels save on a table: rounding variance, and loss above least squares.

    python -m benchmarks.levels cadata.csv.gz medianHouseValue [--seeds 5]

Compresses the table with equally spaced and with fitted levels at 2, 3 and 4 bits, one and two
samples, trains with the defaults, and scores the model on the original values.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from zipml_ooc import CompressOptions, SourceOptions, compress, train

from .tables import least_squares_loss, read_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("target")
    parser.add_argument("--seeds", type=int, default=5)
    chosen = parser.parse_args()
    x, y = read_csv(chosen.table, chosen.target)
    best = least_squares_loss(x, y)
    print("samples bits levels   table  variance  excess loss: median, worst")
    with tempfile.TemporaryDirectory() as folder:
        for samples, bits in ((s, b) for s in (1, 2) for b in (2, 3, 4)):
            for levels in ("uniform", "optimal"):
                excess = []
                for seed in range(chosen.seeds):
                    dataset = compress(
                        chosen.table,
                        Path(folder) / "d.zarr",
                        CompressOptions(bits=bits, samples=samples, levels=levels, seed=seed),
                        source_options=SourceOptions(target=(chosen.target,)),
                        force=True,
                    )
                    predicted = np.ravel(train(dataset).model.predict(x))
                    excess.append(0.5 * np.mean((predicted - y) ** 2) / best - 1)
                spec = dataset.spec
                tables = spec.level_tables
                size = "-" if tables is None else f"{8 * tables.places.dtype.itemsize}"
                print(
                    f"{samples:>7} {bits:>4} {levels:<8} {size:>5}  {spec.variance.sum():8.4f}  "
                    f"{100 * np.median(excess):.3f} %, {100 * max(excess):.3f} %",
                    flush=True,
                )


if __name__ == "__main__":
    main()
