"""Write the golden chunks and arrays: bytes that every later version must decode alike.

They freeze the format. Run it when a case is added; it leaves existing files alone. With
``--overwrite`` it rewrites them, which is right only before a format version is published, or
together with a new major version (docs/format.md, section "Versions").
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from zipml_codecs import EncodedChunk, Quantizer, encode_chunk

HERE = Path(__file__).parent


def values(rows, columns, dtype, seed=0):
    """Columns of different kinds: symmetric, offset, constant, few values, small."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, columns))
    x[:, 1::5] += 1000
    x[:, 2::5] = 2.5
    x[:, 3::5] = rng.integers(-1, 2, x[:, 3::5].shape)
    x[:, 4::5] *= 1e-3
    return x.astype(dtype)


def extreme(rows, dtype):
    """Bounds for which the arithmetic is scaled by a power of two."""
    info, rng = np.finfo(dtype), np.random.default_rng(1)
    x = np.empty((rows, 3))
    x[:, 0] = rng.uniform(-1, 1, rows) * float(info.max)
    x[:, 1] = rng.integers(-99, 99, rows) * float(info.smallest_subnormal)
    x[:, 2] = rng.choice([-0.0, 0.0], rows)
    return x.astype(dtype)


def padded(x, shape, fill):
    out = np.full(shape, fill, x.dtype)
    out[tuple(slice(0, n) for n in x.shape)] = x
    return out


def heavy_tailed(rows, dtype):
    """Levels of such columns need a fine grid."""
    rng = np.random.default_rng(4)
    return np.clip(rng.standard_cauchy((rows, 3)), -1000, 1000).astype(dtype)


def with_missing(x):
    x[3, 0] = x[60, 1] = np.nan
    return x


CASES = {
    "b1-column-f4": (values(70, 9, "f4"), {"bits": 1}, {}),
    "b3-column-f8": (values(130, 5, "f8"), {"bits": 3, "seed": 2**64 - 1}, {"first_tile": 2**40}),
    "b4-column-f2": (values(70, 6, "f2"), {"bits": 4, "seed": 7}, {"first_tile": 3}),
    "b8-column-f4": (values(65, 7, "f4"), {"bits": 8}, {}),
    "b3-two-samples-column-f4": (values(100, 6, "f4"), {"bits": 3, "samples": 2}, {}),
    "b8-two-samples-column-f2": (values(40, 6, "f2"), {"bits": 8, "samples": 2}, {}),
    "b4-row-f4": (values(70, 6, "f4"), {"bits": 4, "scale": "row"}, {}),
    "b6-two-samples-row-f8": (values(9, 6, "f8"), {"bits": 6, "samples": 2, "scale": "row"}, {}),
    "b5-row-l2-f4": (values(70, 6, "f4"), {"bits": 5, "scale": "row-l2"}, {}),
    "b4-edge-nan-f4": (padded(values(20, 3, "f4"), (32, 4), np.nan), {"bits": 4}, {}),
    "b4-edge-zero-row-f8": (padded(values(20, 3, "f8") + 5, (32, 4), 99.0), {"scale": "row"}, {}),
    "b7-fortran-f4": (np.asfortranarray(values(70, 6, "f4")), {"bits": 7}, {}),
    "b2-big-endian-f8": (values(30, 6, ">f8"), {"bits": 2}, {}),
    "b4-three-axes-f4": (values(24, 6, "f4").reshape(4, 6, 6), {"bits": 4}, {}),
    "b4-one-axis-f4": (values(90, 1, "f4")[:, 0], {"bits": 4}, {}),
    "b4-extreme-f4": (extreme(66, "f4"), {"bits": 4}, {}),
    "b2-two-samples-extreme-f8": (extreme(66, "f8"), {"bits": 2, "samples": 2}, {}),
    "b4-imputed-f4": (with_missing(values(70, 3, "f4")), {"bits": 4, "nan": "mean"}, {}),
    "b4-table-f4": (values(130, 6, "f4"), {"bits": 4, "levels": "optimal"}, {}),
    "b3-two-samples-table-f8": (
        values(70, 6, "f8"),
        {"bits": 3, "samples": 2, "levels": "optimal"},
        {"first_tile": 9},
    ),
    "b2-wide-table-f4": (heavy_tailed(300, "f4"), {"bits": 2, "levels": "optimal"}, {}),
    "b4-two-samples-wide-table-f2": (
        heavy_tailed(300, "f2"),
        {"bits": 4, "samples": 2, "levels": "optimal"},
        {},
    ),
    "b4-table-extreme-f8": (extreme(66, "f8"), {"bits": 4, "levels": "optimal"}, {}),
    "b8-weaved-f4": (values(130, 6, "f4"), {"bits": 8, "layout": "weaved"}, {"first_tile": 2**40}),
    "b5-two-samples-weaved-f8": (
        values(70, 6, "f8"),
        {"bits": 5, "samples": 2, "layout": "weaved", "precisions": [2, 3]},
        {},
    ),
    "b8-two-samples-weaved-f2": (
        values(40, 6, "f2"),
        {"bits": 8, "samples": 2, "layout": "weaved", "precisions": [7]},
        {},
    ),
    "b3-four-samples-column-f4": (values(100, 6, "f4"), {"bits": 3, "samples": 4}, {}),
    "b5-eight-samples-column-f8": (values(70, 5, "f8"), {"bits": 5, "samples": 8, "seed": 3}, {}),
    "b2-eight-samples-table-f2": (
        heavy_tailed(100, "f2"),
        {"bits": 2, "samples": 8, "levels": "optimal"},
        {"first_tile": 2**40},
    ),
    "b2-four-samples-extreme-f4": (extreme(66, "f4"), {"bits": 2, "samples": 4}, {}),
    "b4-weaved-extreme-f4": (extreme(66, "f4"), {"bits": 4, "layout": "weaved"}, {}),
    "b4-dataset-chunk-f4": (
        np.random.default_rng(2).uniform(-1, 1, (70, 6)).astype("f4"),
        {"bits": 4, "samples": 2, "seed": 5},
        {"first_tile": 1, "lower": -2.0, "upper": 1.5, "chunk_shape": (128, 6)},
    ),
}  # fmt: skip


