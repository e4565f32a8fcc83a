"""What is refused, what becomes of padding and missing values, and how large chunks are."""

from __future__ import annotations

import numpy as np
import pytest
from codec_samples import DTYPES, whole
from zipml_codecs import EncodedChunk, Quantizer, ValueRefusedError, encode_chunk

COLUMN, ROW = Quantizer(), Quantizer(scale="row")


def decode(data):
    return EncodedChunk.parse(data).decode()


@pytest.mark.parametrize("quantizer", [COLUMN, ROW, Quantizer(scale="row-l2")])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_value_that_is_not_finite_is_refused_with_its_place(quantizer, bad, dtype):
    values = np.arange(300, dtype=dtype).reshape(100, 3)
    values[70, 1] = values[80, 0] = bad
    with pytest.raises(ValueRefusedError, match="row 70, column 1") as error:
        encode_chunk(values, quantizer)
    assert (error.value.row, error.value.column) == (70, 1)
    assert str(bad) in str(error.value)
    assert ('nan="mean"' in str(error.value)) == bool(np.isnan(bad))


def test_the_place_of_a_refused_value_counts_the_axes_before_the_last_as_rows():
    values = np.zeros((2, 3, 4), "f4")
    values[1, 0, 2] = np.inf
    values[1, 2, 3] = 1
    with pytest.raises(ValueRefusedError, match="row 3, column 2"):
        encode_chunk(values, COLUMN)


@pytest.mark.parametrize("dtype", DTYPES)
def test_missing_values_become_the_mean_of_their_column_and_are_counted(dtype):
    values = np.array([[1, 10], [np.nan, 10], [4, 10], [1, np.nan], [5, 10]], dtype)
    chunk = whole(values, Quantizer(bits=8, nan="mean"))
    assert chunk.header.imputed == 2
    assert abs(chunk.decode()[1, 0] - 2.75) <= 4 / 255 + 1e-3
    assert chunk.decode()[3, 1] == 10


def test_a_mean_never_leaves_the_range_of_its_column():
    values = np.full((50, 1), 0.1)
    values[::3] = np.nan
    chunk = whole(values, Quantizer(nan="mean"))
    assert chunk.lower == chunk.upper == 0.1 and (chunk.decode() == 0.1).all()
    huge = np.array([[1.7e308], [1.7e308], [np.nan], [1.6e308]])
    assert whole(huge, Quantizer(nan="mean")).upper == 1.7e308


def test_imputing_still_refuses_infinities_and_columns_without_any_value():
    values = np.ones((4, 2), "f4")
    values[2] = np.inf, np.nan
    with pytest.raises(ValueRefusedError, match="row 2, column 0 is inf"):
        encode_chunk(values, Quantizer(nan="mean"))
    values[2] = 1
    values[:, 1] = np.nan
    with pytest.raises(ValueRefusedError, match="column 1 holds nothing but NaN"):
        whole(values, Quantizer(nan="mean"))


@pytest.mark.parametrize("dtype", ["i4", "u1", "?", "c8", "O", "U3", "M8[s]", np.longdouble])
def test_other_types_than_floats_are_refused_by_name(dtype):
    with pytest.raises(TypeError, match=r"zipml\.quantize stores float16, float32 and float64"):
        encode_chunk(np.zeros(3, dtype), COLUMN)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"bits": 0}, ValueError, "bits must lie in 1..8, got 0"),
        ({"bits": 9}, ValueError, "got 9"),
        ({"bits": 4.0}, TypeError, "bits must be an integer, got 4.0"),
        ({"bits": True}, TypeError, "got True"),
        ({"bits": "4"}, TypeError, "got '4'"),
        ({"samples": 3}, ValueError, "samples must be 1, 2, 4 or 8, got 3"),
        ({"scale": "global"}, ValueError, "scale must be one of column, row, row-l2; got 'global'"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"seed": 2**64}, ValueError, "seed must lie in"),
        ({"nan": "drop"}, ValueError, "nan must be one of error, mean; got 'drop'"),
    ],
)
def test_wrong_options_are_refused_with_their_value(options, error, text):
    with pytest.raises(error, match=text):
        Quantizer(**options)
    with pytest.raises(error, match=text):
        Quantizer.from_dict(options)


