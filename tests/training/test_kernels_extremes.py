"""The kernels where sums are largest, and on models that are zero, tiny, huge or no numbers.

Sums of 16 bits on the way to a product would saturate, and sums of 32 bits wrap, where all digits
stand at their limit: there the results are compared with exact integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kernel_cases import LEVELS, KernelCase, assert_same_bits, on_every_level, simd
from zipml_codecs._native import codes_size
from zipml_codecs.reference_sgd import largest_number

STORED = [*range(1, 10), "uint8", "uint16"]  # stored bits, or level tables
MOST_COLUMNS = 131_072


def top_case(
    rows: list[int], columns: int, stored: Any, codes: int | None = None
) -> tuple[KernelCase, int]:
    """All codes, or the entries of all tables, at the top: value = code; and that top."""
    tables = stored if isinstance(stored, str) else None
    bits = 4 if tables else stored
    top = int(np.iinfo(tables).max) if tables else (1 << bits) - 1
    zero, one = np.zeros(columns, "f4"), np.ones(columns, "f4")
    case = KernelCase(
        rows,
        columns,
        bits,
        codes=(1 << bits) - 1,
        tables=tables,
        slope=one,
        offset=zero,
        centre=zero,
        variance=zero,
        l2=zero,
        intercept=np.zeros(1, "f4"),
        targets=[np.zeros((n, 1), "f4") for n in rows],
    )
    if tables:
        case.tables[:] = top
        case.batch = case.tile_batch()
    return case, top


def exact(case: KernelCase, arithmetic: str, **changes: Any) -> Any:
    """Steps of one without a mean over rows: what is subtracted is the sum of the gradient."""
    return case.options(
        arithmetic=arithmetic, batch_rows=1.0, step_first=1.0, step_last=1.0, **changes
    )


@pytest.mark.parametrize("arithmetic", ["int8", "int16"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", LEVELS)
def test_margins_do_not_saturate(name: str, stored: Any, arithmetic: str) -> None:
    for columns in (1, 4, 7, 64, 150):
        case, top = top_case([64], columns, stored)
        most = largest_number(exact(case, arithmetic))
        half = np.where(np.arange(columns) % 2, most, -most)
        for model in (np.full(columns, most), np.full(columns, -most), half):
            case.model[0] = model  # a step of one: nothing is rounded
            with simd(name):
                moved = case.run(exact(case, arithmetic))[1]
            margin = int(model.sum()) * top
            # Powers of two times whole numbers below 2^24 are exact, and so are 64 times them.
            tolerance = 0 if abs(most * top * columns) < 2**24 else 1e-6
            np.testing.assert_allclose(moved, [-64.0 * margin], rtol=tolerance)


@pytest.mark.parametrize("arithmetic", ["int8", "int16"])
@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", LEVELS)
def test_gradients_do_not_saturate(name: str, stored: Any, arithmetic: str) -> None:
    for columns, rows in ((1, 256), (9, 256), (33, 192), (150, 128), (70, 64)):
        case, top = top_case([rows], columns, stored)
        most = largest_number(exact(case, arithmetic))
        sign = np.where(np.arange(rows)[:, None] % 2, 1, -1)
        case.model[:] = 0
        for target in (np.full((rows, 1), -most), np.full((rows, 1), most), most * sign):
            case.targets = [target.astype("f4")]  # with a model of zero, the residuals but for sign
            case.batch = case.tile_batch()
            with simd(name):
                moved = case.run(exact(case, arithmetic, batch_tiles=4))[0]
            gradient = int(target.sum()) * top
            tolerance = 0 if most * top * rows < 2**24 else 1e-6
            np.testing.assert_allclose(moved, np.full((1, columns), gradient), rtol=tolerance)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("name", LEVELS)
def test_as_many_columns_as_a_sum_of_32_bits_holds(name: str, sign: int, bits: int) -> None:
    for columns in (70_456, 100_000, MOST_COLUMNS):
        # All bits set: the top code in each row of a tile, those of the upper digits too.
        given = {"packed": [np.full(codes_size(64, columns, bits), 255, np.uint8)]}
        one, zero = np.ones(columns, "f4"), np.zeros(columns, "f4")
        case = KernelCase(
            [64], columns, bits, codes=0, slope=one, offset=zero, centre=zero, variance=zero,
            l2=zero, intercept=np.zeros(1, "f4"), targets=[np.zeros((64, 1), "f4")], **given,
        )  # fmt: skip
        o = exact(case, "int8")
        case.model[:] = sign * largest_number(o)
        with simd(name):
            moved = case.run(o)[1]
        margin = sign * largest_number(o) * ((1 << bits) - 1) * columns
        assert abs(margin) < 2**31
        np.testing.assert_allclose(moved, [-64 * margin], rtol=1e-6)


@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("tables", [None, "uint8"])
def test_models_beyond_the_ordinary(
    arithmetic: str, split: bool, loss: str, tables: str | None
) -> None:
    case = KernelCase([150, 61], 70, 4, outputs=2, samples=2, seed=5, tables=tables)
    o = case.options(arithmetic=arithmetic, split=split, loss=loss, correction=0.7, batch_tiles=2)
    ordinary = case.model.copy()

    def run(factor: float) -> tuple[Any, ...]:
        with np.errstate(over="ignore"):
            case.model = (ordinary * np.float64(factor)).astype("f4")
        return assert_same_bits(on_every_level(lambda: case.run(o)))

    none = run(0.0)
    assert all(np.isfinite(part).all() for part in none)
    for tiny in (1e-30, 1e-38, 1e-40, 1e-44):  # the last ones are denormal
        for a, b in zip(run(tiny), none, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for part in run(1e10)[:4]:
        assert np.isfinite(part).all()
    run(1e30)  # may overflow, alike everywhere
    for bad in (np.nan, np.inf, -np.inf):
        case.model = ordinary.copy()
        case.model[1, 3] = bad
        model, intercept, _, _, loss_sum, _, _ = assert_same_bits(
            on_every_level(lambda: case.run(o))
        )
        assert np.isfinite(model[0]).all() and np.isfinite(intercept[0])
        assert not np.isfinite(model[1]).any() and not np.isfinite(intercept[1])
        assert not np.isfinite(loss_sum)
        if np.isnan(bad):
            assert np.isnan(model[1]).all() and np.isnan(intercept[1]) and np.isnan(loss_sum)


@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
@pytest.mark.parametrize("split", [False, True])
def test_residuals_of_zero_leave_the_model(arithmetic: str, split: bool) -> None:
    """A model of zero on targets of zero, and targets that the integers hit exactly."""
    case = KernelCase([150], 33, 4, samples=2, seed=6)
    case.targets = [np.zeros((150, 1), "f4")]
    case.model[:], case.intercept[:], case.variance[:], case.l2[:] = 0, 0, 0, 0
    case.batch = case.tile_batch()
    o = case.options(arithmetic=arithmetic, split=split, correction=1.0)
    model, intercept, _, _, loss_sum, _, _ = assert_same_bits(on_every_level(lambda: case.run(o)))
    assert not model.any() and not intercept.any() and loss_sum == 0


@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
def test_a_residual_that_is_no_number_spoils_its_output_only(arithmetic: str) -> None:
    for bad in (np.nan, np.inf):
        case = KernelCase([150], 33, 4, outputs=2, seed=7)
        case.targets[0][140, 1] = bad
        case.batch = case.tile_batch()
        o = case.options(arithmetic=arithmetic)
        model = assert_same_bits(on_every_level(lambda c=case, o=o: c.run(o)))[0]
        assert np.isfinite(model[0]).all()
        assert not np.isfinite(model[1][case.slope != 0]).any()


@pytest.mark.parametrize("arithmetic", ["float", "int16", "int8"])
@pytest.mark.parametrize("loss", ["squared", "logistic"])
@pytest.mark.parametrize("split", [False, True])
def test_the_loss_of_margins_that_left_stays_visible(
    split: bool, loss: str, arithmetic: str
) -> None:
    """Rows that infinite margins classify well would have no loss at all."""
    case = KernelCase([150], 33, 4, samples=2, seed=8, row_scales=True)
    case.targets[0][:], case.intercept[:] = 1, np.inf
    case.batch = case.tile_batch()
    o = case.options(arithmetic=arithmetic, loss=loss, split=split)
    result = assert_same_bits(on_every_level(lambda: case.run(o)))
    assert not np.isfinite(result[4])


def test_no_tiles_and_no_columns() -> None:
    for arithmetic in ("float", "int16", "int8"):
        empty = KernelCase([3], 5, 4, tiles=np.empty((0, 2), np.uint32))
        o = empty.options(arithmetic=arithmetic, batch_tiles=1)
        got = assert_same_bits(on_every_level(lambda o=o, c=empty: c.run(o)))
        assert np.array_equal(got[0], empty.model) and got[4:] == (0.0, 0, 0)
        narrow = KernelCase([70], 0, 4)
        o = narrow.options(arithmetic=arithmetic)
        got = assert_same_bits(on_every_level(lambda o=o, c=narrow: c.run(o)))
        residual = narrow.intercept[0] - narrow.targets[0].mean()
        np.testing.assert_allclose(got[1], narrow.intercept - 0.5 * residual, rtol=1e-5)
