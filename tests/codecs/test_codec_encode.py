"""Encoding on every instruction set: the reference's bytes, whatever the memory looks like."""

from __future__ import annotations

import numpy as np
import pytest
from codec_samples import COLUMN_KINDS, DTYPES, SCALES, matrix, whole, working
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zipml_codecs import Quantizer, ValueRefusedError, _native, encode_chunk, reference

pytestmark = pytest.mark.filterwarnings("error")

# The instruction set stays the same for all examples of a test.
every_level = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def laid_out_as(values, how):
    rows, columns = values.shape
    if how == "F":
        return np.asfortranarray(values)
    if how == "rows apart":
        out = np.zeros((rows, columns + 5), values.dtype)[:, 2 : 2 + columns]
    elif how == "columns apart":
        out = np.zeros((rows, 3 * columns), values.dtype)[:, ::3]
    elif how == "backwards":
        out = np.zeros((rows, columns), values.dtype)[::-1, ::-1]
    else:
        return np.ascontiguousarray(values)
    out[...] = values
    return out


LAYOUTS = ("C", "F", "rows apart", "columns apart", "backwards")


def assert_encoded_as_reference(values, quantizer, first_tile=3):
    chunk = whole(values, quantizer, first_tile=first_tile)
    half = values.dtype.itemsize == 2
    place = (working(values), quantizer, chunk.lower, chunk.upper)
    codes = reference.encode_codes(*place, first_tile, half=half)
    assert chunk.codes.tobytes() == codes.tobytes()
    variance = reference.variance_sums(*place, half=half)
    assert chunk.variance_table.tobytes() == variance.tobytes()


@every_level
@given(
    rows=st.integers(0, 200),
    columns=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    kinds=st.lists(st.sampled_from(COLUMN_KINDS), min_size=1, max_size=5),
    bits=st.integers(1, 8),
    samples=st.integers(1, 2),
    scale=st.sampled_from(SCALES),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_shape_and_layout_gives_the_bytes_of_the_reference(
    simd, rows, columns, dtype, kinds, bits, samples, scale, layout, seed
):
    values = matrix(np.random.default_rng(seed), rows, columns, dtype, kinds)
    quantizer = Quantizer(bits=bits, samples=samples, scale=scale, seed=seed)
    assert_encoded_as_reference(laid_out_as(values, layout), quantizer)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("bits", range(1, 9))
def test_whole_and_ragged_tiles_of_all_widths(simd, bits, samples, dtype):
    rng = np.random.default_rng(bits)
    plain, extreme = matrix(rng, 150, 37, dtype, COLUMN_KINDS[:1]), matrix(rng, 90, 21, dtype)
    for values in (plain, extreme):
        for scale in SCALES:
            quantizer = Quantizer(bits=bits, samples=samples, scale=scale, seed=7)
            assert_encoded_as_reference(values, quantizer)


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_of_any_width_between_few_and_many_roundings_of_the_bounds(simd, dtype):
    # Whether a column's levels are taken for well apart is decided by its step: walk across.
    rng = np.random.default_rng(0)
    eps = float(np.finfo(dtype).eps)
    widths = eps * 2.0 ** np.arange(0, 16)
    values = (1 + rng.random((200, len(widths))) * widths).astype(dtype)
    values[:, 1::2] *= -1
    for bits in range(1, 9):
        assert_encoded_as_reference(values, Quantizer(bits=bits, samples=2, seed=bits))
    tiny = (rng.integers(0, 300, (200, 5)) * float(np.finfo(dtype).smallest_subnormal)).astype(
        dtype
    )
    for bits in range(1, 9):
        assert_encoded_as_reference(tiny, Quantizer(bits=bits, samples=2, seed=bits))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_values_halfway_and_beside_between_levels(simd, dtype):
    # Ties of the nearest level and of the probability, and their neighbours.
    levels = np.arange(0, 255.5, 0.5)
    ties = np.concatenate([levels, levels + 2**-17, levels + 2**-16 + 2**-17])
    values = np.clip(ties, 0, 255).astype(dtype)
    values = np.concatenate([values, np.nextafter(values, dtype_of(dtype, -np.inf)).clip(0)])
    values = np.stack([values, values[::-1]], axis=1)
    for bits in (1, 2, 4, 8):
        assert_encoded_as_reference(values, Quantizer(bits=bits, samples=2))


def dtype_of(dtype, value):
    return np.dtype(dtype).type(value)


@every_level
@given(
    rows=st.integers(0, 140),
    columns=st.integers(1, 40),
    bits=st.integers(1, 8),
    samples=st.integers(1, 2),
    scale=st.sampled_from(SCALES),
    layout=st.sampled_from(LAYOUTS),
    fixed=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_bytes_are_stored_as_the_floats_of_their_values(
    simd, rows, columns, bits, samples, scale, layout, fixed, seed
):
    rng = np.random.default_rng(seed)
    values = laid_out_as(rng.integers(0, 256, (rows, columns), np.uint8), layout)
    options = {"first_tile": seed} if seed % 2 else {}
    if fixed and scale == "column":
        options |= {"lower": np.float32(0), "upper": np.float32(255)}
    quantizer = Quantizer(bits=bits, samples=samples, scale=scale, seed=seed)
    expected = encode_chunk(values.astype(np.float32), quantizer, **options)
    assert encode_chunk(values, quantizer, dtype=np.float32, **options) == expected


def test_bytes_with_padding_are_stored_as_the_floats_of_their_values():
    values = np.zeros((90, 6), np.uint8)
    values[:70, :5] = np.random.default_rng(0).integers(5, 250, (70, 5))
    for scale in SCALES:
        quantizer = Quantizer(scale=scale)
        expected = encode_chunk(values.astype("f4"), quantizer)
        assert encode_chunk(values, quantizer, dtype="f4") == expected
    assert encode_chunk(values, Quantizer(), dtype=">f4") == encode_chunk(
        values.astype(">f4"), Quantizer()
    )


def test_only_bytes_may_be_stored_as_another_type():
    for array, dtype in [
        (np.zeros(3, "u1"), "f8"), (np.zeros(3, "u1"), "u1"), (np.zeros(3, "u1"), "f2"),
        (np.zeros(3, "i1"), "f4"), (np.zeros(3, "?"), "f4"), (np.zeros(3, "f8"), "f4"),
    ]:  # fmt: skip
        with pytest.raises(TypeError, match=r"zipml\.quantize stores"):
            encode_chunk(array, Quantizer(), dtype=dtype)
    values = np.arange(6, dtype="f4")
    assert encode_chunk(values, Quantizer(), dtype="f4") == encode_chunk(values, Quantizer())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2.5, -0.5])
