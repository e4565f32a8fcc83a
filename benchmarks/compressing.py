"""What more threads bring to `compress`: several kinds of source, levels uniform and optimal.

    python -m benchmarks.compressing [--json] [--rows 400000] [--columns 100] [--threads 2]

One thread and several take turns on the same files in the page cache; a ratio is the median over
pairs of turns. The bytes of the datasets are compared, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zipml_ooc import CompressOptions, SourceOptions, compress

from .machine import about_machine, about_versions, machine, versions

LEVELS = ("uniform", "optimal")


def npy(place: Path, values: np.ndarray) -> Path:
    """The values as they lie in memory; the last column is the target."""
    np.save(place / "t.npy", values)
    return place / "t.npy"


def parquet(place: Path, values: np.ndarray) -> Path:
    """Eight row groups."""
    import pyarrow.parquet

    pyarrow.parquet.write_table(
        _arrow(values), place / "t.parquet", row_group_size=len(values) // 8
    )
    return place / "t.parquet"


def csv(place: Path, values: np.ndarray) -> Path:
    """A quarter of the rows, for text takes long to read."""
    import pyarrow.csv

    pyarrow.csv.write_csv(_arrow(values[: len(values) // 4]), place / "t.csv")
    return place / "t.csv"


def _arrow(values: np.ndarray) -> Any:
    import pyarrow

    return pyarrow.table({f"c{i}": column for i, column in enumerate(values.T)})


KINDS: dict[str, Callable[[Path, np.ndarray], Path]] = {"npy": npy, "Parquet": parquet, "CSV": csv}


def compared(source: Path, levels: str, threads: int, turns: int) -> dict[str, Any]:
    """Seconds on one thread and on several, in turns, each pass apart."""
    seconds: dict[int, list[tuple[float, float]]] = {1: [], threads: []}
    digests = set()
    for turn in range(turns + 1):
        for count in seconds:
            dest = source.with_name(f"{count}.zarr")
            first, whole = _timed(source, dest, levels, count)
            digests.add(_digest(dest))
            shutil.rmtree(dest)
            if turn:  # the first one warms up
                seconds[count].append((first, whole))
    pairs = list(zip(seconds[1], seconds[threads], strict=True))
    return {
        "levels": levels,
        "seconds": {n: statistics.median(whole for _, whole in s) for n, s in seconds.items()},
        "first_pass": {n: statistics.median(first for first, _ in s) for n, s in seconds.items()},
        "ratio": statistics.median(one[1] / several[1] for one, several in pairs),
        "first_pass_ratio": statistics.median(one[0] / several[0] for one, several in pairs),
        "same_bytes": len(digests) == 1,
    }


def _timed(source: Path, dest: Path, levels: str, threads: int) -> tuple[float, float]:
    begun = time.perf_counter()
    first = begun

    def progress(stage: str, done: int, total: int | None) -> None:
        nonlocal first
        if stage == "statistics":
            first = time.perf_counter()

    options = CompressOptions(bits=4, levels=levels, threads=threads)
    compress(source, dest, options, source_options=SourceOptions(target=("-1",)), progress=progress)
    return first - begun, time.perf_counter() - begun


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder)} {file.stat().st_size}\n".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compressing", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", help=f"some of {','.join(KINDS)}", default=",".join(KINDS))
    arguments = parser.parse_args()
    kinds = arguments.only.split(",")
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(KINDS)}")
    if arguments.threads < 2:
        parser.error(f"--threads {arguments.threads}: 2 or more are compared with one")
    shape = arguments.rows, arguments.columns + 1
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(["pyarrow"]),
        "rows": shape[0],
        "columns": shape[1] - 1,
    }
    with TemporaryDirectory() as folder:
        for kind in kinds:
            source = KINDS[kind](Path(folder), values)
            report[kind] = [
                compared(source, levels, arguments.threads, arguments.turns) for levels in LEVELS
            ]
            source.unlink()
    print(json.dumps(report, indent=1) if arguments.json else _text(report, arguments.threads))


def _text(report: dict[str, Any], threads: int) -> str:
    lines = [
        about_machine(report["machine"]),
        about_versions(report["versions"]),
        f"table     {report['rows']:,} rows x {report['columns']} columns of float32 and a target",
        f"{'':20}{'1 thread':>10}{f'{threads} threads':>12}{'ratio':>8}{'first pass':>12}  bytes",
    ]
    for kind in KINDS:
        for way in report.get(kind, ()):
            one, several = way["seconds"].values()
            lines.append(
                f"{kind:8}{way['levels']:12}{one:>8.2f} s{several:>10.2f} s{way['ratio']:>8.2f}"
                f"{way['first_pass_ratio']:>12.2f}  {'same' if way['same_bytes'] else 'DIFFERENT'}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