def test_an_unknown_option_is_named():
    with pytest.raises(ValueError, match="no option 'bit'; known: bits, layout, levels, nan"):
        Quantizer.from_dict({"bit": 4})


def test_integers_of_numpy_are_options_too_and_become_plain():
    assert type(Quantizer(bits=np.int64(3)).bits) is int


def test_fixed_bounds_are_the_outer_levels_of_every_chunk():
    values = np.random.default_rng(0).uniform(-1, 1, (100, 2)).astype("f4")
    low, high = np.array([-2, -1], "f4"), np.array([1, 3], "f4")
    chunk = whole(values, Quantizer(bits=1), lower=low, upper=high)
    assert np.array_equal(chunk.lower, low) and np.array_equal(chunk.upper, high)
    assert set(chunk.decode()[:, 0]) == {-2.0, 1.0}


def test_values_beyond_fixed_bounds_are_refused_with_place_and_bounds():
    values = np.zeros((100, 2), "f4")
    values[66, 1] = 1.5
    with pytest.raises(ValueRefusedError, match=r"row 66, column 1 is 1\.5.*-1\.0 to 1\.0"):
        whole(values, COLUMN, lower=np.full(2, -1, "f4"), upper=np.full(2, 1, "f4"))


@pytest.mark.parametrize(
    ("quantizer", "bounds", "text"),
    [
        (ROW, {"lower": -1, "upper": 1}, "column scales only"),
        (ROW, {"upper": 1}, "column scales only"),
        (COLUMN, {"lower": -1}, "pairs"),
        (COLUMN, {"upper": 1}, "pairs"),
        (COLUMN, {"lower": 1, "upper": -1}, "finite, the lower not above"),
        (COLUMN, {"lower": -1, "upper": np.inf}, "finite"),
    ],
)
def test_impossible_bounds_are_refused(quantizer, bounds, text):
    with pytest.raises(ValueError, match=text):
        whole(np.zeros((3, 2), "f4"), quantizer, **bounds)


