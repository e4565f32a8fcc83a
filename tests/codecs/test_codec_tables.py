"""Level tables: the core does what the reference does, unbiased, of the stored variance."""

from __future__ import annotations

import numpy as np
import pytest
from codec_samples import COLUMN_KINDS, DTYPES, laid_out, matrices, matrix, most_bits, working
from hypothesis import given, settings
from hypothesis import strategies as st
from test_codec_rounding import bernstein, sample_matrix
from zipml_codecs import EncodedChunk, LevelHistograms, Quantizer, encode_chunk, reference_tables
from zipml_codecs.numcodecs_codec import Quantize
from zipml_codecs.tables import code_entries, code_values, fit_levels, grid_steps

pytestmark = pytest.mark.filterwarnings("error")
TYPES = {8: np.uint8, 16: np.uint16}


def random_places(rng, columns, bits, samples, table_bits):
    """Tables of every kind: full, and with the last level repeated."""
    top, levels = grid_steps(table_bits, samples), 1 << bits
    places = np.full((columns, levels), top, TYPES[table_bits])
    places[:, 0] = 0
    for c in range(columns):
        most = min(levels, top + 1) - 2
        count = most if c % 3 else int(rng.integers(0, most + 1))
        places[c, 1 : 1 + count] = np.sort(rng.choice(top - 1, count, replace=False) + 1)
    return places


def with_tables(values, quantizer, places, **options):
    numbers = working(values) + 0
    shape = (values.shape[1],)
    low = numbers.min(axis=0) if len(values) else np.zeros(shape, numbers.dtype)
    high = numbers.max(axis=0) if len(values) else low
    options = {"first_tile": 0, "lower": low, "upper": high, **options}
    encoded = encode_chunk(values, quantizer, chunk_shape=values.shape, levels=places, **options)
    return EncodedChunk.parse(encoded)


def exact(table):
    return [int(low) + (int(high) << 64) for low, high in table.tolist()]


def assert_as_reference(values, quantizer, places, first_tile):
    chunk = with_tables(values, quantizer, places, first_tile=first_tile)
    half, numbers = values.dtype.itemsize == 2, working(values)
    bounds = (chunk.lower, chunk.upper, places)
    where = reference_tables.positions(numbers, quantizer, *bounds, half=half)
    codes = reference_tables.encode_codes(where, quantizer, first_tile)
    assert chunk.codes.tobytes() == codes.tobytes()
    assert exact(chunk.variance_table) == reference_tables.variance_sums(where, quantizer, places)
    assert np.array_equal(chunk.places, places) and chunk.places.dtype == places.dtype
    decoded = reference_tables.decode_codes(codes, len(values), quantizer, *bounds, half=half)
    assert chunk.decode().tobytes() == decoded.astype(values.dtype).tobytes()
    some = np.arange(len(values))[::-3]
    native = decoded.astype(f"f{values.dtype.itemsize}")
    assert chunk.take(some).tobytes() == native[some].tobytes()


@settings(max_examples=40)
@given(
    values=matrices(max_rows=150, max_columns=24),
    samples=st.sampled_from([1, 2, 4, 8]),
    table_bits=st.sampled_from([8, 16]),
    seed=st.integers(0, 2**64 - 1),
    first_tile=st.sampled_from([0, 1, 2**32 - 1, 2**63]),
    data=st.data(),
)
def test_native_equals_reference(values, samples, table_bits, seed, first_tile, data):
    bits = data.draw(st.integers(1, most_bits(samples)))
    places = random_places(np.random.default_rng(seed), values.shape[1], bits, samples, table_bits)
    quantizer = Quantizer(bits=bits, samples=samples, seed=seed, levels="optimal")
    assert_as_reference(data.draw(laid_out(values)), quantizer, places, first_tile)


