"""docs/format.md is enough to read and write chunks: a program written from it alone does both."""

from __future__ import annotations

import json
import math
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from zipml_codecs import Quantizer, encode_chunk

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text()
GOLDEN = Path(__file__).parents[1] / "golden"
CASES = {
    name: case
    for name, case in json.loads((GOLDEN / "cases.json").read_text()).items()
    if case["quantizer"].get("layout", "packed") == "packed"  # for the others see format_weaved
}


def philox(key, counter):
    x, (k0, k1) = list(counter), key
    for _ in range(10):
        low, high = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(high >> 32) ^ x[1] ^ k0, high & 0xFFFFFFFF, (low >> 32) ^ x[3] ^ k1, low & 0xFFFFFFFF]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


def draw(seed, tile, column, row, sample=0):
    w, rest = divmod(row, 16)
    m, h = divmod(rest, 2)
    tile %= 2**64
    key = seed & 0xFFFFFFFF, seed >> 32
    word = philox(key, (tile & 0xFFFFFFFF, tile >> 32, column, 256 * sample + m))[w]
    return word >> 16 if h else word & 0xFFFF


class Levels:
    """Sections "From code to value" and "Rounding"."""

    def __init__(self, lower, upper, intervals, item_size):
        self.T = T = np.float64 if item_size == 8 else np.float32
        self.L, self.U, self.n, self.item_size = T(lower), T(upper), intervals, item_size
        m = max(abs(self.L), abs(self.U))
        huge, tiny, up = (1022, -510, 510) if item_size == 8 else (126, -60, 80)
        self.f = T(0.25) if m > 2.0**huge else T(2.0**up) if m < 2.0**tiny else T(1)
        self.lo, self.hi = self.L * self.f, self.U * self.f
        self.range = float(self.hi) - float(self.lo)
        self.step = T(self.range / self.n)

    def round(self, x):
        with np.errstate(over="ignore"):
            return np.float32(np.float16(x)) if self.item_size == 2 else x

    def scaled(self, c):
        if c <= 0:
            return self.lo
        if c >= self.n:
            return self.hi
        x = self.lo + self.T(c) * self.step
        if self.f != 1:
            with np.errstate(over="ignore"):
                x = (x / self.f) * self.f
        return min(self.round(x), self.hi)

    def level(self, c):
        return self.L if c <= 0 else self.U if c >= self.n else self.scaled(c) / self.f

    def value(self, z, samples):
        z = min(z, samples * self.n)
        c, e = divmod(z, samples)
        return self.level(c) if e == 0 else self.mean(c, c + 1, e, samples)

    def mean(self, c, d, e, samples):
        low, high = self.scaled(c), self.scaled(d)
        if samples == 2:
            return self.round((low + high) * self.T(0.5) / self.f)
        parts = low * self.T((samples - e) / samples), high * self.T(e / samples)
        return self.round((parts[0] + parts[1]) / self.f)

    def position(self, v):
        inverse = self.T(self.n / self.range) if self.range else self.T(0)
        x = self.T(v) * self.f
        c = min(max(int(np.rint((x - self.lo) * inverse)), 0), self.n)
        near = self.scaled(c)
        sign = 1 if x >= near else -1
        other = self.scaled(c + sign)
        share = 0 if other == near else min(max((x - near) / (other - near), self.T(0)), self.T(1))
        return min(max(65536 * c + sign * int(np.rint(share * self.T(65536))), 0), 65536 * self.n)


class Table:
    """Section "Level tables"."""

    def __init__(self, grid, places):
        self.grid, self.places = grid, places
        self.useful = [k for k in places if k < grid.n] + [grid.n]

    def value(self, z, samples):
        z = min(z, samples * (len(self.places) - 1))
        c, e = divmod(z, samples)
        if e == 0:
            return self.grid.level(self.places[c])
        return self.grid.mean(*self.places[c : c + 2], e, samples)

    def position(self, v):
        x = self.grid.T(v) * self.grid.f
        scaled = [self.grid.scaled(k) for k in self.useful]
        c = max(i for i, level in enumerate(scaled) if level <= x)
        if c == len(scaled) - 1:
            return 65536 * c
        share = (x - scaled[c]) / (scaled[c + 1] - scaled[c])
        return 65536 * c + int(np.rint(share * self.grid.T(65536)))

    def gap(self, c):
        return self.useful[c + 1] - self.useful[c] if c + 1 < len(self.useful) else 0


def field_widths(s):
    return [w for w in (8, 4, 2, 1) if s & w]


