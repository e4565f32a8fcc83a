"""The loading path alone: stored bytes to buffers that the kernels take, beside plain `read()`.

All sides read files that lie in the page cache and keep nothing; they take turns, and a ratio is
the median over pairs of turns.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from zipml_ooc import CompressOptions, Dataset, compress, synth

from ..kernels.timing import seconds

BITS, SAMPLES = 4, 2
_TURNS = 25
_RAW_ROWS = 200_000


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Read a packed table and an uncompressed one, each in several ways."""
    source = folder / "loading.npz"
    synth(source, rows=arguments.rows, columns=arguments.columns)
    packed = compress(source, folder / "loading.zarr", CompressOptions(bits=BITS, samples=SAMPLES))
    source.unlink()
    raw = _raw(folder / "raw.zarr", arguments.columns, packed.spec.chunk_rows)
    ways = []
    for threads in sorted({1, arguments.threads}):
        ways += _packed_ways(packed, threads)
        ways += _raw_ways(raw, threads)
    return {
        "rows": arguments.rows,
        "columns": arguments.columns,
        "bits": BITS,
        "samples": SAMPLES,
        "chunks": packed.spec.chunks,
        "turns": _TURNS,
        "ways": ways,
    }


def _raw(place: Path, columns: int, chunk_rows: int) -> Path:
    """An uncompressed float32 array with chunks of as many rows."""
    array = zarr.create_array(
        place, shape=(_RAW_ROWS, columns), chunks=(chunk_rows, columns), dtype="f4",
        compressors=None,
    )  # fmt: skip
    array[:] = np.random.default_rng(0).standard_normal((_RAW_ROWS, columns), np.float32)
    return place


def _packed_ways(dataset: Dataset, threads: int) -> list[dict[str, Any]]:
    spec = dataset.spec
    chunks = range(spec.chunks)
    files = _files(Path(dataset.path) / "X" / "c")

    def with_targets(number: int) -> None:
        dataset.read_chunk(number)
        start = number * spec.chunk_rows
        dataset.read_target(start, start + spec.rows_of_chunk(number))

    size = sum(file.stat().st_size for file in files)
    plain = _each(_read, files, threads)
    targets = sum(file.stat().st_size for file in _files(Path(dataset.path) / "y" / "c"))
    return [
        _compared("zipml, chunks checked", _each(dataset.read_chunk, chunks, threads), plain, size,
                  threads),
        _compared("zipml, with targets", _each(with_targets, chunks, threads),
                  _each(_read, [*files, *_files(Path(dataset.path) / "y" / "c")], threads),
                  size + targets, threads),
    ]  # fmt: skip


def _raw_ways(place: Path, threads: int) -> list[dict[str, Any]]:
    array: Any = zarr.open_array(place, mode="r")
    files = _files(place / "c")
    starts = range(0, array.shape[0], array.chunks[0])

    def decode(start: int) -> None:
        array[start : start + array.chunks[0]]

    size = sum(file.stat().st_size for file in files)
    name = "zarr-python, raw float32"
    return [
        _compared(name, _each(decode, starts, threads), _each(_read, files, threads), size, threads)
    ]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(file: Path) -> None:
    file.read_bytes()


def _each(function: Callable[[Any], Any], over: Sequence[Any], threads: int) -> Callable[[], None]:
    def run() -> None:
        if threads == 1:
            for one in over:
                function(one)
            return
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(function, over):
                pass

    return run


def _compared(
    name: str, run: Callable[[], None], plain: Callable[[], None], size: int, threads: int
) -> dict[str, Any]:
    plain()
    run()
    turns = [(seconds(plain), seconds(run)) for _ in range(_TURNS)]
    own = statistics.median(own for _, own in turns)
    ratios = sorted(base / own for base, own in turns)
    return {
        "name": name,
        "threads": threads,
        "bytes": size,
        "bytes_per_second": size / own,
        "plain_bytes_per_second": size / statistics.median(base for base, _ in turns),
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-len(ratios) // 4]],
    }
