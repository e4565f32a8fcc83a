"""What docs/format.md says of weaved codes is enough to read and write them."""

from __future__ import annotations

import json
import struct

import google_crc32c
import numpy as np
import pytest
from test_codec_format_page import GOLDEN, Levels, philox, places

ALL = json.loads((GOLDEN / "cases.json").read_text())
CASES = [name for name, case in ALL.items() if case["quantizer"].get("layout") == "weaved"]


def draw(seed, tile, column, row, precision, sample):
    w, rest = divmod(row, 16)
    m, h = divmod(rest, 2)
    last = 7 * 2**24 + 2**8 * (2 * precision + sample) + m
    tile %= 2**64
    key = seed & 0xFFFFFFFF, seed >> 32
    word = philox(key, (tile & 0xFFFFFFFF, tile >> 32, column, last))[w]
    return word >> 16 if h else word & 0xFFFF


class WeavedPage:
    """A weaved chunk as the page lays it out."""

    def __init__(self, data):
        assert data[:6] == b"ZPML\1\2"
        self.bits, self.samples, layout, levels, scale, self.item_size, ndim = data[6:13]
        assert (layout, levels, scale, data[15]) == (1, 0, 0, 0)
        self.precisions = [k for k in range(1, 9) if data[14] >> (k - 1) & 1]
        assert self.precisions[-1] == self.bits
        self.seed, self.first_tile = struct.unpack_from("<2Q", data, 16)
        self.rows, self.columns, tables, codes, total = struct.unpack_from("<5Q", data, 48)
        axes = struct.unpack_from(f"<{2 * ndim}Q", data, 88)
        self.shape, self.box = axes[:ndim], axes[ndim:]
        self.planes = self.bits + self.samples * len(self.precisions)
        head = 88 + 16 * ndim
        assert codes == -(-(head + 4 * (self.planes + 3)) // 64) * 64
        slots = [64] * (self.rows // 64) + [-(-(self.rows % 64) // 8) * 8]
        size = self.columns * sum(slots) // 8
        assert tables == -(-(codes + self.planes * size) // 8) * 8
        letter, item = ("d", 8) if self.item_size == 8 else ("f", 4)
        self.scales = struct.unpack_from(f"<{2 * self.columns}{letter}", data, tables)
        variances = -(-(tables + item * 2 * self.columns) // 8) * 8
        count = len(self.precisions) * self.columns
        self.variances = list(struct.unpack_from(f"<{count}Q", data, variances))
        assert total == len(data) == variances + 8 * count
        self.plane = [data[codes + i * size : codes + (i + 1) * size] for i in range(self.planes)]
        parts = [data[tables : tables + item * 2 * self.columns], data[variances:], *self.plane]
        sums = struct.unpack_from(f"<{self.planes + 3}I", data, head)
        assert sums[:-1] == tuple(map(google_crc32c.value, parts))
        assert sums[-1] == google_crc32c.value(data[: head + 4 * (self.planes + 2)])

    def sample_planes(self, precision):
        above = sum(k > precision for k in self.precisions)
        first = self.bits + self.samples * above
        return range(first, first + self.samples)

    def levels(self, column, precision):
        bounds = self.scales[column], self.scales[self.columns + column]
        return Levels(*bounds, 2**precision, self.item_size)

    def decode(self, precision):
        matrix = np.empty((self.rows, self.columns), f"f{self.item_size}")
        for row, column, [(byte, bit, _, _)] in places(self.rows, self.columns, 1):
            base = 0
            for plane in self.plane[:precision]:
                base = 2 * base + (plane[byte] >> bit & 1)
            up = sum(self.plane[i][byte] >> bit & 1 for i in self.sample_planes(precision))
            z = self.samples * base + up
            matrix[row, column] = self.levels(column, precision).value(z, self.samples)
        out = np.zeros(self.shape, f"f{self.item_size}")
        out[tuple(map(slice, self.box))] = matrix.reshape(self.box)
        return out

    def encode(self, values):
        matrix = values[tuple(map(slice, self.box))].reshape(self.rows, self.columns)
        planes = [bytearray(len(plane)) for plane in self.plane]
        variances = [0] * len(self.variances)
        for row, column, [(byte, bit, _, _)] in places(self.rows, self.columns, 1):
            position = self.levels(column, self.bits).position(matrix[row, column])
            last = position == 65536 * 2**self.bits
            base = 2**self.bits - 1 if last else position // 65536
            for i in range(self.bits):
                planes[i][byte] |= (base >> (self.bits - 1 - i) & 1) << bit
            for number, k in enumerate(self.precisions):
                r = 2 ** (self.bits - k)
                p = min((position % (65536 * r) + r // 2) // r, 65535)
                variances[number * self.columns + column] += p * (65536 - p)
                for s, plane in enumerate(self.sample_planes(k)):
                    tile = self.first_tile + row // 64
                    u = draw(self.seed, tile, column, row % 64, k, s)
                    planes[plane][byte] |= (last or u < p) << bit
        return list(map(bytes, planes)), variances


@pytest.mark.parametrize("name", CASES)
def test_a_reader_written_from_the_page_decodes_the_golden_chunks_at_every_precision(name):
    from zipml_codecs import EncodedChunk

    data = (GOLDEN / f"{name}.zipml-chunk").read_bytes()
    page = WeavedPage(data)
    assert np.array_equal(page.decode(page.bits), np.load(GOLDEN / f"{name}.decoded.npy"))
    for precision in page.precisions:
        ours = EncodedChunk.parse(data, precision).decode()
        assert np.array_equal(page.decode(precision), ours)


@pytest.mark.parametrize("name", CASES)
def test_a_writer_written_from_the_page_makes_the_golden_planes(name):
    page = WeavedPage((GOLDEN / f"{name}.zipml-chunk").read_bytes())
    planes, variances = page.encode(np.load(GOLDEN / f"{name}.input.npy"))
    assert planes == page.plane
    assert variances == page.variances