def write_chunks(*, overwrite):
    """Write NAME.zipml-chunk, NAME.input.npy, NAME.decoded.npy and one cases.json for all."""
    listed = {}
    for name, (array, quantizer, options) in CASES.items():
        listed[name] = {"quantizer": Quantizer(**quantizer).to_dict(), "options": options}
        place = HERE / f"{name}.zipml-chunk"
        if place.exists() and not overwrite:
            print(f"kept {place.name}")
            continue
        numbers = {
            key: np.float32(option) if key in ("lower", "upper") else option
            for key, option in options.items()
        }
        encoded = encode_chunk(array, Quantizer(**quantizer), **numbers)
        place.write_bytes(encoded)
        np.save(HERE / f"{name}.input.npy", array)
        np.save(HERE / f"{name}.decoded.npy", EncodedChunk.parse(encoded).decode())
        print(f"wrote {place.name}: {len(encoded)} bytes")
    (HERE / "cases.json").write_text(json.dumps(listed, indent=1) + "\n")


def write_arrays(*, overwrite):
    """Write one Zarr group of each format, X beside y, through zarr alone."""
    import numcodecs
    import zarr

    codec = {"bits": 4, "samples": 2, "seed": 1}
    serializer = {"name": "zipml.quantize", "configuration": codec}
    how = {
        3: {"serializer": serializer, "compressors": [{"name": "crc32c"}]},
        2: {
            "filters": [numcodecs.get_codec({"id": "zipml.quantize", **codec})],
            "compressors": numcodecs.get_codec({"id": "crc32c"}),
        },
    }
    x = values(150, 5, "f4")
    for zarr_format, codecs in how.items():
        place = HERE / f"plain-v{zarr_format}"
        if place.exists() and not overwrite:
            print(f"kept {place.name}")
            continue
        shutil.rmtree(place, ignore_errors=True)
        group = zarr.create_group(place, zarr_format=zarr_format)
        array = group.create_array(
            "X", shape=x.shape, chunks=(64, 5), dtype="f4", fill_value=0, **codecs
        )
        array[:] = x
        y = group.create_array("y", shape=(150,), chunks=(64,), dtype="f8", compressors=None)
        y[:] = x.sum(axis=1, dtype="f8")
        np.save(HERE / f"plain-v{zarr_format}.decoded.npy", array[:])
        print(f"wrote {place.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overwrite", action="store_true", help="rewrite what exists")
    chosen = parser.parse_args()
    write_chunks(overwrite=chosen.overwrite)
    write_arrays(overwrite=chosen.overwrite)
