"""The native core does what the NumPy reference does, bit for bit, whatever it is given."""

from __future__ import annotations

import numpy as np
import pytest
from codec_samples import (
    COLUMN_KINDS,
    DTYPES,
    SCALES,
    laid_out,
    matrices,
    matrix,
    most_bits,
    quantizers,
    whole,
    working,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zipml_codecs import Quantizer, _native, encode_chunk, reference, rng
from zipml_codecs.chunk import EncodedChunk

pytestmark = pytest.mark.filterwarnings("error")


def assert_as_reference(values, quantizer, first_tile):
    chunk = whole(values, quantizer, first_tile=first_tile)
    half = values.dtype.itemsize == 2
    numbers = working(values)
    place = (quantizer, chunk.lower, chunk.upper)
    codes = reference.encode_codes(numbers, *place, first_tile, half=half)
    assert chunk.codes.tobytes() == codes.tobytes()
    variance = reference.variance_sums(numbers, *place, half=half)
    assert chunk.variance_table.tobytes() == variance.tobytes()
    decoded = reference.decode_codes(
        chunk.codes, *numbers.shape[:1], *place, numbers.shape[1], half=half
    )
    assert chunk.decode().tobytes() == decoded.astype(values.dtype).tobytes()


@settings(max_examples=150, deadline=None)
@given(
    values=matrices(),
    quantizer=quantizers(),
    first_tile=st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 4, 2**64 - 1]),
    data=st.data(),
)
def test_native_equals_reference(values, quantizer, first_tile, data):
    values = data.draw(laid_out(values))
    last = len(values) // 64
    if first_tile + last >= 2**64:  # the counter of a later tile would wrap
        values = values[:64]
    assert_as_reference(values, quantizer, first_tile)


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_native_equals_reference_at_all_bits_on_all_kinds_of_columns(dtype, scale, samples):
    generator = np.random.default_rng(1)
    values = matrix(generator, 130, 2 * len(COLUMN_KINDS) + 3, dtype)
    for bits in range(1, 9):
        quantizer = Quantizer(bits=bits, samples=samples, scale=scale, seed=bits)
        assert_as_reference(values, quantizer, first_tile=bits)


@pytest.mark.parametrize("samples", [4, 8])
@pytest.mark.parametrize("dtype", DTYPES)
def test_four_and_eight_samples_on_every_instruction_set(simd, dtype, samples):
    generator = np.random.default_rng(2)
    for rows, columns in ((130, 2 * len(COLUMN_KINDS) + 3), (200, 3), (64, 16), (7, 1)):
        values = matrix(generator, rows, columns, dtype)
        for bits in range(1, most_bits(samples) + 1):
            quantizer = Quantizer(bits=bits, samples=samples, seed=bits)
            assert_as_reference(values, quantizer, first_tile=bits)


