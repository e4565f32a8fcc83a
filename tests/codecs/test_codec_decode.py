"""Decoding gives the reference's bits on every instruction set, into any output, of any rows."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from codec_samples import COLUMN_KINDS, DTYPES, matrix, quantizers, working
from hypothesis import given, settings
from hypothesis import strategies as st
from zipml_codecs import EncodedChunk, Quantizer, _native, encode_chunk, reference

pytestmark = pytest.mark.filterwarnings("error")
LEVELS = _native.simd_levels()


@pytest.fixture(params=LEVELS)
def simd_level(request):
    before = _native.live_simd()
    _native.select_simd(request.param)
    yield request.param
    _native.select_simd(before)


def chunk_of(values, quantizer, *, codes=None):
    """A chunk with the scales of the values and, if asked for, codes that no writer makes."""
    data = encode_chunk(values, quantizer, chunk_shape=values.shape, first_tile=0)
    chunk = EncodedChunk.parse(data)
    if codes is not None:
        data[chunk.header.codes_offset :] = codes.integers(
            0, 256, chunk.codes.size, np.uint8
        ).tobytes()
    return EncodedChunk.parse(data)


def expected(chunk):
    """All rows by the reference; codes beyond the last level read as that."""
    header = chunk.header
    quantizer, half = header.quantizer, header.item_size == 2
    codes = reference.unpack_codes(
        chunk.codes, header.rows, header.columns, quantizer.stored_bits
    ).clip(max=quantizer.intervals * quantizer.samples)
    packed = [
        reference._pack_tile(codes[start : start + 64], quantizer.stored_bits)
        for start in range(0, header.rows, 64)
    ]
    decoded = reference.decode_codes(
        np.concatenate(packed) if packed else np.empty(0, np.uint8), header.rows, quantizer,
        chunk.lower, chunk.upper, header.columns, half=half,
    )  # fmt: skip
    return decoded.astype(f"f{header.item_size}")


def output(how, shape, dtype):
    """An empty output in some memory order, and all of the memory around it."""
    rows, columns = shape
    if how == "C":
        whole = np.full(shape, 7, dtype)
        return whole, whole
    if how == "F":
        whole = np.full((columns, rows), 7, dtype)
        return whole.T, whole
    if how == "row pitch":
        whole = np.full((rows, columns + 5), 7, dtype)
        return whole[:, 2 : 2 + columns], whole
    if how == "column pitch":
        whole = np.full((columns, rows + 3), 7, dtype)
        return whole.T[1 : 1 + rows], whole
    if how == "strided":
        whole = np.full((2 * rows, 3 * columns), 7, dtype)
        return whole[::2, ::3], whole
    if how == "reversed":
        whole = np.full(shape, 7, dtype)
        return whole[::-1, ::-1], whole
    if how == "big-endian":
        whole = np.full(shape, 7, np.dtype(dtype).newbyteorder(">"))
        return whole, whole
    whole = np.full(shape, 7, np.dtype([("tag", "u1"), ("value", dtype)]))
    return whole["value"], whole["tag"]


ORDERS = (
    "C", "F", "row pitch", "column pitch", "strided", "reversed", "big-endian", "packed record",
)  # fmt: skip


def same(a, b):
    """Equal to the bit, whatever the byte order."""
    return np.ascontiguousarray(a, a.dtype.newbyteorder("=")).tobytes() == b.tobytes()


@settings(max_examples=150)
@given(
    rows=st.integers(0, 200),
    columns=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
    wanted=st.sampled_from(DTYPES),
    order=st.sampled_from(ORDERS),
    quantizer=quantizers(),
    hostile=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_instruction_set_decodes_as_the_reference(
    rows, columns, dtype, wanted, order, quantizer, hostile, seed
):
    rng = np.random.default_rng(seed)
    kinds = [COLUMN_KINDS[i] for i in rng.integers(0, len(COLUMN_KINDS), rng.integers(1, 5))]
    values = matrix(rng, rows, columns, dtype, kinds)
    chunk = chunk_of(values, quantizer, codes=rng if hostile else None)
    exact = expected(chunk)
    with np.errstate(over="ignore"):
        reference_values = exact.astype(wanted)
    chosen = rng.integers(0, rows, 2 * rows + 1) if rows else np.empty(0, np.int64)
    before = _native.live_simd()
    try:
        for level in LEVELS:
            _native.select_simd(level)
            assert same(chunk.decode(), exact)
            assert same(chunk.decode_rows(0, rows, dtype=wanted), reference_values)
            out, around = output(order, (rows, columns), wanted)
            untouched = out.size
            assert chunk.decode_rows(0, rows, out=out) is out
            assert same(out, reference_values)
            if order in ("row pitch", "column pitch", "strided"):
                assert (around == 7).sum() >= around.size - untouched
                out[...] = 7
                assert (around == 7).all()
            assert same(chunk.take(chosen, dtype=wanted), reference_values[chosen])
            out, _ = output(order, (len(chosen), columns), wanted)
            assert chunk.take(chosen, out=out) is out
            assert same(out, reference_values[chosen])
    finally:
        _native.select_simd(before)


@pytest.mark.parametrize("scale", ["column", "row"])
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_codes_of_all_widths_decode_as_the_reference(simd_level, dtype, bits, samples, scale):
    rng = np.random.default_rng(bits)
    for rows, columns in ((64, 33), (200, 16), (129, 5), (8, 64), (3, 1), (130, 70)):
        values = matrix(rng, rows, columns, dtype, COLUMN_KINDS)
        quantizer = Quantizer(bits=bits, samples=samples, scale=scale)
        chunk = chunk_of(values, quantizer, codes=rng)
        every = expected(chunk)
        assert same(chunk.decode(), every)
        assert same(chunk.take(np.arange(rows)[::-1]), every[::-1].copy())
        for tile in range(1, rows // 64):
            assert same(chunk.decode_rows(tile, rows - 64 * tile), every[64 * tile :])


@pytest.mark.parametrize("wanted", DTYPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [3, 28, 100, 1500])
def test_outputs_beyond_the_caches_are_the_same(simd_level, columns, dtype, wanted):
    """From some size on values are written past the caches, wherever the output begins."""
    rows = 5_000_000 // columns
    rng = np.random.default_rng(columns)
    values = rng.standard_normal((200, columns)).astype(dtype)
    data = encode_chunk(values, Quantizer(bits=4), chunk_shape=values.shape, first_tile=0)
    few = EncodedChunk.parse(data).header
    codes = rng.integers(0, 256, _native.codes_size(rows, columns, 4), np.uint8)
    header = bytearray(data[: few.codes_offset])
    for at, value in ((48, rows), (80, few.codes_offset + codes.size), (88, rows), (104, rows)):
        header[at : at + 8] = struct.pack("<Q", value)
    chunk = EncodedChunk.parse(bytes(header) + codes.tobytes())
    size = rows * columns
    for offset in (0, 1, 5):
        whole = np.full(size + 64, 7, wanted)
        out = whole[offset : offset + size].reshape(rows, columns)
        chunk.decode_rows(0, rows, out=out)
        assert (whole[:offset] == 7).all() and (whole[offset + size :] == 7).all()
        for start in (0, rows // 128 * 64, rows // 64 * 64 - 64):
            some = np.arange(start, min(start + 130, rows))
            assert same(out[some], chunk.take(some, dtype=wanted))
    assert same(out[:100], chunk.decode_rows(0, 100, dtype=wanted))
    pitch = np.full((rows, columns + 1), 7, wanted)
    chunk.decode_rows(0, rows, out=pitch[:, 1:])
    assert (pitch[:, 0] == 7).all() and same(pitch[:, 1:], out)


def test_floats_round_to_halves_as_numpy_rounds_them(simd_level):
    """Every half, the midpoints between them and their neighbours, as bounds of a column."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1] + halves[1:]) / 2
    middle = np.append(middle, np.float32(65520))
    tests = np.concatenate(
        [halves, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))]
    )
    tests = np.concatenate([tests, np.float32([1e9, 3e38, 1e-45, 2e-8, 3e-8, 0]), -tests])
    tests = np.resize(tests, (-(-tests.size // 64) * 64,))
    chunk = chunk_of(tests.reshape(1, -1), Quantizer(bits=1))
    assert np.array_equal(chunk.upper, tests)
    with np.errstate(over="ignore"):
        rounded = chunk.upper.reshape(1, -1).astype(np.float16)
    assert same(chunk.decode_rows(0, 1, dtype="f2"), rounded)
    assert same(chunk.take([0], dtype="f2"), rounded)
    assert np.isinf(rounded).any()


def test_rows_that_the_chunk_lacks_are_named():
    chunk = chunk_of(np.ones((70, 2), "f4"), Quantizer())
    for rows, named in [([3, 70], 70), ([-1], -1), (np.array([2**64 - 1], np.uint64), 2**64 - 1)]:
        with pytest.raises(IndexError, match=rf"row {named} lies outside .* the rows 0 to 69"):
            chunk.take(rows)
    empty = chunk_of(np.empty((0, 2), "f4"), Quantizer())
    with pytest.raises(IndexError, match="row 0 lies outside of the chunk, which has no rows"):
        empty.take([0])
    assert chunk.take([]).shape == (0, 2) and empty.take([]).shape == (0, 2)


@pytest.mark.parametrize("rows", [[0.5], [True], [[1]], 3, ["a"]])
def test_rows_are_one_axis_of_integers(rows):
    with pytest.raises(TypeError, match="one-dimensional array of integers"):
        chunk_of(np.ones((70, 2), "f4"), Quantizer()).take(rows)


def test_outputs_that_do_not_fit_are_refused():
    chunk = chunk_of(np.ones((70, 2), "f4"), Quantizer())
    frozen = np.empty((70, 2), "f4")
    frozen.flags.writeable = False
    for out in (np.empty((70, 3), "f4"), np.empty((69, 2), "f4"), np.empty(140, "f4"), frozen):
        with pytest.raises(ValueError, match=r"a writeable array of shape \(70, 2\)"):
            chunk.decode_rows(0, 70, out=out)
    for options in (
        {"dtype": "i4"}, {"out": np.empty((70, 2), "i4")}, {"out": np.empty((70, 2), "c8")},
        {"dtype": "f2", "out": np.empty((70, 2), "f4")},
    ):  # fmt: skip
        with pytest.raises(TypeError, match="the output must be float"):
            chunk.decode_rows(0, 70, **options)
    with pytest.raises(ValueError, match="outside of the chunk"):
        chunk.decode_rows(1, 70)


def test_the_core_checks_the_rows_itself():
    chunk = chunk_of(np.ones((70, 2), "f4"), Quantizer())
    good = {
        "codes": chunk.codes, "chunk_rows": 70, "rows": np.array([69, 0]), "lower": chunk.lower,
        "upper": chunk.upper, "bits": 4, "samples": 1, "half": False, "out": np.empty((2, 2), "f4"),
    }  # fmt: skip
    _native.take_f32(**good)
    for name, wrong in [
        ("codes", chunk.codes[1:]), ("chunk_rows", 64), ("rows", np.array([0, 70])),
        ("rows", np.array([-1, 0])), ("rows", np.array([1])), ("out", np.empty((3, 2), "f4")),
        ("lower", None), ("upper", chunk.upper[:1]), ("bits", 0),
    ]:  # fmt: skip
        with pytest.raises(ValueError):
            _native.take_f32(**{**good, name: wrong})


def test_values_are_those_of_the_working_precision():
    values = np.random.default_rng(0).standard_normal((90, 20)).astype("f2")
    chunk = chunk_of(values, Quantizer(bits=3, samples=2))
    assert same(chunk.decode_rows(0, 90, dtype="f4"), working(chunk.decode()))
