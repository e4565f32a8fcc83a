"""Checksums of the native core: those of every instruction set are Google's, in memory and read."""

from __future__ import annotations

import os
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from zipml_codecs import EncodedChunk, Quantizer, _native, encode_chunk
from zipml_codecs.checksum import crc32c

DATA = np.random.default_rng(5).integers(0, 256, 70_000, dtype=np.uint8)
# Around every size at which a way of computing begins a further step.
SIZES = [
    *range(80),
    *range(250, 270),
    *range(500, 780, 7),
    1360 * 3 - 1,
    1360 * 3,
    4095,
    4097,
    65_537,
]


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_every_size_and_alignment_has_the_checksum_of_a_peer(simd: str, offset: int) -> None:
    for size in SIZES:
        part = DATA[offset : offset + size]
        assert crc32c(part.data) == google_crc32c.value(part.tobytes()), size


def test_a_checksum_goes_on_from_that_of_the_bytes_before(simd: str) -> None:
    whole = _native.crc32c(DATA)
    for cut in (0, 1, 63, 256, 512, 4080, 69_999, 70_000):
        assert _native.crc32c(DATA[cut:], _native.crc32c(DATA[:cut])) == whole


def test_a_file_is_read_and_summed_as_one(simd: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA.tobytes() * 12)  # longer than the pieces that it is read in
    whole = np.tile(DATA, 12)
    file = os.open(path, os.O_RDONLY)
    try:
        for start, size, aside in (
            (0, len(whole), 4), (3, len(whole) - 3, 0), (0, 262_144 + 2, 4), (70, 0, 0), (5, 4, 4),
        ):  # fmt: skip
            out = np.empty(size, np.uint8)
            got, checksum = _native.read_checked(file, start, out, aside)
            assert got == size
            np.testing.assert_array_equal(out, whole[start : start + size])
            summed = whole[start : start + size - aside]
            assert checksum == google_crc32c.value(summed.tobytes())
        out = np.empty(100, np.uint8)
        assert _native.read_checked(file, len(whole) - 30, out, 0)[0] == 30
        with pytest.raises(ValueError, match="more bytes are left aside"):
            _native.read_checked(file, 0, out, 101)
        with pytest.raises(ValueError, match="outside of any file"):
            _native.read_checked(file, 2**63 - 50, out, 0)
    finally:
        os.close(file)
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        _native.read_checked(file, 0, np.empty(1, np.uint8), 0)
    assert caught.value.errno == 9


def test_an_object_is_read_whole_or_not_at_all(simd: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    body = np.tile(DATA, 9).tobytes()  # 630,009 bytes: the last piece is no whole one
    stored = b"before" + body + google_crc32c.value(body).to_bytes(4, "little")
    path.write_bytes(stored)
    found = _native.read_object(str(path), 6, len(body) + 4, True)
    assert bytes(found) == body and found.readonly
    assert np.frombuffer(found, np.uint8).ctypes.data % 64 == 0
    for size in (0, 1, 262_143, 262_144, 262_145, 524_288):
        part = body[:size]
        path.write_bytes(part + google_crc32c.value(part).to_bytes(4, "little") + b"behind")
        assert bytes(_native.read_object(str(path), 0, size + 4, False)) == part
        assert _native.read_object(str(path), 0, size + 4, True) is None  # more bytes follow
        assert _native.read_object(str(path), 0, size + 20, False) is None  # fewer than those
    for at in (6, 6 + 262_144, len(stored) - 5, len(stored) - 1):
        path.write_bytes(stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :])
        assert _native.read_object(str(path), 6, len(body) + 4, True) is None
    assert _native.read_object(str(tmp_path / "none"), 0, 4, True) is None
    assert _native.read_object(str(tmp_path), 0, 4, False) is None  # a folder
    for start, size in ((2**64 - 1, 4), (2**63 - 4, 5), (0, 2**64 - 1), (0, 2**62)):
        assert _native.read_object(str(path), start, size, False) is None
    with pytest.raises(ValueError, match="no room for a checksum"):
        _native.read_object(str(path), 0, 3, False)


def test_what_begins_alike_is_told_byte_by_byte() -> None:
    head = DATA[:300].tobytes()
    for at in range(300):
        changed = bytearray(head + b"more")
        changed[at] ^= 128
        assert _native.begins_alike(changed, head, 24, 40) == (24 <= at < 40)
    assert not _native.begins_alike(head[:-1], head, 24, 40)
    with pytest.raises(ValueError, match="outside of the head"):
        _native.begins_alike(head, head, 24, 301)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, None])
def test_numbers_that_are_not_finite_are_found_wherever_they_are(bad: float | None) -> None:
    values = np.concatenate(
        [np.random.default_rng(0).standard_normal(67), [1.7976931348623157e308, -5e-324, 0.0, -0.0]]
    )
    assert _native.all_finite(values) and _native.all_finite(values[:0])
    if bad is not None:
        for at in range(len(values)):
            changed = values.copy()
            changed[at] = bad
            assert not _native.all_finite(changed.reshape(-1, 1))
    with pytest.raises(ValueError, match="takes float64"):
        _native.all_finite(values[:67].astype(np.float32))
    with pytest.raises(ValueError, match="takes float64"):
        _native.all_finite(values.astype(">f8"))


@pytest.mark.parametrize("levels", ["uniform", "optimal"])
def test_a_chunk_like_another_is_parsed_as_it_is_alone(levels: str) -> None:
    rng = np.random.default_rng(0)
    bounds = {"lower": np.full(7, -9, "f4"), "upper": np.full(7, 9, "f4")}
    quantizer = Quantizer(bits=4, samples=2, levels=levels)
    places = np.sort([rng.choice(126, 14, replace=False) + 1 for _ in range(7)], axis=1).astype(
        np.uint8
    )
    if levels == "optimal":
        bounds["levels"] = np.hstack(
            [np.zeros((7, 1), np.uint8), places, np.full((7, 1), 127, np.uint8)]
        )
    chunks = [
        bytes(encode_chunk(rng.standard_normal((128, 7), "f4"), quantizer, first_tile=t, **bounds))
        for t in (0, 2, 4)
    ]
    first = EncodedChunk.parse(chunks[0])
    for data in chunks:
        alone, alike = EncodedChunk.parse(data), EncodedChunk.parse(data, like=first)
        assert alike.header == alone.header and alike.fetched == alone.fetched
        assert alike.precision == alone.precision and alike.first_tile == alone.first_tile
        for name in ("lower", "upper", "variance_table", "codes", "places"):
            np.testing.assert_array_equal(getattr(alike, name), getattr(alone, name))
    assert alike.lower is first.lower  # it was indeed told by its likeness
    # Whatever differs but the place is looked at as ever.
    for at in [*range(24), *range(40, first.header.variance_offset)]:
        changed = bytearray(chunks[1])
        changed[at] ^= 1
        outcomes = []
        for like in (None, first):
            try:
                parsed = EncodedChunk.parse(bytes(changed), like=like)
                outcomes.append((parsed.header, parsed.lower.tobytes(), parsed.upper.tobytes()))
            except ValueError as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1], at
    with pytest.raises(ValueError, match="truncated"):
        EncodedChunk.parse(chunks[1][:-1], like=first)