@settings(max_examples=60, deadline=None)
@given(values=matrices(min_rows=1, max_columns=20), quantizer=quantizers(), data=st.data())
def test_any_range_of_tiles_decodes_as_in_the_whole(values, quantizer, data):
    chunk = whole(values, quantizer)
    tile = data.draw(st.integers(0, (len(values) - 1) // 64))
    rows = data.draw(st.integers(0, len(values) - 64 * tile))
    part = chunk.decode_rows(tile, rows)
    every = chunk.decode_rows(0, len(values))
    assert part.tobytes() == every[64 * tile : 64 * tile + rows].tobytes()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 200),
    columns=st.integers(1, 40),
    stored_bits=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_packed_codes_unpack_to_themselves(rows, columns, stored_bits, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << stored_bits, (rows, columns))
    tiles = [
        reference._pack_tile(codes[start : start + 64], stored_bits) for start in range(0, rows, 64)
    ]
    packed = np.concatenate(tiles) if tiles else np.empty(0, np.uint8)
    assert packed.size == _native.codes_size(rows, columns, stored_bits)
    assert np.array_equal(reference.unpack_codes(packed, rows, columns, stored_bits), codes)


@pytest.mark.parametrize(
    "shape", [(), (7,), (3, 4, 5), (2, 3, 4, 5), (0,), (0, 3), (3, 0), (2, 0, 2)]
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_any_number_of_axes_decodes_to_its_shape(shape, dtype):
    values = np.random.default_rng(0).uniform(-1, 1, shape).astype(dtype)
    decoded = EncodedChunk.parse(encode_chunk(values, Quantizer(bits=8))).decode()
    assert decoded.shape == shape and decoded.dtype == values.dtype
    assert np.abs(decoded - values).max(initial=0) <= 2 / 255 + 0.001


def test_fields_of_packed_records_are_read_where_they_lie():
    records = np.zeros((9, 4), dtype=[("tag", "u1"), ("value", "<f4"), ("big", ">f8")])
    numbers = np.arange(36).reshape(9, 4)
    records["value"], records["big"] = numbers, numbers
    quantizer = Quantizer(bits=8, seed=3)
    for name, dtype in (("value", "<f4"), ("big", ">f8")):
        expected = encode_chunk(numbers.astype(dtype), quantizer)
        assert encode_chunk(records[name], quantizer) == expected


KNOWN_BLOCKS = [  # kat_vectors of Random123, philox4x32-10: counter, key, result
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("counter", "key", "block"), KNOWN_BLOCKS)
def test_philox_gives_the_published_blocks(counter, key, block):
    assert tuple(rng.philox(key[0] | key[1] << 32, counter)) == block


def test_native_philox_gives_the_published_block_of_the_zero_counter():
    draws = np.empty(64, np.uint16)
    _native.quantize_draws(0, 0, 0, draws)
    words = [int(draws[16 * w]) | int(draws[16 * w + 1]) << 16 for w in range(4)]
    assert tuple(words) == KNOWN_BLOCKS[0][2]


@given(
    seed=st.integers(0, 2**64 - 1), tile=st.integers(0, 2**64 - 1), column=st.integers(0, 2**32 - 1)
)
@example(seed=2**64 - 1, tile=2**64 - 1, column=2**32 - 1)
def test_native_draws_equal_the_reference(seed, tile, column):
    draws = np.empty(64, np.uint16)
    _native.quantize_draws(seed, tile, column, draws)
    assert np.array_equal(draws, rng.quantize_draws(seed, tile, column))


def test_draws_of_different_purposes_use_different_counters():
    blocks = [tuple(rng.philox(5, (1, 0, 2, purpose << 24))) for purpose in rng.Purpose]
    assert len(set(blocks)) == len(rng.Purpose)
    masks = {rng.split_mask(5, 1, column, draw) for column in range(32) for draw in range(4)}
    assert len(masks) == 32 * 4


def test_the_core_refuses_buffers_of_the_wrong_size():
    values, bounds = np.zeros((70, 3), "f4"), np.zeros(3, "f4")
    good = {
        "values": values, "lower": bounds, "upper": bounds, "bits": 4, "samples": 1, "seed": 0,
        "first_tile": 0, "half": False, "codes": np.empty(_native.codes_size(70, 3, 4), np.uint8),
        "variance": np.zeros(3, np.uint64), "row_variance": None,
    }  # fmt: skip
    _native.encode_f32(**good)
    for name, wrong in [
        ("codes", np.empty(7, np.uint8)), ("lower", bounds[:2]), ("lower", None),
        ("upper", np.zeros(4, "f4")), ("variance", np.zeros(2, np.uint64)), ("bits", 9),
        ("bits", 0), ("samples", 3),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            _native.encode_f32(**{**good, name: wrong})
    decode = {
        "codes": good["codes"], "chunk_rows": 70, "first_tile": 0, "lower": bounds,
        "upper": bounds, "bits": 4, "samples": 1, "half": False, "out": np.empty((70, 3), "f4"),
    }  # fmt: skip
    _native.decode_f32(**decode)
    for name, wrong in [
        ("codes", np.empty(7, np.uint8)), ("chunk_rows", 69), ("first_tile", 1),
        ("first_tile", 2**60), ("out", np.empty((71, 3), "f4")), ("upper", bounds[:1]),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            _native.decode_f32(**{**decode, name: wrong})
