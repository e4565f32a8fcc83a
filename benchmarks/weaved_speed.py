"""The training step on weaved codes beside packed ones, in memory, on one core.

    python -m benchmarks.weaved_speed

Gvalues/s of a pass of SGD over 8,192 rows x 1,024 columns, mini-batches of 256 rows, the best of
three; encoding and decoding in GB/s of float32.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from zipml_codecs import TILE_ROWS, EncodedChunk, Quantizer, _native, encode_chunk

from .machine import about_machine, about_versions

ROWS, COLUMNS, BATCH_TILES = 8192, 1024, 4
ARITHMETICS = ("float", "int16", "int8")


def best(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def encoded(x: np.ndarray, quantizer: Quantizer) -> bytearray:
    bound = np.ones(COLUMNS, "f4")
    return encode_chunk(x, quantizer, lower=-bound, upper=bound, first_tile=0)


def step_time(chunk: EncodedChunk, y: np.ndarray, arithmetic: str) -> float:
    q, tiles = chunk.reading, ROWS // TILE_ROWS
    batch = _native.TileBatch(
        codes=[chunk.codes], targets=[y], row_scales=[None], first_tiles=np.zeros(1, "u8"),
        tiles=np.stack([np.zeros(tiles), np.arange(tiles)], axis=1).astype("u4"),
        offset=np.full(COLUMNS, -1, "f4"),
        slope=np.full(COLUMNS, 2 / (q.intervals * q.samples), "f4"),
        centre=np.zeros(COLUMNS, "f4"), stored_bits=q.stored_bits, outputs=1,
        woven=q.samples if q.weaved else 0,
    )  # fmt: skip

    def run() -> None:
        batch.sgd(
            model=np.zeros((1, COLUMNS), "f4"), intercept=np.zeros(1, "f4"),
            model_sum=np.zeros((1, COLUMNS)), intercept_sum=np.zeros(1), loss="squared",
            arithmetic=arithmetic, split=False, correction=1.0,
            variance=np.full(COLUMNS, 0.01, "f4"), l2=np.zeros(COLUMNS, "f4"), fit_intercept=True,
            batch_tiles=BATCH_TILES, batch_rows=float(BATCH_TILES * TILE_ROWS), step_first=1e-4,
            step_last=1e-4, average_from=0, seed=1, draw=1,
        )  # fmt: skip

    return best(run)


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (ROWS, COLUMNS)).astype("f4")
    y = rng.standard_normal((ROWS, 1)).astype("f4")
    print(f"{about_machine()}\n{about_versions()}")
    for simd in _native.simd_levels():
        if simd == "scalar":
            continue
        _native.select_simd(simd)
        for samples in (1, 2):
            weaved = Quantizer(bits=8, samples=samples, layout="weaved")
            data = encoded(x, weaved)
            chunk = EncodedChunk.parse(data)
            write = x.nbytes / best(lambda q=weaved: encoded(x, q)) / 1e9
            read = x.nbytes / best(lambda c=chunk: c.decode_rows(0, ROWS)) / 1e9
            print(f"\n{simd}, {samples} sample(s): encode {write:.2f} GB/s, decode {read:.2f} GB/s")
            print("bits  " + "  ".join(f"{a + ', weaved':>14} {'packed':>6}" for a in ARITHMETICS))
            for bits in weaved.precisions:
                packed = EncodedChunk.parse(encoded(x, Quantizer(bits=bits, samples=samples)))
                woven = EncodedChunk.parse(data, bits)
                cells = [
                    f"{x.size / step_time(woven, y, a) / 1e9:>14.1f} "
                    f"{x.size / step_time(packed, y, a) / 1e9:>6.1f}"
                    for a in ARITHMETICS
                ]
                print(f"{bits:>4}  " + "  ".join(cells))


if __name__ == "__main__":
    main()
