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
        assert alike.precision == alone.precision
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
