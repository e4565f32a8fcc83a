"""The weaved layout: planes of any precision, unbiased at each, against the NumPy reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zipml_codecs import ChunkError, EncodedChunk, Quantizer, encode_chunk, reference
from zipml_codecs import reference_weaved as weaved
from zipml_codecs._native import live_simd, select_simd, simd_levels
from zipml_codecs.numcodecs_codec import Quantize
from zipml_codecs.weave import plane_ranges


def on_every_level(function):
    before, results = live_simd(), []
    try:
        for name in simd_levels():
            select_simd(name)
            results.append(function())
    finally:
        select_simd(before)
    return results


def fetched(data, header, precision):
    return b"".join(data[at : at + n] for at, n in plane_ranges(header, precision))


@st.composite
def quantizers(draw):
    bits = draw(st.integers(1, 8))
    return Quantizer(
        bits=bits,
        samples=draw(st.sampled_from([1, 2])),
        seed=draw(st.integers(0, 2**64 - 1)),
        layout="weaved",
        precisions=tuple(draw(st.sets(st.integers(1, bits)))),
    )


@settings(max_examples=300, deadline=None)
@given(
    quantizer=quantizers(),
    rows=st.integers(1, 200),
    columns=st.integers(1, 40),
    dtype=st.sampled_from(["f2", "f4", "f8", "u1"]),
    tile=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 1000),
)
def test_every_instruction_set_agrees_with_the_reference(
    quantizer, rows, columns, dtype, tile, seed
):
    rng = np.random.default_rng(seed)
    x = (40 + 20 * rng.standard_normal((rows, columns))).clip(0, 200).astype(dtype)
    x[:, rng.random(columns) < 0.1] = 7
    x[rng.random(x.shape) < 0.1] = x.max()
    stored = np.dtype("f4" if dtype == "u1" else dtype)
    chunks = on_every_level(
        lambda: bytes(
            encode_chunk(
                x, quantizer, first_tile=tile, chunk_shape=x.shape, dtype=stored
            )
        )
    )  # fmt: skip
    assert len(set(chunks)) == 1
    whole = EncodedChunk.parse(chunks[0])
    header, half = whole.header, dtype == "f2"
    low, high = whole.lower, whole.upper
    matrix = x.astype(low.dtype)
    planes = np.frombuffer(chunks[0], np.uint8)[header.codes_offset :][: header.codes_size]
    expected = weaved.encode_planes(matrix, quantizer, low, high, tile, half=half)
    np.testing.assert_array_equal(planes, expected)
    where = reference.positions(matrix, quantizer, low, high, half=half)
    np.testing.assert_array_equal(whole.variance_table, weaved.variance_sums(where, quantizer))
    some = rng.integers(0, rows, 5)
    for precision in quantizer.precisions:
        chunk = EncodedChunk.parse(chunks[0], precision)
        part = fetched(chunks[0], header, precision)
        alone = EncodedChunk.parse_planes(part, precision, low, high)
        assert alone.codes.tobytes() == chunk.codes.tobytes() and alone.fetched == len(part)
        values = weaved.decode_planes(
            chunk.codes, rows, precision, quantizer.samples, low, high, half=half
        ).astype(stored)
        for decoded in on_every_level(chunk.decode):
            np.testing.assert_array_equal(decoded, values)
        for taken in on_every_level(lambda c=chunk: c.take(some)):
            np.testing.assert_array_equal(taken, values[some])
        turned = np.empty((columns, rows), stored).T
        chunk.decode_rows(0, rows, out=turned)
        np.testing.assert_array_equal(turned, values)


@pytest.mark.parametrize("samples", [1, 2])
def test_every_precision_is_unbiased_and_has_the_variance_that_the_chunk_states(samples):
    """Means over 4,096 roundings of a value, for 48 values at each of five precisions.

    A mean of n samples lies further than 5.5 standard errors from its expectation with
    probability 4e-8 each: below 1e-5 for all of the 240, by the normal approximation with the
    exact variance (p > 0.05 and n p > 200 here).
    """
    quantizer = Quantizer(
        bits=8, samples=samples, seed=11, layout="weaved", precisions=(1, 2, 3, 5)
    )
    columns = 48
    values = np.linspace(0.013, 0.987, columns).astype("f4")
    rows = 4096
    matrix = np.repeat(values[None], rows, axis=0)
    low, high = np.zeros(columns, "f4"), np.ones(columns, "f4")
    data = encode_chunk(
        matrix, quantizer, lower=low, upper=high, first_tile=0, chunk_shape=matrix.shape
    )
    for precision in quantizer.precisions:
        chunk = EncodedChunk.parse(data, precision)
        decoded = chunk.decode().astype("f8")
        n = 1 << precision
        p = values.astype("f8") * n % 1
        error = decoded.mean(axis=0) - values
        # Two independent samples halve the variance of one.
        spread = np.sqrt(p * (1 - p) / samples / rows) / n
        rounding = 2.0**-16 / n  # of the stored probability
        assert (np.abs(error) <= 5.5 * spread + rounding).all(), precision
        np.testing.assert_allclose(chunk.variance, p * (1 - p) / n**2, atol=1e-4 / n**2)
        # The spread of the variance of a mean of Bernoullis is below sqrt(2 / n) of its largest.
        found = decoded.var(axis=0)
        np.testing.assert_allclose(
            found, p * (1 - p) / samples / n**2, atol=5.5 * np.sqrt(2 / rows) / 4 / n**2
        )


def test_samples_are_independent_between_precisions_and_of_each_other():
    quantizer = Quantizer(bits=8, samples=2, seed=3, layout="weaved", precisions=(1, 2, 4))
    rows, columns = 8192, 16
    matrix = np.full((rows, columns), 0.3, "f4")
    data = encode_chunk(
        matrix,
        quantizer,
        lower=np.zeros(columns, "f4"),
        upper=np.ones(columns, "f4"),
        first_tile=0,
        chunk_shape=matrix.shape,
    )
    ups = []
    for precision in quantizer.precisions:
        chunk = EncodedChunk.parse(data, precision)
        size = chunk.header.plane_size
        for sample in range(2):
            plane = chunk.codes[(precision + sample) * size :][:size]
            ups.append(reference.unpack_codes(plane, rows, columns, 1).ravel())
    correlation = np.corrcoef(np.array(ups))
    n = rows * columns
    assert np.abs(correlation - np.eye(len(ups))).max() < 5.5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_levels_stay_at_every_precision_that_has_them(dtype):
    quantizer = Quantizer(bits=8, samples=2, layout="weaved")
    for precision in quantizer.precisions:
        levels = np.linspace(-2, 6, (1 << precision) + 1).astype(dtype)
        matrix = np.tile(levels[:, None], (3, 2))
        data = encode_chunk(
            matrix,
            quantizer,
            lower=np.full(2, -2.0),
            upper=np.full(2, 6.0),
            first_tile=0,
            chunk_shape=matrix.shape,
        )
        for finer in (k for k in quantizer.precisions if k >= precision):
            np.testing.assert_array_equal(EncodedChunk.parse(data, finer).decode(), matrix)


def test_the_size_is_that_of_the_planes():
    x = np.random.default_rng(0).random((64_000, 12)).astype("f4")
    for samples in (1, 2):
        quantizer = Quantizer(bits=8, samples=samples, layout="weaved")
        data = encode_chunk(x, quantizer)
        header = EncodedChunk.parse(data).header
        assert quantizer.precisions == (1, 2, 4, 8)
        assert quantizer.stored_bits == 8 + 4 * samples
        plane = x.size // 8
        assert header.plane_size == plane
        assert len(data) <= plane * quantizer.stored_bits + 256 + 12 * (8 + 4 * 8) + 64
        sizes = {k: sum(n for _, n in plane_ranges(header, k)) for k in quantizer.precisions}
        for k, size in sizes.items():
            assert size == header.codes_offset + (k + samples) * plane
        base_of_four = sizes[4] - samples * plane
        assert sizes[2] <= 0.52 * base_of_four + samples * plane


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_plain_zarr_reads_the_highest_precision(tmp_path, zarr_format):
    x = np.random.default_rng(0).standard_normal((300, 5)).astype("f4")
    options = {"bits": 8, "samples": 2, "layout": "weaved", "precisions": [2, 4]}
    how = {
        3: {"serializer": {"name": "zipml.quantize", "configuration": options}},
        2: {"filters": [Quantize(**options)], "compressors": None},
    }[zarr_format]
    array = zarr.create_array(
        tmp_path / "x", shape=x.shape, chunks=(128, 5), dtype="f4", zarr_format=zarr_format, **how
    )
    array[:] = x
    again = zarr.open_array(tmp_path / "x", mode="r")[:]
    assert np.abs(again - x).max() <= (x.max() - x.min()) / 256
    codec = Quantize(**options)
    assert codec.get_config()["precisions"] == [2, 4, 8]
    config = {k: v for k, v in codec.get_config().items() if k != "id"}
    assert Quantize.from_config(config).quantizer == codec.quantizer


def test_damage_is_found_in_whatever_was_fetched():
    x = np.random.default_rng(0).standard_normal((70, 3)).astype("f4")
    quantizer = Quantizer(bits=4, samples=2, layout="weaved", precisions=(1, 2))
    data = bytes(encode_chunk(x, quantizer))
    chunk = EncodedChunk.parse(data)
    low, high = chunk.lower, chunk.upper
    for precision in quantizer.precisions:
        part = fetched(data, chunk.header, precision)
        EncodedChunk.parse_planes(part, precision, low, high)
        for i in range(len(part)):
            if (
                chunk.header.checksums_offset + 4 * (chunk.header.planes + 3)
                <= i
                < (chunk.header.codes_offset)
            ):
                continue  # padding, which nobody looks at
            for change in (0x01, 0x80, 0xFF):
                changed = bytearray(part)
                changed[i] ^= change
                with pytest.raises(ChunkError):
                    EncodedChunk.parse_planes(bytes(changed), precision, low, high)
        for length in range(len(part)):
            with pytest.raises(ChunkError):
                EncodedChunk.parse_planes(part[:length], precision, low, high)
        with pytest.raises(ChunkError):
            EncodedChunk.parse_planes(part + b"\0", precision, low, high)
        with pytest.raises(ChunkError, match="other levels"):
            EncodedChunk.parse_planes(part, precision, low, high + 1)
    with pytest.raises(ChunkError, match="not stored for 3 bits"):
        EncodedChunk.parse_planes(data, 3, low, high)
    with pytest.raises(ValueError, match="stored for 1, 2, 4 bits, not for 3"):
        EncodedChunk.parse(data, 3)


def test_a_head_that_claims_more_than_there_is_allocates_nothing():
    x = np.random.default_rng(0).standard_normal((70, 3)).astype("f4")
    quantizer = Quantizer(bits=2, layout="weaved")
    data = bytes(encode_chunk(x, quantizer))
    chunk = EncodedChunk.parse(data)
    part = bytearray(fetched(data, chunk.header, 1))
    for rows in (2**20, 2**40, 2**59):
        huge = replace(chunk.header, shape=(rows, 3), box=(rows, 3))
        try:
            part[: huge.head_size] = huge.pack()
        except ValueError:  # so large that not even a writer could say it
            for at in (48, 88, 104):
                part[at : at + 8] = rows.to_bytes(8, "little")
        with pytest.raises(ChunkError):
            EncodedChunk.parse_planes(bytes(part), 1, chunk.lower, chunk.upper)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "woven"}, "layout must be one of packed, weaved"),
        ({"precisions": (1,)}, "precisions go with layout 'weaved'"),
        ({"layout": "weaved", "precisions": (5,)}, r"precisions must lie in 1\.\.4"),
        ({"layout": "weaved", "precisions": (0,)}, r"precisions must lie in 1\.\.4"),
        ({"layout": "weaved", "scale": "row"}, "scale 'column' and levels 'uniform'"),
        ({"layout": "weaved", "levels": "optimal"}, "scale 'column' and levels 'uniform'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(**options)
    with pytest.raises(TypeError, match="precisions must be integers"):
        Quantizer(layout="weaved", precisions=("a",))
