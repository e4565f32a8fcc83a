"""The kernels in every arithmetic, on every instruction set, against the NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import FIRST_TILE, KernelCase, agrees, assert_same_bits, on_every_level, start
from zipml_codecs import reference_sgd as reference
from zipml_codecs.reference_sgd import ReferenceOptions
from zipml_codecs.rng import split_mask

ARITHMETICS = ["float", "int16", "int8"]


@st.composite
def cases(draw: Any) -> tuple[KernelCase, bool]:
    """A case, and whether its gradient is that of two samples."""
    samples = draw(st.sampled_from([1, 2]))
    tables = draw(st.sampled_from([None, None, "uint8", "uint16"]))
    bits = draw(st.integers(1, 8)) + samples - 1
    case = KernelCase(
        draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)),
        draw(st.integers(1, 150)),
        min(bits, 8) if tables else bits,
        outputs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
        samples=samples,
        row_scales=draw(st.booleans()),
        tables=tables,
    )
    return case, samples == 2 and draw(st.booleans())


options = {
    "loss": st.sampled_from(["squared", "logistic"]),
    "correction": st.sampled_from([0.0, 0.6, 1.0]),
    "arithmetic": st.sampled_from(ARITHMETICS),
    "fit_intercept": st.booleans(),
}


@settings(max_examples=400)
@given(
    case=cases(), batch_tiles=st.integers(1, 6), average_from=st.integers(0, 3), **options
)  # fmt: skip
def test_every_instruction_set_gives_the_same_bits(
    case: tuple[KernelCase, bool], **changes: Any
) -> None:
    kernel_case, split = case
    o = kernel_case.options(split=split, **changes)
    result = assert_same_bits(on_every_level(lambda: kernel_case.run(o)))
    assert result[5] == sum(kernel_case.rows)
    assert result[6] == max(0, -(-len(kernel_case.tiles) // o.batch_tiles) - o.average_from)


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize(
    ("rows", "columns", "bits", "tables"),
    [
        ([130, 300], 1030, 3, None),
        ([400], 1030, 5, "uint8"),
        ([260], 5000, 1, None),
        ([300], 5000, 4, None),  # 160 KB a tile: groups of one
        ([200], 5000, 9, None),
        ([400], 1030, 8, None),
        ([400], 1030, 8, "uint16"),
    ],
)
def test_wide_tiles(
    rows: list[int], columns: int, bits: int, tables: str | None, arithmetic: str
) -> None:
    samples = min(bits, 2)
    case = KernelCase(rows, columns, bits, outputs=2, samples=samples, tables=tables, seed=bits)
    for split in [False] if bits == 1 else [False, True]:
        o = case.options(arithmetic=arithmetic, split=split, batch_tiles=5)
        assert_same_bits(on_every_level(lambda o=o: case.run(o)))
    agrees(case, case.options(arithmetic=arithmetic))


@settings(max_examples=400)
@given(case=cases(), **options)
def test_a_mini_batch_agrees_with_the_reference(
    case: tuple[KernelCase, bool], **changes: Any
) -> None:
    kernel_case, split = case
    agrees(kernel_case, kernel_case.options(split=split, **changes))


@settings(max_examples=400)
@given(
    case=cases(), arithmetic=st.sampled_from(["int8", "int16"]), draw=st.integers(0, 2**32 - 1)
)  # fmt: skip
def test_residuals_are_rounded_like_those_of_the_reference(
    case: tuple[KernelCase, bool], arithmetic: str, draw: int
) -> None:
    """On whole numbers single precision is exact until residuals are rounded: all must agree.

    The largest factor is what the digits hold: the step is one, and the model is not rounded.
    """
    c, split = case
    rng = np.random.default_rng(draw)
    c.slope[:], c.variance[:], c.l2[:] = 1, 0, 0
    c.offset[:], c.centre[:] = rng.integers(-3, 4, (2, c.columns))
    c.row_scales = [
        None if s is None else (2.0 ** rng.integers(-1, 2, len(s))).astype("f4")
        for s in c.row_scales
    ]
    if c.tables is not None:
        c.tables = (c.tables.astype(int) % 1000).astype(c.tables.dtype)
    c.batch = c.tile_batch()
    o = c.options(split=split, arithmetic=arithmetic, draw=draw, step_first=1.0, batch_rows=64.0)
    c.model[:] = rng.integers(-20, 21, c.model.shape)
    c.model[:, rng.integers(c.columns)] = reference.largest_number(o)
    c.intercept[:] = rng.integers(-5, 6, c.outputs)
    got = c.run(o)
    expected = reference.sgd(c.reference_tiles(), o, *start(c))
    scale = np.abs(expected[0] - c.model).max()
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=2e-6 * scale)
    np.testing.assert_allclose(got[1], expected[1], rtol=2e-6)
    np.testing.assert_allclose(got[4], expected[4], rtol=2e-6)


@pytest.mark.parametrize("arithmetic", ["int8", "int16"])
@pytest.mark.parametrize("tables", [None, "uint8"])
def test_each_mini_batch_rounds_the_model_with_its_own_draws(
    arithmetic: str, tables: str | None
) -> None:
    """With steps of zero the model stays; the loss shows what it was rounded to."""
    losses = []
    case = KernelCase([500], 70, 4, outputs=2, seed=3, tables=tables)
    for batch_tiles in (1, 2, 3, 8):
        o = case.options(arithmetic=arithmetic, batch_tiles=batch_tiles, step_first=0, step_last=0)
        got = case.run(o)
        assert np.array_equal(got[0], case.model)
        losses.append(got[4])
        expected = reference.sgd(case.reference_tiles(), o, *start(case))
        np.testing.assert_allclose(got[4], expected[4], rtol=2e-6)
    assert len(set(losses)) == 4


@settings(max_examples=200)
@given(case=cases())
def test_margins_gradient_gram_and_norms(case: tuple[KernelCase, bool]) -> None:
    c, _ = case
    o, tiles = c.options(), c.reference_tiles()
    residual = np.random.default_rng(1).standard_normal((c.batch.rows, c.outputs)).astype("f4")
    counts = np.cumsum([len(t.codes) for t in tiles])[:-1]

    def run() -> tuple[Any, ...]:
        out = (
            np.empty((c.batch.rows, c.outputs), "f4"),
            np.empty((c.outputs, c.columns)),
            np.empty(c.batch.rows, "f4"),
            np.empty((c.columns, c.columns)),
            np.empty(c.columns),
        )
        c.batch.margins(c.model, c.intercept, out[0])
        c.batch.gradient(residual, out[1])
        c.batch.square_norms(out[2])
        c.batch.gram(out[3], out[4])
        return out

    margins, gradient, norms, *moments = assert_same_bits(on_every_level(run))
    expected = np.concatenate([reference.margins(t, o, *start(c)) for t in tiles])
    np.testing.assert_allclose(margins, expected, rtol=2e-5, atol=1e-4)
    parts = np.split(residual.astype("f8"), counts)
    expected = sum(reference.gradient(t, o, r) for t, r in zip(tiles, parts, strict=True))
    np.testing.assert_allclose(gradient, expected, rtol=2e-5, atol=2e-3)
    expected = np.concatenate([reference.square_norms(t, o) for t in tiles])
    np.testing.assert_allclose(norms, expected, rtol=2e-5, atol=1e-5)
    for a, b in zip(moments, reference.gram(tiles, o), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.parametrize("bits", range(2, 10))
@pytest.mark.parametrize("tables", [None, "uint8"])
def test_split_follows_the_mask(bits: int, tables: str | None) -> None:
    """One row a call: model and intercept tell the two samples apart, column by column."""
    if tables and bits == 9:
        return
    columns, rows, eta = 35, 64, 1.0
    case = KernelCase([rows], columns, bits, samples=2, seed=3 * bits + 1)
    case.slope[:], case.offset[:], case.centre[:] = 1, 0, 0
    case.row_scales, case.targets = [np.zeros(rows, "f4")], [np.ones((rows, 1), "f4")]
    case.model[:], case.intercept[:] = 0, 0
    case.model[0, :] = 1
    if tables:  # entries that are the codes: nothing changes
        case.tables = np.tile(np.arange(1 << bits, dtype=tables), (columns, 1))
    for r in (0, 1, 7, 8, 9, 31, 32, 63):
        # Only row r has a scale: the gradient is what its samples make of its residuals.
        case.row_scales[0][:] = 0
        case.row_scales[0][r] = 1
        case.batch = case.tile_batch()
        o = case.options(
            split=True, batch_rows=1.0, step_first=eta, l2=np.zeros(columns), fit_intercept=False
        )
        z = case.codes[0][r]
        masks = [split_mask(o.seed, FIRST_TILE, j, o.draw) for j in range(columns)]
        up = (np.array(masks, np.uint64) >> np.uint64(8 * (r % 8) + r // 8)) & np.uint64(1)
        first = z // 2 + (z % 2) * up.astype(int)
        q1, q2 = 2 * first, 2 * (z - first)
        gradient = 0.5 * (q1 * (q2.sum() - 1.0) + q2 * (q1.sum() - 1.0))
        got = case.run(replace_zero_variance(o))[0]
        np.testing.assert_allclose(case.model[0] - got[0], gradient, rtol=1e-5, atol=1e-2)


def replace_zero_variance(o: ReferenceOptions) -> ReferenceOptions:
    return ReferenceOptions(**{**vars(o), "variance": 0 * o.variance})


def call(case: KernelCase, **changes: Any) -> None:
    case.run(case.options(**changes))


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (np.zeros((4, 8), "u1"), "one entry for each code"),
        (np.zeros((5, 16), "u1"), "one entry for each code"),
        (np.zeros((4, 16), "u4"), "uint8 or uint16"),
        (np.zeros((4, 16), "i1"), "uint8 or uint16"),
        (np.zeros((4, 16), "f4"), "uint8 or uint16"),
    ],
)
def test_level_tables_are_checked(tables: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelCase([64], 4, 4).tile_batch(tables=tables)


def test_requests_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="up to eight stored bits"):
        KernelCase([64], 4, 9).tile_batch(tables=np.zeros((4, 512), "u2"))
    with pytest.raises(ValueError, match="float, int16 or int8"):
        call(KernelCase([64], 4, 4), arithmetic="int4")
    with pytest.raises(ValueError, match="unknown loss"):
        call(KernelCase([64], 4, 4), loss="absolute")
    with pytest.raises(ValueError, match="no two samples"):
        call(KernelCase([64], 4, 1), split=True)
    with pytest.raises(ValueError, match="at least one tile"):
        call(KernelCase([64], 4, 1), batch_tiles=0)
    wide = KernelCase([1], 131_073, 1, codes=1)
    for arithmetic in ("int8", "int16"):
        with pytest.raises(ValueError, match="up to 131072 columns"):
            call(wide, arithmetic=arithmetic)
    call(wide, arithmetic="float")
    case = KernelCase([64], 4, 4)
    with pytest.raises(ValueError, match="columns x columns"):
        case.batch.gram(np.empty((4, 5)), np.empty(4))
    with pytest.raises(ValueError, match="one norm a row"):
        case.batch.square_norms(np.empty(63, "f4"))
