"""Rounding is unbiased, of the stored variance, independent, and repeatable under any chunking.

Seeds are fixed, so every test is deterministic. Bounds on means of n draws within an interval of
width w are Bernstein's: sqrt(2 v t / n) + w t / (3 n) with t = ln(2 / failure probability), for
a failure probability of 1e-9 over all the values of all cases; twice a 2^-16 rounding of the
probability is added.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from codec_samples import DTYPES, laid_out, matrices, quantizers, whole, working
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from zipml_codecs import EncodedChunk, Quantizer, encode_chunk, reference

CASES = 8 * 2 * 3 * 3 * 64 * 8
LOG_TERM = math.log(2 * CASES / 1e-9)
SEEDS, REPEATS = 16, 64
DRAWS = SEEDS * REPEATS


def bernstein(variance, width, draws):
    return np.sqrt(2 * variance * LOG_TERM / draws) + width * LOG_TERM / (3 * draws)


def neighbours(values, chunk):
    """The levels left and right of each value, in double precision."""
    quantizer, half = chunk.header.quantizer, values.dtype.itemsize == 2
    low = 0 - chunk.upper if chunk.lower is None else chunk.lower
    left, right = np.empty(values.shape), np.empty(values.shape)
    for i, bounds in enumerate(zip(low, chunk.upper, strict=True)):
        part = np.s_[i, :] if chunk.lower is None else np.s_[:, i]
        levels = reference.levels(*bounds, quantizer.bits, half=half).astype(np.float64)
        base = np.clip(np.searchsorted(levels, values[part], "right") - 1, 0, len(levels) - 2)
        left[part], right[part] = levels[base], levels[base + 1]
    return left, right


def sample_matrix(dtype):
    """64 x 8 values: symmetric, heavy-tailed, sparse, offset by many steps, constant, tiny..."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((64, 8))
    x[:, 1] = rng.standard_t(2, 64)
    x[:, 2] *= rng.random(64) < 0.2
    x[:, 3] += 40
    x[:, 4] = 2.5
    x[:, 5] *= 1e-4
    x[:, 6] = rng.integers(0, 4, 64)
    return x.astype(dtype)


ALL_SCALES = [
    (bits, samples, scale)
    for bits in range(1, 9)
    for samples in (1, 2)
    for scale in ("column", "row", "row-l2")
]
MANY_SAMPLES = [(bits, 4, "column") for bits in (1, 2, 6)] + [
    (bits, 8, "column") for bits in (1, 5)
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("bits", "samples", "scale"), ALL_SCALES + MANY_SAMPLES)
def test_decoding_is_unbiased_and_of_the_stored_variance(bits, samples, dtype, scale):
    base = sample_matrix(dtype)
    values = np.tile(base, (REPEATS, 1))
    exact = base.astype(np.float64)
    total, squares = np.zeros(base.shape), np.zeros(base.shape)
    for seed in range(SEEDS):
        quantizer = Quantizer(bits=bits, samples=samples, scale=scale, seed=1000 * bits + seed)
        chunk = whole(values, quantizer)
        decoded = chunk.decode().astype(np.float64).reshape(REPEATS, *base.shape)
        total += decoded.sum(axis=0)
        squares += np.square(decoded - exact).sum(axis=0)
    one = whole(base, quantizer)
    left, right = neighbours(base, one)
    width = right - left
    variance = (right - exact) * (exact - left) / samples
    # The mean of two samples is itself rounded to the array's precision.
    rounding = np.maximum(abs(left), abs(right)) * np.finfo(dtype).eps * (samples - 1)
    error = total / DRAWS - exact
    bound = bernstein(variance, width, DRAWS) + width * 2.0**-16 + rounding
    assert (abs(error) <= bound).all()
    # Pooled over values, a bias far too small to show in any one of them still shows.
    pooled = error.sum() / np.sqrt((variance + 1e-300).sum() / DRAWS)
    slack = (width * 2.0**-16 + rounding).sum() / np.sqrt((variance + 1e-300).sum() / DRAWS)
    assert abs(pooled) <= 6 + slack
    # The stored variance is that of one sample, averaged over the rows of a column; it takes
    # every interval to be one step wide, which rounded levels are not quite.
    steps = (1 << bits) - 1
    bounds = np.asarray(one.upper, np.float64) - (
        -np.asarray(one.upper, np.float64) if one.lower is None else one.lower
    )
    step = bounds[:, None] / steps if one.lower is None else bounds / steps
    nominal = np.abs(width / np.where(step > 0, step, 1) - 1).max(initial=0, where=step > 0)
    stored = one.variance
    mean = variance.mean(axis=0) * samples
    assert (
        abs(stored - mean) <= (2.1 * nominal + 2.0**-12) * mean + 2.0**-17 * width.max(0) ** 2
    ).all()
    observed = (squares / DRAWS).mean(axis=0)
    wide = np.square(width.max(axis=0))
    spread = bernstein(variance.mean(axis=0) * wide, wide, DRAWS * 64) + 2.0**-16 * wide
    rounded = (rounding * (rounding + 2 * width)).max(axis=0)
    assert (abs(observed - mean / samples) <= spread + rounded).all()