def test_bounds_of_halves_must_be_halves():
    with pytest.raises(ValueError, match="float16 values"):
        whole(np.zeros((3, 1), "f2"), COLUMN, lower=np.float32(-0.1), upper=np.float32(0.1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fill", [0.0, np.nan, -7.5, np.inf])
@pytest.mark.parametrize("shape", [(5, 3), (8, 2), (8, 3), (1, 1)])
def test_padding_outside_of_the_bounds_is_left_out_and_decodes_exactly(dtype, fill, shape):
    chunk = np.full((8, 4), fill, dtype)
    values = np.random.default_rng(0).uniform(1, 2, shape).astype(dtype)
    chunk[: shape[0], : shape[1]] = values
    parsed = EncodedChunk.parse(encode_chunk(chunk, Quantizer(bits=8)))
    assert parsed.header.box == shape
    assert parsed.lower.min() >= 1
    decoded = parsed.decode()
    assert abs(decoded[: shape[0], : shape[1]] - values).max() < 0.01
    decoded[: shape[0], : shape[1]] = fill
    assert np.array_equal(decoded, np.full((8, 4), fill, dtype), equal_nan=True)


def test_padding_within_the_bounds_is_data():
    chunk = np.zeros((8, 2), "f4")
    chunk[:5] = np.random.default_rng(0).uniform(-1, 1, (5, 2))
    assert EncodedChunk.parse(encode_chunk(chunk, COLUMN)).header.box == (8, 2)


def test_padding_beyond_the_scale_of_a_row_is_left_out():
    chunk = np.full((8, 2), 5.0, "f4")
    chunk[:5] = 1
    assert EncodedChunk.parse(encode_chunk(chunk, ROW)).header.box == (5, 2)
    chunk[:5] = 6
    assert EncodedChunk.parse(encode_chunk(chunk, ROW)).header.box == (8, 2)


@pytest.mark.parametrize("fill", [0.0, 3.5, np.nan, np.inf])
def test_a_chunk_of_one_value_stores_no_codes(fill):
    data = encode_chunk(np.full((64, 5), fill, "f4"), COLUMN)
    assert EncodedChunk.parse(data).header.box == (0, 0) and len(data) < 256
    assert np.array_equal(decode(data), np.full((64, 5), fill, "f4"), equal_nan=True)


def test_the_declared_shape_and_tail_can_be_given():
    values = np.ones((3, 2), "f4")
    data = encode_chunk(values, COLUMN, chunk_shape=(5, 2), tail=-1.0)
    assert np.array_equal(decode(data), np.concatenate([values, np.full((2, 2), -1)]))


@pytest.mark.parametrize("quantizer", [COLUMN, ROW, Quantizer(scale="row-l2", samples=2)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_of_either_sign_decode_to_plus_zero(quantizer, dtype):
    values = np.array([[0.0, -0.0], [-0.0, -0.0], [-0.0, 0.0]], dtype)
    decoded = whole(values, quantizer).decode()
    assert not decoded.any() and not np.signbit(decoded).any()


def test_a_constant_column_and_a_row_of_zeros_are_exact():
    values = np.array([[3.7, 0, 1], [3.7, 0, 2], [3.7, 0, 4]], "f4")
    assert np.array_equal(whole(values, Quantizer(bits=1)).decode()[:, :2], values[:, :2])
    values = np.array([[0, 0, 0], [1, -1, 1]], "f4")
    assert np.array_equal(whole(values, Quantizer(bits=1, scale="row")).decode(), values)


def test_the_scale_of_a_row_is_its_largest_magnitude_or_its_norm():
    values = np.array([[3, -4], [0, 0], [1e30, 0]], "f4")
    assert whole(values, ROW).upper.tolist() == [4, 0, np.float32(1e30)]
    assert whole(values, Quantizer(scale="row-l2")).upper.tolist() == [5, 0, np.float32(1e30)]
    largest = np.finfo("f8").max
    assert whole(np.full((1, 2), largest), Quantizer(scale="row-l2")).upper[0] == largest


@pytest.mark.parametrize("dtype", DTYPES)
def test_memory_order_and_byte_order_are_restored(dtype):
    values = np.random.default_rng(0).uniform(-1, 1, (6, 5)).astype(dtype)
    assert decode(encode_chunk(np.asfortranarray(values), COLUMN)).flags.f_contiguous
    assert decode(encode_chunk(values, COLUMN)).flags.c_contiguous
    swapped = values.astype(values.dtype.newbyteorder(">"))
    decoded = decode(encode_chunk(swapped, COLUMN))
    assert decoded.dtype == swapped.dtype
    assert np.array_equal(decoded, decode(encode_chunk(values, COLUMN)))


@pytest.mark.parametrize("scale", ["column", "row"])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("bits", [1, 3, 4, 8])
@pytest.mark.parametrize("columns", [1, 8, 12, 90, 784, 5000])
def test_the_size_is_that_of_the_codes_and_tables(columns, bits, samples, scale):
    rows = 1024
    values = np.zeros((rows, columns), "f4")
    values[::2] = 1
    quantizer = Quantizer(bits=bits, samples=samples, scale=scale)
    size = len(encode_chunk(values, quantizer, first_tile=0, chunk_shape=values.shape))
    tables = 4 * (rows if scale == "row" else 2 * columns) + 8 * columns
    header = 88 + 2 * 16 + 64
    assert size <= rows * columns * quantizer.stored_bits / 8 * 1.02 + tables + header
    assert size - tables - header <= rows * columns * quantizer.stored_bits // 8


def test_a_ragged_last_tile_is_padded_to_eight_rows_only():
    def size(rows):
        values = np.zeros((rows, 40), "f4")
        values[0] = 1
        return whole(values, Quantizer(bits=1)).codes.size

    assert [size(n) for n in (1, 8, 9, 64, 65, 72, 73)] == [40, 40, 80, 320, 360, 360, 400]
