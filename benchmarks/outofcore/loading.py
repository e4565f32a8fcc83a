"""The loading path alone: stored bytes to buffers that the kernels take, beside plain `read()`.

All sides read files that lie in the page cache and keep nothing; they take turns, and a ratio is
the median over pairs of turns. `read()` is what one writes, `Path.read_bytes`; beside it stand the
system's calls alone (open, fstat, read, close, from Python), which do without file objects.
"""

from __future__ import annotations

import argparse
import os
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
_TURNS = 101
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

    targets = _files(Path(dataset.path) / "y" / "c")
    in_turns = [file for pair in zip(files, targets, strict=True) for file in pair]
    return [
        _compared("zipml, chunks checked", _each(dataset.read_chunk, chunks, threads), files,
                  threads),
        _compared("zipml, with targets", _each(with_targets, chunks, threads), in_turns, threads),
    ]  # fmt: skip


def _raw_ways(place: Path, threads: int) -> list[dict[str, Any]]:
    array: Any = zarr.open_array(place, mode="r")
    files = _files(place / "c")
    starts = range(0, array.shape[0], array.chunks[0])

    def decode(start: int) -> None:
        array[start : start + array.chunks[0]]

    return [_compared("zarr-python, raw float32", _each(decode, starts, threads), files, threads)]


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _read(file: Path) -> None:
    file.read_bytes()


def _calls(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    os.read(file, os.fstat(file).st_size)
    os.close(file)


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
    name: str, run: Callable[[], None], files: Sequence[Path], threads: int
) -> dict[str, Any]:
    ways = {
        "plain": _each(_read, files, threads),
        "calls": _each(_calls, [str(file) for file in files], threads),
        "own": run,
    }
    for way in ways.values():
        way()
    turns = [{key: seconds(way) for key, way in ways.items()} for _ in range(_TURNS)]
    size = sum(file.stat().st_size for file in files)
    speed = {key: size / statistics.median(turn[key] for turn in turns) for key in ways}
    ratios = sorted(turn["plain"] / turn["own"] for turn in turns)
    return {
        "name": name,
        "threads": threads,
        "bytes": size,
        "bytes_per_second": speed["own"],
        "plain_bytes_per_second": speed["plain"],
        "calls_bytes_per_second": speed["calls"],
        "ratio": statistics.median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-len(ratios) // 4]],
        "ratio_to_calls": statistics.median(turn["calls"] / turn["own"] for turn in turns),
    }