def places(rows, columns, s):
    """Where each code lies: yields row, column and its (byte, lowest bit, shift, width)."""
    for row in range(rows):
        t, r = divmod(row, 64)
        slots = min(64, -(-(rows - 64 * t) // 8) * 8)
        for column in range(columns):
            start, shift, parts = t * columns * s * 8, 0, []
            for w in field_widths(s):
                size = slots * w // 8
                i, k = divmod(r, size)
                parts.append((start + column * size + k, i * w, shift, w))
                start, shift = start + columns * size, shift + w
            yield row, column, parts


class Page:
    """A chunk as the page lays it out."""

    def __init__(self, data):
        assert data[:4] == b"ZPML" and data[4] == 1
        (self.bits, self.samples, layout, levels, self.scale, self.item_size, ndim, self.flags) = (
            data[6:14]
        )
        assert layout == 0 and data[5] == (3 if self.samples > 2 else 1 if levels else 0)
        self.table_bytes = levels
        self.seed, self.first_tile, self.imputed = struct.unpack_from("<3Q", data, 16)
        (self.tail,) = struct.unpack_from("<d", data, 40)
        self.rows, self.columns, tables, codes, total = struct.unpack_from("<5Q", data, 48)
        axes = struct.unpack_from(f"<{2 * ndim}Q", data, 88)
        self.shape, self.box = axes[:ndim], axes[ndim:]
        count = self.rows if self.scale else 2 * self.columns
        letter, size = ("d", 8) if self.item_size == 8 else ("f", 4)
        self.scales = struct.unpack_from(f"<{count}{letter}", data, tables)
        assert total == len(data)
        start = -(-(tables + size * count) // 8) * 8
        levels_of = 2**self.bits
        letter = {0: "B", 1: "B", 2: "H"}[levels]
        places = struct.unpack_from(
            f"<{levels_of * self.columns if levels else 0}{letter}", data, start
        )
        self.places = [places[i : i + levels_of] for i in range(0, len(places), levels_of)]
        self.variances = -(-(start + levels * len(places)) // 8) * 8
        self.variance_size = 16 if levels else 8
        assert codes == -(-(self.variances + self.variance_size * self.columns) // 64) * 64
        self.codes = data[codes:]
        self.s = self.bits + int(math.log2(self.samples))

    def levels(self, row, column):
        if self.scale:
            bounds = 0 - self.scales[row], self.scales[row]
        else:
            bounds = self.scales[column], self.scales[self.columns + column]
        if self.table_bytes:
            grid = Levels(*bounds, (256**self.table_bytes - 1) // self.samples, self.item_size)
            return Table(grid, self.places[column])
        return Levels(*bounds, 2**self.bits - 1, self.item_size)

    def decode(self):
        matrix = np.empty((self.rows, self.columns), f"f{self.item_size}")
        for row, column, parts in places(self.rows, self.columns, self.s):
            z = sum(
                ((self.codes[byte] >> bit) & (2**w - 1)) << shift for byte, bit, shift, w in parts
            )
            matrix[row, column] = self.levels(row, column).value(z, self.samples)
        out = np.full(self.shape, self.tail, f"f{self.item_size}")
        out[tuple(map(slice, self.box))] = matrix.reshape(self.box)
        return out

    def encode(self, values):
        """The codes and column variances of the values in the box, by this chunk's scales."""
        box = values[tuple(map(slice, self.box))]
        matrix = np.ascontiguousarray(box).reshape(self.rows, self.columns)
        codes, variances = bytearray(len(self.codes)), [0] * self.columns
        for row, column, parts in places(self.rows, self.columns, self.s):
            levels = self.levels(row, column)
            base, p = divmod(levels.position(matrix[row, column]), 65536)
            tile, k = self.first_tile + row // 64, self.samples
            u = draw(self.seed, tile, column, row % 64)
            if k == 1:
                z = base + (u < p)
            elif k > 2:
                own = (draw(self.seed, tile, column, row % 64, i) for i in range(k))
                z = k * base + sum(u < p for u in own)
            else:
                h = p * p // 65536
                z = 2 * base + (u < h) + (u < 2 * p - h)
            for byte, bit, shift, w in parts:
                codes[byte] |= ((z >> shift) & (2**w - 1)) << bit
            gap = levels.gap(base) if self.table_bytes else 1
            variances[column] += p * (65536 - p) * gap**2
        return bytes(codes), variances


@pytest.mark.parametrize("name", CASES)
def test_a_reader_written_from_the_page_decodes_the_golden_chunks(name):
    page = Page((GOLDEN / f"{name}.zipml-chunk").read_bytes())
    expected = np.load(GOLDEN / f"{name}.decoded.npy")
    assert np.array_equal(page.decode(), expected, equal_nan=True)
    assert bool(page.flags & 1) == (expected.dtype.byteorder == ">")
    assert bool(page.flags & 2) == (not expected.flags.c_contiguous)


@pytest.mark.parametrize("name", [name for name in CASES if "imputed" not in name])
def test_a_writer_written_from_the_page_makes_the_golden_codes(name):
    data = (GOLDEN / f"{name}.zipml-chunk").read_bytes()
    page = Page(data)
    codes, variances = page.encode(np.load(GOLDEN / f"{name}.input.npy"))
    assert codes == page.codes
    if not page.scale:
        size = page.variance_size
        stored = b"".join(v.to_bytes(size, "little") for v in variances)
        assert data[page.variances :][: size * page.columns] == stored


def test_the_worked_example_of_the_page_is_what_the_codec_writes():
    lines = re.findall(r"^[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", PAGE, re.M)
    data = bytes.fromhex("".join(lines))
    values = np.array([[0, 10], [0.25, 10], [1, 40], [0.5, 20], [0.9, 25]], "f4")
    chunk_shape = (8, 2)
    quantizer = Quantizer(bits=3, samples=2, seed=1)
    assert encode_chunk(values, quantizer, first_tile=0, chunk_shape=chunk_shape) == data
    assert len(data) == 200 and math.isclose(Page(data).decode()[1, 0], 1.5 / 7, rel_tol=1e-6)
