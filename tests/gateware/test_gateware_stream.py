"""Packets carry the bytes of the packed layout."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zipml_codecs import EncodedChunk, Quantizer, encode_chunk
from zipml_codecs.reference import unpack_codes

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.gateware.floats import float_codes, float_packet
from zipml_ooc.gateware.formats import NO_ROW, Format
from zipml_ooc.gateware.reference import Tile
from zipml_ooc.gateware.stream import chunk_packets, pack, unpack


def chunk(rows: int, columns: int, **options: object) -> EncodedChunk:
    values = np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)
    return EncodedChunk.parse(encode_chunk(values, Quantizer(**options)))


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 4, 8]), st.sampled_from([8, 16, 32, 64]))
def test_a_packet_gives_its_tile_back(seed: int, bits: int, lanes: int) -> None:
    rng = np.random.default_rng(seed)
    form, columns = Format(bits, lanes), int(rng.integers(1, 9))
    codes = rng.integers(0, 1 << bits, (lanes, columns))
    tile = Tile(codes, rng.integers(-(1 << 15), 1 << 15, lanes))
    packet = pack(tile, form)
    assert packet.shape == (16 // bits + columns, lanes * bits // 8)
    back = unpack(packet, form)
    assert (back.codes == tile.codes).all()
    assert (back.targets == tile.targets).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16]))
def test_a_packet_of_floats_gives_its_tile_back(seed: int, lanes: int) -> None:
    rng = np.random.default_rng(seed)
    form, columns = Format(16, lanes), int(rng.integers(1, 9))
    codes = rng.integers(0, 1 << 16, (lanes, columns))
    tile = Tile(codes, rng.integers(-(1 << 15), 1 << 15, lanes))
    packet = pack(tile, form)
    assert packet.shape == (1 + columns, lanes * 4)
    back = unpack(packet, form)
    assert (back.codes == tile.codes).all()
    assert (back.targets == tile.targets).all()


def test_float32_become_the_nearest_codes() -> None:
    x = [0, -0.0, 1, -1, 2.0**-13, -(2.0**-13), 2.0**-13 - 2.0**-30, 1e-40, 7.99999, 8, -8, 1e9]
    x += [-1e9, np.inf, -np.inf, np.nan, 1.5 * 2.0**-12, -1.5 * 2.0**-12]
    expected = [0, 0, 4096, -4096, 1, 0, 0, 0, 32767, 32767, -32768, 32767]
    expected += [-32768, 32767, -32768, 32767, 2, -1]
    assert float_codes(x).tolist() == [code + (1 << 15) for code in expected]


def test_a_packet_of_few_rows_marks_the_others() -> None:
    form = Format(16, 16)
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    packet = float_packet(values, np.arange(5), form)
    assert packet[1:].view("<f4").reshape(3, 16)[:, :5].T.tolist() == values.tolist()
    tile = unpack(packet, form)
    assert tile.targets.tolist() == [0, 1, 2, 3, 4] + [NO_ROW] * 11


@pytest.mark.parametrize(("bits", "samples"), [(1, 1), (2, 1), (4, 1), (8, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("rows", [64, 128, 130, 75, 3, 127])
def test_packets_of_a_chunk_hold_its_bytes_and_codes(bits: int, samples: int, rows: int) -> None:
    encoded = chunk(rows, 5, bits=bits, samples=samples)
    form = Format(bits + samples - 1)
    targets = np.arange(rows) - 40
    packets = chunk_packets(encoded, targets, form)
    whole = rows // 64
    beats = [packet[form.target_beats :] for packet in packets]
    own = encoded.codes[: whole * 5 * 8 * form.bits]
    assert np.array_equal(np.concatenate([own[:0], *(b.ravel() for b in beats[:whole])]), own)
    tiles = [unpack(packet, form) for packet in packets]
    found = np.concatenate([tile.codes for tile in tiles])
    assert (found[:rows] == unpack_codes(encoded.codes, rows, 5, form.bits)).all()
    marks = np.concatenate([tile.targets for tile in tiles])
    assert (marks[:rows] == targets).all()
    assert (marks[rows:] == NO_ROW).all()


@pytest.mark.parametrize(
    ("options", "form"),
    [
        ({"bits": 4, "levels": "optimal"}, Format(4)),
        ({"bits": 4, "scale": "row"}, Format(4)),
        ({"bits": 4, "layout": "weaved"}, Format(4)),
        ({"bits": 4}, Format(8)),
        ({"bits": 4, "samples": 2}, Format(4)),
        ({"bits": 4}, Format(4, lanes=32)),
    ],
)
def test_other_chunks_are_refused(options: dict[str, object], form: Format) -> None:
    with pytest.raises(DataError, match=r"accelerator takes|do not fit"):
        chunk_packets(chunk(64, 3, **options), np.zeros(64, np.int64), form)


@pytest.mark.parametrize("targets", [np.zeros(63), np.zeros(65), np.full(64, 1 << 15)])
def test_targets_that_do_not_fit_the_chunk_are_refused(targets: np.ndarray) -> None:
    with pytest.raises(DataError, match="64 rows needs as many targets, of 16 bits"):
        chunk_packets(chunk(64, 3, bits=4), targets.astype(np.int64), Format(4))


@pytest.mark.parametrize(
    ("rows", "targets"), [(9, [0] * 9), (3, [0] * 8), (2, [0, 1 << 15]), (2, [0, -40000])]
)
def test_floats_and_targets_that_fit_no_tile_are_refused(rows: int, targets: list[int]) -> None:
    with pytest.raises(DataError, match=f"as many rows at most .* got {rows} rows"):
        float_packet(np.zeros((rows, 3), np.float32), np.array(targets), Format(16, 8))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 3},
        {"bits": 4.0},
        {"bits": "4"},
        {"lanes": 12},
        {"lanes": float("nan")},
        {"depth": 100},
        {"depth": 32},
        {"depth": 64.0},
        {"depth": "64"},
    ],
)
def test_gateware_is_built_for_certain_sizes(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Format(**{"bits": 4, **wrong})