@pytest.mark.parametrize("samples", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_instruction_set_equals_the_reference(simd, dtype, samples):
    rng = np.random.default_rng(1)
    for bits, columns in ((1, 3), (2, 17), (4, 40), (5, 7), (8, 16)):
        if bits > most_bits(samples):
            continue
        values = matrix(rng, 130, columns, dtype, COLUMN_KINDS)
        places = random_places(rng, columns, bits, samples, 16 if bits % 2 else 8)
        quantizer = Quantizer(bits=bits, samples=samples, seed=bits, levels="optimal")
        assert_as_reference(values, quantizer, places, first_tile=bits)


def test_bytes_are_stored_like_the_floats_that_they_are():
    values = np.random.default_rng(0).integers(0, 256, (200, 5)).astype(np.uint8)
    quantizer = Quantizer(levels="optimal")
    as_floats = encode_chunk(values.astype("f4"), quantizer, first_tile=0)
    assert encode_chunk(values, quantizer, first_tile=0, dtype="f4") == as_floats


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("bits", "samples"), [(2, 1), (2, 2), (2, 4), (2, 8), (4, 1), (4, 2), (4, 4), (6, 1), (6, 2)]
)
def test_decoding_is_unbiased_and_of_the_stored_variance(bits, samples, dtype):
    base = sample_matrix(dtype)
    repeats, seeds = 64, 16
    values, draws = np.tile(base, (repeats, 1)), repeats * seeds
    truth = base.astype(np.float64)
    total, squares = np.zeros(base.shape), np.zeros(base.shape)
    for seed in range(seeds):
        quantizer = Quantizer(bits=bits, samples=samples, seed=seed, levels="optimal")
        chunk = EncodedChunk.parse(
            encode_chunk(values, quantizer, first_tile=0, chunk_shape=values.shape)
        )
        decoded = chunk.decode().astype(np.float64).reshape(repeats, *base.shape)
        total += decoded.sum(axis=0)
        squares += np.square(decoded - truth).sum(axis=0)
    left, right = truth.copy(), truth.copy()
    for c in range(base.shape[1]):
        level = reference_tables.levels(
            chunk.lower[c], chunk.upper[c], chunk.places[c], samples, half=dtype == "f2"
        ).astype(np.float64)
        at = np.clip(np.searchsorted(level, truth[:, c], "right") - 1, 0, len(level) - 2)
        left[:, c], right[:, c] = level[at], level[at + 1]
    width = right - left
    variance = (right - truth) * (truth - left) / samples
    rounding = np.maximum(abs(left), abs(right)) * np.finfo(dtype).eps * (samples - 1)
    error = total / draws - truth
    assert (abs(error) <= bernstein(variance, width, draws) + width * 2.0**-16 + rounding).all()
    # Levels are rounded to the array's type and a gap is not quite whole steps of the grid wide.
    step = (chunk.upper - chunk.lower).astype(np.float64) / grid_steps(
        chunk.header.table_bits, samples
    )
    off = abs(chunk.upper).astype(np.float64) * np.finfo(dtype).eps + 0 * step
    slack = 2 * off * width.max(axis=0) + 2.0**-17 * width.max(axis=0) ** 2
    mean = variance.mean(axis=0) * samples
    assert (abs(chunk.variance - mean) <= slack + 2.0**-12 * mean).all()


@settings(max_examples=60)
@given(
    values=matrices(min_rows=2, max_rows=2, max_columns=12),
    bits=st.integers(1, 8),
    table_bits=st.sampled_from([8, 16]),
    seed=st.integers(0, 2**32),
)
def test_values_on_a_level_never_move(values, bits, table_bits, seed):
    rng = np.random.default_rng(seed)
    half = values.dtype.itemsize == 2
    places = random_places(rng, values.shape[1], bits, 1, table_bits)
    low, high = np.sort(working(values), axis=0) + 0
    levels = code_values(low, high, places, 1, half=half).T.astype(values.dtype)
    shuffled = rng.permuted(levels, axis=0)
    quantizer = Quantizer(bits=bits, levels="optimal")
    chunk = with_tables(shuffled, quantizer, places, lower=low, upper=high)
    assert np.array_equal(chunk.decode(), shuffled)
    assert not chunk.variance_table.any()


@settings(max_examples=30)
@given(values=matrices(min_rows=70, max_columns=12), samples=st.integers(1, 2))
def test_the_same_rows_give_the_same_bytes_and_sums_under_any_chunking(values, samples):
    places = random_places(np.random.default_rng(3), values.shape[1], 3, samples, 16)
    quantizer = Quantizer(bits=3, samples=samples, levels="optimal")
    whole = with_tables(values, quantizer, places)
    bounds = {"lower": whole.lower, "upper": whole.upper}
    first = with_tables(values[:64], quantizer, places, **bounds)
    rest = with_tables(values[64:], quantizer, places, first_tile=1, **bounds)
    assert first.codes.tobytes() + rest.codes.tobytes() == whole.codes.tobytes()
    sums = zip(exact(first.variance_table), exact(rest.variance_table), strict=True)
    assert [a + b for a, b in sums] == exact(whole.variance_table)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_own_levels_of_a_chunk_beat_equally_spaced_ones(bits):
    values = np.random.default_rng(5).standard_normal((5000, 3)).astype("f4")
    sizes = [
        EncodedChunk.parse(encode_chunk(values, Quantizer(bits=bits, levels=levels))).variance
        for levels in ("uniform", "optimal")
    ]
    assert (sizes[1] < 0.8 * sizes[0]).all()