@settings(max_examples=150, deadline=None)
@given(values=matrices(min_rows=1, max_rows=40, max_columns=12), quantizer=quantizers())
def test_the_probability_of_rounding_up_is_the_share_of_the_interval(values, quantizer):
    chunk = whole(values, quantizer)
    half = values.dtype.itemsize == 2
    position = reference.positions(working(values), quantizer, chunk.lower, chunk.upper, half=half)
    wide = np.longdouble
    low = 0 - chunk.upper if chunk.lower is None else chunk.lower
    for i, bounds in enumerate(zip(low, chunk.upper, strict=True)):
        part = np.s_[i, :] if chunk.lower is None else np.s_[:, i]
        levels = reference.levels(*bounds, quantizer.bits, half=half).astype(wide)
        x, at = values[part].astype(wide), position[part]
        base = np.minimum(at >> 16, quantizer.intervals - 1)
        p = (at - (base << 16)) / wide(65536)
        with np.errstate(invalid="ignore"):
            share = (x - levels[base]) / (levels[base + 1] - levels[base])
        share = np.where(np.isnan(share), p, share)  # equal levels: any will do
        # A value closer than 2^-17 to a level may be taken for it, from either side.
        tolerance = 2.0**-17 * 1.001 + 4 * np.finfo(working(values).dtype).eps
        assert (abs(share - p) <= tolerance).all()


@pytest.mark.parametrize("scale", ["column", "row"])
@pytest.mark.parametrize("bits", [1, 3, 4, 8])
def test_the_two_samples_are_independent(bits, scale):
    base = sample_matrix("f4")
    values = np.tile(base, (REPEATS, 1))
    counts = np.zeros((3, *base.shape))
    one = whole(base, Quantizer(bits=bits, samples=2, scale=scale))
    position = reference.positions(base, one.header.quantizer, one.lower, one.upper)
    for seed in range(SEEDS):
        chunk = whole(values, Quantizer(bits=bits, samples=2, scale=scale, seed=seed))
        codes = reference.unpack_codes(chunk.codes, len(values), 8, bits + 1)
        up = codes - 2 * np.tile(position >> 16, (REPEATS, 1))
        for k in range(3):
            counts[k] += (up == k).reshape(REPEATS, *base.shape).sum(axis=0)
    assert counts.sum() == DRAWS * base.size
    p = (position & 0xFFFF) / 65536
    for k, expected in enumerate([(1 - p) ** 2, 2 * p * (1 - p), p**2]):
        bound = bernstein(expected * (1 - expected), 1.0, DRAWS) + 2.0**-15
        assert (abs(counts[k] / DRAWS - expected) <= bound).all()


def test_rounding_of_neighbours_is_uncorrelated():
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (64 * 200, 24)).astype("f4")
    chunk = whole(values, Quantizer(bits=2, seed=9))
    left, right = neighbours(values, chunk)
    exact = values.astype(np.float64)
    deviation = np.sqrt((right - exact) * (exact - left))
    error = (chunk.decode() - exact) / np.where(deviation > 0, deviation, 1)
    inside = deviation > 0.05 * (right - left)  # bounded fourth moments
    error = np.where(inside, error, 0)
    shifts = [(1, 0), (2, 0), (15, 0), (16, 0), (32, 0), (64, 0), (0, 1), (0, 2), (0, 16), (64, 1)]
    for rows, columns in shifts:
        product = error[rows:, columns:] * error[: len(error) - rows, : 24 - columns]
        assert abs(product.mean()) < 6 * product.std() / math.sqrt(product.size)


@settings(max_examples=150, deadline=None)
@given(values=matrices(min_rows=2, max_rows=2, max_columns=12), quantizer=quantizers(("column",)))
def test_values_on_a_level_never_move_whatever_the_dtype(values, quantizer):
    half = values.dtype.itemsize == 2
    bounds = np.sort(working(values), axis=0) + 0  # no -0.0
    columns = [reference.levels(*pair, quantizer.bits, half=half) for pair in bounds.T]
    levels = np.stack(columns, axis=1)
    shuffled = np.random.default_rng(quantizer.seed).permuted(levels, axis=0).astype(values.dtype)
    assert np.array_equal(shuffled, np.random.default_rng(quantizer.seed).permuted(levels, axis=0))
    chunk = whole(shuffled, quantizer)
    assert np.array_equal(chunk.decode(), shuffled)
    assert not chunk.variance_table.any()


