"""Encoded bytes from anywhere: they decode to the shape they declare or raise ChunkError."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from codec_samples import DTYPES, SCALES
from hypothesis import given, settings
from hypothesis import strategies as st
from zipml_codecs import ChunkError, EncodedChunk, Quantizer, encode_chunk
from zipml_codecs.header import _FIXED
from zipml_codecs.numcodecs_codec import Quantize

pytestmark = pytest.mark.filterwarnings("error")


def small_chunk(dtype="f4", order="C", shape=(9, 3), **options):
    values = np.random.default_rng(0).uniform(1, 2, shape).astype(dtype)
    values[7:] = 0  # a tail
    return bytes(encode_chunk(np.asarray(values, order=order), Quantizer(**options)))


CHUNKS = {
    "column": small_chunk(),
    "row": small_chunk("f8", scale="row", bits=3),
    "two samples": small_chunk("f2", samples=2, bits=8),
    "four samples": small_chunk(samples=4, bits=2),
    "Fortran order": small_chunk(order="F", bits=1),
    "one axis": small_chunk(shape=(20,)),
    "no axis": bytes(encode_chunk(np.float32(3), Quantizer())),
    "table": small_chunk(bits=2, levels="optimal"),
    "wide table": bytes(
        encode_chunk(
            np.random.default_rng(0).random((9, 3)),
            Quantizer(bits=8, samples=2, levels="optimal"),
            lower=np.zeros(3),
            upper=np.ones(3),
            levels=np.tile(np.append(np.arange(255), 32767).astype(np.uint16), (3, 1)),
        )
    ),
    "weaved": small_chunk(layout="weaved", bits=3, precisions=[1, 3], samples=2),
    "weaved halves": small_chunk("f2", layout="weaved", bits=8),
    "weaved padding": bytes(
        encode_chunk(np.full((3, 3), np.nan, "f4"), Quantizer(bits=2, layout="weaved"))
    ),
    "padding only": bytes(encode_chunk(np.full((3, 3), np.nan, "f4"), Quantizer())),
}
LIMIT = 10**7


def check(data):
    """Decode, or raise ChunkError; a shape within reason is checked to be what comes out."""
    try:
        chunk = EncodedChunk.parse(data)
    except ChunkError as error:
        assert str(error)
        return None
    header = chunk.header
    _ = chunk.variance
    if math.prod(header.shape) < LIMIT:  # else only a reader that knows the array's shape decodes
        decoded = chunk.decode()
        assert decoded.shape == header.shape and decoded.itemsize == header.item_size
    return chunk


@pytest.mark.parametrize("name", CHUNKS)
def test_every_truncation_and_extension_is_refused(name):
    data = CHUNKS[name]
    for length in range(len(data)):
        for part in (data[:length], np.frombuffer(data[:length], np.uint8)):
            with pytest.raises(ChunkError):
                EncodedChunk.parse(part)
    with pytest.raises(ChunkError, match="bytes follow its end"):
        EncodedChunk.parse(data + b"\0")
    codec = Quantize()
    for length in (0, 1, 87, 88, len(data) - 1):
        with pytest.raises(ChunkError):
            codec.decode(data[:length])


@pytest.mark.parametrize("name", CHUNKS)
def test_every_changed_byte_is_refused_or_decodes(name):
    data = CHUNKS[name]
    for i in range(len(data)):
        for change in (0x01, 0x80, 0xFF, data[i] or 0x10):
            changed = bytearray(data)
            changed[i] ^= change
            check(bytes(changed))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=600))
def test_random_bytes_are_refused(data):
    assert check(data) is None
    assert check(b"ZPML\1\0" + data) is None or len(data) > 80


numbers = st.one_of(
    st.integers(0, 300),
    st.integers(0, 2**64 - 1),
    st.sampled_from([2**31, 2**32, 2**63, 2**64 - 1]),
)


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(sorted(CHUNKS)),
    changes=st.dictionaries(st.integers(1, 20), numbers, max_size=4),
    shape=st.none() | st.lists(numbers, max_size=4),
    box=st.none() | st.lists(numbers, max_size=4),
    tail=st.none() | st.floats(),
)
def test_headers_of_any_content_are_refused_or_decode(name, changes, shape, box, tail):
    data = CHUNKS[name]
    fields = list(_FIXED.unpack_from(data))
    ndim = fields[9]
    axes = list(struct.unpack_from(f"<{2 * ndim}Q", data, _FIXED.size))
    for field, value in changes.items():
        largest = 0xFF if field < 11 else 0xFFFF if field == 11 else 2**64 - 1
        fields[field] = value & largest
    if tail is not None:
        fields[15] = tail
    axes = (shape or axes[:ndim]) + (box or axes[ndim:])
    packed = _FIXED.pack(*fields) + struct.pack(f"<{len(axes)}Q", *axes)
    check(packed + data[_FIXED.size + 16 * ndim :])


def consistent(shape, box, *, scale="column", item_size=4, tail=0.0, codes=0):
    """A header whose sizes all follow from its shape, with zeros behind it."""
    from zipml_codecs import ChunkHeader

    header = ChunkHeader(
        quantizer=Quantizer(scale=scale), item_size=item_size, shape=shape, box=box, tail=tail
    )
    return header.pack().ljust(header.codes_offset + codes, b"\0")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((2**40, 2**40), (0, 0)),
        ((2**63,), (0,)),
        ((2**62, 0, 2**62), (0, 0, 0)),
        ((2**63, 4, 0), (0, 0, 0)),
        ((2**64 - 1, 0), (0, 0)),
    ],
)
def test_shapes_that_no_array_can_have_are_refused(shape, box, scale):
    with pytest.raises(ChunkError, match="no array can have the shape"):
        EncodedChunk.parse(consistent(shape, box, scale=scale))


@pytest.mark.parametrize("box", [(2**62, 4, 0), (2**63, 2**63, 0), (2**64 - 1, 0)])
def test_rows_beyond_counting_without_any_column_are_refused(box):
    data = bytearray(consistent((0,) * len(box), (0,) * len(box)))
    struct.pack_into(f"<{len(box)}Q", data, _FIXED.size, *box)
    struct.pack_into(f"<{len(box)}Q", data, _FIXED.size + 8 * len(box), *box)
    with pytest.raises(ChunkError):
        EncodedChunk.parse(bytes(data))


def test_a_few_bytes_cannot_make_the_format_2_codec_allocate_at_will():
    data = consistent((2**20, 2**10, 2**8), (0, 0, 0))
    with pytest.raises(ChunkError, match="claims to decode to 1099511627776 bytes"):
        Quantize().decode(data)
    with pytest.raises(ChunkError, match="claims to decode"):
        Quantize().decode(data, out=np.empty(4, "f4"))


def test_an_array_too_large_for_the_format_2_codec_is_refused_before_it_is_read():
    values = np.broadcast_to(np.float32(1), (2**29, 2))
    with pytest.raises(ValueError, match="use smaller chunks"):
        Quantize().encode(values)


def test_a_chunk_of_another_array_is_refused():
    chunk = EncodedChunk.parse(CHUNKS["column"])
    chunk.require_shape((9, 3), 4)
    for shape, item_size in [((9, 4), 4), ((9,), 4), ((3, 9), 4), ((9, 3), 8)]:
        with pytest.raises(ChunkError, match=r"the chunk holds \(9, 3\) of float32"):
            chunk.require_shape(shape, item_size)


def changed_at(offset, value, data=CHUNKS["column"]):
    out = bytearray(data)
    out[offset : offset + len(value)] = value
    return bytes(out)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "too few"),
        (changed_at(0, b"PK"), "no zipml chunk"),
        (changed_at(4, b"\2"), "format version 2, this reader knows 1: update"),
        (changed_at(8, b"\2"), "feature that this reader does not know"),
        (changed_at(8, b"\1"), "4 bits are not among its precisions"),
        (changed_at(8, b"\0", CHUNKS["weaved"]), "do not follow from the shape"),
        (changed_at(14, b"\7", CHUNKS["weaved"]), "do not follow from the shape"),
        (changed_at(15, b"\1", CHUNKS["weaved"]), "precisions must lie in 1..3"),
        (changed_at(10, b"\1", CHUNKS["weaved"]), "layout 'weaved' goes with scale 'column'"),
        (changed_at(130, b"\0\0\0\0", CHUNKS["weaved"]), "checksum of its head"),
        (changed_at(9, b"\3"), "feature that this reader does not know"),
        (changed_at(9, b"\1"), "do not follow from the shape"),
        (changed_at(9, b"\0", CHUNKS["table"]), "do not follow from the shape"),
        (changed_at(10, b"\1", CHUNKS["table"]), "optimal levels go with scale 'column' only"),
        (changed_at(144, b"\1", CHUNKS["table"]), "column 0 must ascend from 0 to 255"),
        (changed_at(147, b"\xfe", CHUNKS["table"]), "column 0 must ascend from 0 to 255"),
        (changed_at(150, b"\0", CHUNKS["table"]), "column 1 must ascend from 0 to 255"),
        (changed_at(145, b"\xff", CHUNKS["table"]), "column 0 must ascend from 0 to 255"),
        (
            changed_at(170, b"\xff\xff", CHUNKS["wide table"]),
            "column 0 must ascend from 0 to 32767",
        ),
        (changed_at(13, b"\x08"), "feature that this reader does not know"),
        (changed_at(6, b"\0"), "bits must lie in 1..8, got 0"),
        (changed_at(7, b"\3"), "samples must be 1, 2, 4 or 8, got 3"),
        (changed_at(10, b"\3"), "scale number 3"),
        (changed_at(11, b"\x05"), "item size 5"),
        (changed_at(12, b"\x21"), "33 axes"),
        (changed_at(40, struct.pack("<d", 1e300)), "tail 1e.300 is no float32"),
        (changed_at(88, struct.pack("<Q", 3)), "exceeds shape"),
        (changed_at(80, struct.pack("<Q", 3)), "do not follow from the shape"),
        (changed_at(120, struct.pack("<f", np.nan)), "not finite and in order"),
        (changed_at(120, struct.pack("<f", 3)), "not finite and in order"),
        (changed_at(120, struct.pack("<f", -1e30), CHUNKS["two samples"]), "no float16"),
    ],
)
def test_the_message_names_the_cause(data, text):
    with pytest.raises(ChunkError, match=text):
        EncodedChunk.parse(data)


def test_a_newer_minor_version_is_read():
    data = changed_at(5, b"\x09")
    assert np.array_equal(
        EncodedChunk.parse(data).decode(), EncodedChunk.parse(CHUNKS["column"]).decode()
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_codes_beyond_the_last_level_read_as_the_last_level(dtype):
    values = np.array([[1], [2]], dtype)
    data = encode_chunk(values, Quantizer(bits=2, samples=2), chunk_shape=(2, 1), first_tile=0)
    offset = EncodedChunk.parse(data).header.codes_offset
    data[offset:] = b"\xff" * (len(data) - offset)
    assert (EncodedChunk.parse(data).decode() == 2).all()