@pytest.mark.parametrize("samples", [1, 2])
def test_no_other_levels_on_the_grid_are_better(samples):
    """Against every choice of two inner levels on a grid of 8 bits."""
    values = np.random.default_rng(2).gamma(1.0, size=(400, 1))
    histograms = LevelHistograms(1, 2**16)
    histograms.add(values)
    quantizer = Quantizer(bits=2, samples=samples)
    fitted = fit_levels([histograms], quantizer)
    assert fitted.places.dtype == np.uint8
    top = grid_steps(8, samples)
    t = (values[:, 0] - values.min()) / np.ptp(values) * top
    grid = np.arange(top + 1)
    # Cost of all values in an interval, for every pair of ends.
    cost = np.array([
        [np.sum(((b - t) * (t - a))[(t >= a) & (t <= b)]) if b > a else np.inf for b in grid]
        for a in grid
    ])  # fmt: skip
    best = np.min(cost[0][:, None] + cost + cost[:, top][None, :])
    assert fitted.variance[0] * top**2 * len(t) == pytest.approx(best, rel=1e-6)


def test_heavy_tails_get_tables_of_16_bits_and_others_of_8():
    rng = np.random.default_rng(0)
    chosen = []
    for values in (rng.standard_normal((20_000, 2)), rng.standard_cauchy((20_000, 2))):
        histograms = LevelHistograms(2, 2**16)
        histograms.add(values)
        chosen.append(fit_levels([histograms], Quantizer(bits=4)).places.dtype.itemsize)
    assert chosen == [1, 2]


def test_missing_values_count_where_they_are_said_to_be():
    histograms = LevelHistograms(1, 1024)
    histograms.add(np.linspace(0, 255, 2000)[:, None])
    without = fit_levels([histograms], Quantizer(bits=2)).places[0]
    places = fit_levels([histograms], Quantizer(bits=2), at=[50.0], more=[1e6]).places[0]
    assert 50 in places and 50 not in without


def test_entries_of_stored_codes_are_the_sums_of_neighbouring_places():
    places = np.array([[0, 3, 9, 127]], np.uint8)
    assert code_entries(places, 1) is places
    assert code_entries(places, 2).tolist() == [[0, 3, 6, 12, 18, 136, 254, 254]]
    four = code_entries(np.array([[0, 3, 9, 63]], np.uint8), 4)
    assert four[0, :9].tolist() == [0, 3, 6, 9, 12, 18, 24, 30, 36]
    assert four[0, 9:].tolist() == [90, 144, 198, 252, 252, 252, 252]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"levels": np.zeros((2, 4), np.uint8)}, "column 0 must ascend from 0 to 255"),
        ({"levels": np.zeros((2, 3), np.uint8)}, r"shape \(2, 4\), got \(2, 3\)"),
        ({"levels": np.zeros((2, 4), np.int64)}, "uint8 or uint16, got int64"),
        ({"levels": None}, "give both or none"),
        ({"lower": None, "upper": None}, "give both or none"),
        ({"quantizer": Quantizer(bits=2)}, "the quantiser has 'uniform'"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(change, text):
    places = np.array([[0, 1, 2, 255]] * 2, np.uint8)
    options = {
        "quantizer": Quantizer(bits=2, levels="optimal"),
        "levels": places,
        "lower": np.zeros(2, "f4"),
        "upper": np.ones(2, "f4"),
        **change,
    }
    with pytest.raises(ValueError, match=text):
        encode_chunk(np.linspace(0, 1, 6, dtype="f4").reshape(3, 2), **options)


def test_row_scales_have_no_optimal_levels():
    with pytest.raises(ValueError, match="optimal levels go with scale 'column' only"):
        Quantizer(scale="row", levels="optimal")
    with pytest.raises(ValueError, match="levels must be one of uniform, optimal"):
        Quantizer(levels="best")


def test_zarr_arrays_of_both_formats_hold_optimal_levels():
    import zarr

    values = np.random.default_rng(0).gamma(0.5, size=(300, 4)).astype("f4")
    config = {"bits": 3, "levels": "optimal"}
    arrays = [
        zarr.create_array(
            {},
            shape=values.shape,
            chunks=(128, 4),
            dtype="f4",
            serializer={"name": "zipml.quantize", "configuration": config},
            compressors=[{"name": "crc32c"}],
        ),
        zarr.create_array(
            {},
            shape=values.shape,
            chunks=(128, 4),
            dtype="f4",
            zarr_format=2,
            filters=[Quantize(**config)],
            compressors=None,
        ),
    ]
    for array in arrays:
        array[:] = values
    read = arrays[0][:]
    assert read.tobytes() == arrays[1][:].tobytes()
    for start in range(0, 300, 128):
        part = read[start : start + 128]
        assert all(len(np.unique(column)) <= 8 for column in part.T)
    assert Quantize(**config).get_config()["levels"] == "optimal"
    assert "levels" not in Quantize().get_config()
