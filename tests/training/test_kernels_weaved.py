"""The training kernels on bit planes: every instruction set, against the NumPy reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import KernelCase, agrees, assert_same_bits, on_every_level, packed
from zipml_codecs import TILE_ROWS
from zipml_codecs import reference_sgd as reference
from zipml_codecs._native import TileBatch
from zipml_codecs.reference_sgd import ReferenceOptions, ReferenceTile

ARITHMETICS = ["float", "int16", "int8"]


class WeavedCase(KernelCase):
    """Random bits in planes: any of them may be set, the last level and what lies beyond too."""

    def __init__(self, rows: list[int], columns: int, bits: int, samples: int, **options: Any):
        rng = np.random.default_rng(options.get("seed", 0) + 77)
        top = 1 << bits
        self.bases = [rng.integers(0, top, (n, columns)) for n in rows]
        for base in self.bases:
            base[rng.random(base.shape) < 0.1] = top - 1
        self.ups = [rng.integers(0, 2, (samples, n, columns)) for n in rows]
        planes = [
            np.concatenate(
                [packed(base >> bit & 1, 1) for bit in reversed(range(bits))]
                + [packed(u, 1) for u in up]
            )
            for base, up in zip(self.bases, self.ups, strict=True)
        ]
        stored = bits + samples
        super().__init__(rows, columns, stored, samples=samples, packed=planes, **options)
        pairs = zip(self.bases, self.ups, strict=True)
        self.codes = [samples * base + up.sum(axis=0) for base, up in pairs]

    def tile_batch(self, **changes: Any) -> TileBatch:
        return super().tile_batch(**({"woven": self.samples} | changes))

    def options(self, **changes: Any) -> ReferenceOptions:
        return super().options(**({"woven": self.samples} | changes))

    def reference_tiles(self) -> list[ReferenceTile]:
        tiles = []
        for tile, (c, t) in zip(super().reference_tiles(), self.tiles.tolist(), strict=True):
            part = slice(t * TILE_ROWS, (t + 1) * TILE_ROWS)
            tiles.append(replace(tile, first=(self.bases[c] + self.ups[c][0])[part]))
        return tiles


@st.composite
def cases(draw: Any) -> tuple[WeavedCase, bool]:
    samples = draw(st.sampled_from([1, 2]))
    case = WeavedCase(
        draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)),
        draw(st.integers(1, 150)),
        draw(st.integers(1, 8)),
        samples,
        outputs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
        row_scales=draw(st.booleans()),
    )
    return case, samples == 2 and draw(st.booleans())


options = {
    "loss": st.sampled_from(["squared", "logistic"]),
    "correction": st.sampled_from([0.0, 1.0]),
    "arithmetic": st.sampled_from(ARITHMETICS),
}


@settings(max_examples=300)
@given(case=cases(), batch_tiles=st.integers(1, 6), **options)
def test_every_instruction_set_gives_the_same_bits(
    case: tuple[WeavedCase, bool], **changes: Any
) -> None:
    kernel_case, split = case
    o = kernel_case.options(split=split, **changes)
    assert_same_bits(on_every_level(lambda: kernel_case.run(o)))


@settings(max_examples=300)
@given(case=cases(), **options)
def test_a_mini_batch_agrees_with_the_reference(
    case: tuple[WeavedCase, bool], **changes: Any
) -> None:
    kernel_case, split = case
    agrees(kernel_case, kernel_case.options(split=split, **changes))


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize(("bits", "samples"), [(2, 1), (4, 2), (7, 2), (8, 1), (8, 2)])
def test_wide_tiles(bits: int, samples: int, arithmetic: str) -> None:
    case = WeavedCase([130, 300], 1030, bits, samples, outputs=2)
    for split in [False, True][:samples]:
        o = case.options(arithmetic=arithmetic, split=split, batch_tiles=5)
        assert_same_bits(on_every_level(lambda o=o: case.run(o)))
    agrees(case, case.options(arithmetic=arithmetic))


@settings(max_examples=100)
@given(case=cases())
def test_margins_gradient_moments_and_norms(case: tuple[WeavedCase, bool]) -> None:
    c, _ = case
    c.offset[:], c.centre[:] = 0, 0
    c.slope[:] = 1  # the last level is off by its sum alone
    c.batch = c.tile_batch()
    o, tiles = c.options(), c.reference_tiles()

    def run() -> tuple[np.ndarray, ...]:
        rows, d = c.batch.rows, c.columns
        margins = np.empty((rows, c.outputs), "f4")
        gradient, moments, sums = np.empty((c.outputs, d)), np.empty((d, d)), np.empty(d)
        norms = np.empty(rows, "f4")
        c.batch.margins(c.model, c.intercept, margins)
        residuals = np.resize(np.linspace(-1, 1, 77, dtype="f4"), (rows, c.outputs)).copy()
        c.batch.gradient(residuals, gradient)
        c.batch.gram(moments, sums)
        c.batch.square_norms(norms)
        return margins, gradient, moments, sums, norms, residuals

    margins, gradient, moments, sums, norms, residuals = assert_same_bits(on_every_level(run))
    model, intercept = c.model.astype("f8"), c.intercept.astype("f8")
    expected = np.concatenate([reference.margins(t, o, model, intercept) for t in tiles])
    scale = max(np.abs(expected).max(), 1)
    np.testing.assert_allclose(margins, expected, atol=1e-4 * scale)
    parts = np.split(residuals.astype("f8"), np.cumsum([len(t.codes) for t in tiles])[:-1])
    total = sum(reference.gradient(t, o, r) for t, r in zip(tiles, parts, strict=True))
    np.testing.assert_allclose(gradient, total, atol=1e-5 * max(np.abs(total).max(), 1) * 64)
    wanted = reference.gram(tiles, o)
    np.testing.assert_array_equal(moments, wanted[0])
    np.testing.assert_array_equal(sums, wanted[1])
    squares = np.concatenate([reference.square_norms(t, o) for t in tiles])
    np.testing.assert_allclose(norms, squares, rtol=1e-5)


def test_sizes_are_checked() -> None:
    case = WeavedCase([100], 5, 3, 2)
    for changes, message in (
        ({"woven": 3}, "one or two sample planes"),
        ({"stored_bits": 2}, "1 to 8 base planes"),
        ({"stored_bits": 11}, "1 to 8 base planes"),
        ({"stored_bits": 4}, "wrong size"),
        ({"tables": np.zeros((5, 32), "u1")}, "packed layout"),
    ):
        with pytest.raises(ValueError, match=message):
            case.tile_batch(**changes)
    one = WeavedCase([100], 5, 3, 1)
    with pytest.raises(ValueError, match="two samples"):
        one.run(one.options(split=True))