@settings(max_examples=80, deadline=None)
@given(values=matrices(min_rows=1, max_rows=20, max_columns=1), quantizer=quantizers(("row",)))
def test_values_on_a_level_of_their_row_never_move(values, quantizer):
    half = values.dtype.itemsize == 2
    scale = abs(working(values))[:, 0]
    rows = [reference.levels(0 - s, s, quantizer.bits, half=half) for s in scale]
    levels = np.stack(rows).astype(values.dtype)
    chunk = whole(levels, quantizer)
    assert np.array_equal(chunk.decode(), levels)
    assert not chunk.variance_table.any()


@settings(max_examples=150, deadline=None)
@given(values=matrices(min_rows=1), quantizer=quantizers(("column", "row")), data=st.data())
def test_encoding_a_decoded_array_again_changes_nothing_but_the_variances(values, quantizer, data):
    assume(quantizer.samples == 1)
    values = data.draw(laid_out(values))
    first = encode_chunk(values, quantizer, first_tile=7, chunk_shape=values.shape)
    parsed = EncodedChunk.parse(first)
    decoded = parsed.decode()
    again = encode_chunk(decoded, quantizer, first_tile=7, chunk_shape=values.shape)
    header = parsed.header
    start, stop = header.variance_offset, header.variance_offset + 8 * header.columns
    expected = bytearray(first)
    expected[start:stop] = bytes(stop - start)  # nothing rounds any more
    assert again == expected
    assert EncodedChunk.parse(again).decode().tobytes() == decoded.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    values=matrices(min_rows=1, max_columns=12),
    quantizer=quantizers(("column", "row")),
    fill=st.sampled_from([0.0, 5.0, np.nan, -1e4, np.inf]),
    pad=st.tuples(st.integers(0, 70), st.integers(0, 3)),
)
def test_encoding_a_decoded_edge_chunk_again_decodes_alike(values, quantizer, fill, pad):
    """Written through plain Zarr: padding is found, a hash stands in for the position."""
    assume(quantizer.samples == 1)
    padded = np.full(np.add(values.shape, pad), fill, values.dtype)
    padded[: len(values), : values.shape[1]] = values
    decoded = EncodedChunk.parse(encode_chunk(padded, quantizer)).decode()
    again = EncodedChunk.parse(encode_chunk(decoded, quantizer)).decode()
    assert again.tobytes() == decoded.tobytes()


@settings(max_examples=60, deadline=None)
@given(values=matrices(min_rows=1), quantizer=quantizers(), data=st.data())
def test_the_same_rows_give_the_same_bytes_under_any_chunking(values, quantizer, data):
    bounds = {}
    if not quantizer.by_row:
        numbers = working(values) + 0
        bounds = {"lower": numbers.min(axis=0), "upper": numbers.max(axis=0)}
    at_once = whole(values, quantizer, first_tile=3, **bounds)
    tiles = -(-len(values) // 64)
    cuts = sorted(data.draw(st.sets(st.integers(1, tiles))) | {tiles})
    codes, decoded, start = b"", [], 0
    for cut in cuts:
        part = values[64 * start : 64 * cut]
        chunk = whole(part, quantizer, first_tile=3 + start, **bounds)
        codes += chunk.codes.tobytes()
        decoded.append(chunk.decode())
        start = cut
    assert codes == at_once.codes.tobytes()
    assert np.concatenate(decoded).tobytes() == at_once.decode().tobytes()


def test_runs_and_threads_give_the_same_bytes():
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((640, 9)).astype("f4") for _ in range(24)]
    quantizer = Quantizer(bits=3, samples=2, seed=5)

    def encode(i):
        return bytes(encode_chunk(parts[i % 24], quantizer, first_tile=10 * (i % 24)))

    serial = [encode(i) for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(encode, range(96))) == serial * 4

        def decode(i):
            return EncodedChunk.parse(serial[i % 24]).decode().tobytes()

        assert list(pool.map(decode, range(96))) == [decode(i) for i in range(24)] * 4


def test_seed_and_position_change_the_draws_and_without_a_position_the_content_does():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((128, 4)).astype("f4")

    def codes(array=values, seed=0, **options):
        chunk = EncodedChunk.parse(encode_chunk(array, Quantizer(seed=seed), **options))
        return chunk.codes.tobytes()

    assert codes(first_tile=0) != codes(first_tile=1)
    assert codes(first_tile=0) != codes(first_tile=0, seed=1)
    assert codes() == codes()
    changed = values.copy()
    changed[5, 2] += 1e-6
    assert codes(changed) != codes()
    assert codes(np.asfortranarray(values)) == codes()
