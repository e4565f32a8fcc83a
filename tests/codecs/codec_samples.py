"""Arrays and parsed chunks for the codec tests; no tests of its own."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from zipml_codecs import EncodedChunk, Quantizer, encode_chunk

DTYPES = ("f2", "f4", "f8")
SCALES = ("column", "row", "row-l2")


def _normal(rng, rows, info):
    return rng.standard_normal(rows)


def _constant(rng, rows, info):
    return np.full(rows, rng.choice([0.0, -0.0, 1.0, -3.7, info.max, -info.max, info.tiny]))


def _denormal(rng, rows, info):
    return rng.integers(-50, 50, rows) * float(info.smallest_subnormal)


def _near_tiny(rng, rows, info):
    return rng.uniform(-1, 1, rows) * float(info.tiny) * 8


def _huge(rng, rows, info):
    return rng.uniform(-1, 1, rows) * float(info.max)


def _extremes(rng, rows, info):
    return rng.choice([info.max, -info.max, 0.0, info.smallest_subnormal], rows)


def _zeros_of_both_signs(rng, rows, info):
    return rng.choice([0.0, -0.0], rows)


def _large_offset(rng, rows, info):
    offset = min(1e6, float(info.max) / 2)
    return offset * (1 + rng.integers(0, 40, rows) * float(info.eps))


def _few_values(rng, rows, info):
    return rng.choice([-2.5, 0.0, 0.1, 7.0], rows)


def _wide(rng, rows, info):
    exponent = rng.uniform(np.log(float(info.tiny)), np.log(float(info.max)) * 0.99, rows)
    return np.exp(exponent) * rng.choice([-1, 1], rows)


COLUMN_KINDS = (
    _normal, _constant, _denormal, _near_tiny, _huge, _extremes, _zeros_of_both_signs,
    _large_offset, _few_values, _wide,
)  # fmt: skip


def matrix(rng, rows, columns, dtype, kinds=COLUMN_KINDS):
    """A finite matrix whose columns take turns in their kind."""
    info = np.finfo(dtype)
    out = np.empty((rows, columns), np.float64)
    for c in range(columns):
        out[:, c] = kinds[c % len(kinds)](rng, rows, info)
    with np.errstate(over="ignore", under="ignore"):
        return np.clip(out, -float(info.max), float(info.max)).astype(dtype)


def most_bits(samples):
    """Bits that this many samples may have."""
    return {1: 8, 2: 8, 4: 6, 8: 5}[samples]


@st.composite
def quantizers(draw, scales=SCALES, nan="error"):
    scale = draw(st.sampled_from(scales))
    samples = draw(st.sampled_from((1, 2, 4, 8) if scale == "column" else (1, 2)))
    return Quantizer(
        bits=draw(st.integers(1, most_bits(samples))),
        samples=samples,
        scale=scale,
        seed=draw(st.integers(0, 2**64 - 1)),
        nan=nan,
    )


@st.composite
def matrices(draw, dtypes=DTYPES, min_rows=0, max_rows=200, max_columns=40):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.lists(st.sampled_from(COLUMN_KINDS), min_size=1, max_size=6))
    rows = draw(st.integers(min_rows, max_rows))
    return matrix(
        rng, rows, draw(st.integers(1, max_columns)), draw(st.sampled_from(dtypes)), kinds
    )


@st.composite
def laid_out(draw, values):
    """The same values in another memory layout or byte order."""
    how = draw(st.sampled_from(["C", "F", "strided", "reversed", "columns reversed", "big-endian"]))
    if how == "C":
        return np.ascontiguousarray(values)
    if how == "F":
        return np.asfortranarray(values)
    if how == "strided":
        padded = np.full((2 * len(values), 3 * values.shape[1]), np.nan, values.dtype)
        padded[::2, ::3] = values
        return padded[::2, ::3]
    if how == "reversed":
        return np.ascontiguousarray(values[::-1])[::-1]
    if how == "columns reversed":
        return np.ascontiguousarray(values[:, ::-1])[:, ::-1]
    return values.astype(values.dtype.newbyteorder(">"))


def whole(values, quantizer, **options):
    """Encode every row and column as data (no padding is looked for) and parse."""
    options.setdefault("first_tile", 0)
    encoded = encode_chunk(values, quantizer, chunk_shape=values.shape, **options)
    return EncodedChunk.parse(encoded)


def working(values):
    """The matrix in which the codec computes: native byte order, halves as floats."""
    return values.astype(np.float64 if values.dtype.itemsize == 8 else np.float32)