@pytest.mark.parametrize("place", [(0, 0), (63, 15), (64, 16), (129, 32)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_fixed_bounds_refuse_any_value_beyond_them(simd, dtype, place, bad):
    values = np.ones((130, 33), dtype)
    values[place] = bad
    text = f"row {place[0]}, column {place[1]} is {bad}"
    for layout in LAYOUTS:
        with pytest.raises(ValueRefusedError, match=text):
            whole(
                laid_out_as(values, layout), Quantizer(), lower=np.zeros(33), upper=np.full(33, 2)
            )


def test_missing_values_are_imputed_between_fixed_bounds_too(simd):
    values = np.arange(12, dtype="f4").reshape(6, 2)
    values[2, 1] = np.nan
    bounds = {"lower": np.float32(0), "upper": np.float32(20)}
    chunk = whole(values, Quantizer(bits=8, nan="mean"), **bounds)
    assert chunk.header.imputed == 1
    values[2, 1] = np.nanmean(values[:, 1])
    filled = whole(values, Quantizer(bits=8), **bounds)
    assert chunk.codes.tobytes() == filled.codes.tobytes()


@every_level
@given(
    rows=st.integers(1, 100),
    columns=st.integers(1, 70),
    dtype=st.sampled_from([*DTYPES, "u1"]),
    layout=st.sampled_from(LAYOUTS),
    bad=st.sampled_from([None, np.nan, np.inf, -np.inf]),
    seed=st.integers(0, 2**32),
)
def test_bounds_and_magnitudes_are_those_of_numpy(simd, rows, columns, dtype, layout, bad, seed):
    rng = np.random.default_rng(seed)
    if dtype == "u1":
        values, bad = rng.integers(0, 256, (rows, columns), np.uint8), None
    else:
        values = matrix(rng, rows, columns, dtype)
        if bad is not None:
            values[rng.integers(rows), rng.integers(columns)] = bad
    values = laid_out_as(values, layout)
    kept = np.float64 if dtype == "f8" else np.float32
    low, high, largest = np.empty(columns, kept), np.empty(columns, kept), np.empty(rows, kept)
    assert _native.column_bounds(values, low, high) == (bad is None)
    assert _native.row_magnitudes(values, largest) == (bad is None)
    if bad is None:
        assert np.array_equal(low, values.min(axis=0))
        assert np.array_equal(high, values.max(axis=0))
        assert np.array_equal(largest, np.abs(values).max(axis=1))


def test_the_core_refuses_bounds_of_the_wrong_size_or_type():
    values, right = np.zeros((5, 3), "f4"), np.zeros(3, "f4")
    for low, high in [(right, right[:2]), (np.zeros(4, "f4"), right)]:
        with pytest.raises(ValueError):
            _native.column_bounds(values, low, high)
    with pytest.raises(ValueError):
        _native.row_magnitudes(values, right)
    with pytest.raises(TypeError):
        _native.column_bounds(values, right.astype("f8"), right.astype("f8"))
