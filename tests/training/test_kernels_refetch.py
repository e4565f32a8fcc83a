"""Rows of the hinge loss read again, in the kernels: decisions, instruction sets, the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from kernel_cases import assert_same_bits, on_every_level, packed
from test_kernels_weaved import WeavedCase
from zipml_codecs import TILE_ROWS
from zipml_codecs._native import TileBatch
from zipml_codecs.reference_refetch import Refetched, WovenTile, middles, mini_batch, reach
from zipml_codecs.reference_sgd import ReferenceOptions, _seen_model, affine_values, proximal

ARITHMETICS = ["float", "int16", "int8"]


def planes_of(base: np.ndarray, up: np.ndarray, bits: int) -> np.ndarray:
    """Base planes, highest first, and sample planes."""
    bases = [packed(base >> bit & 1, 1) for bit in reversed(range(bits))]
    return np.concatenate(bases + [packed(u, 1) for u in up])


class RefetchCase(WeavedCase):
    """Random bits at all precisions; `bits` of the base and own samples are what is read first."""

    def __init__(
        self, rows: list[int], columns: int, bits: int, whole: int, samples: int, **o: Any
    ):
        rng = np.random.default_rng(o.get("seed", 0) + 5)
        self.whole_bits = whole
        super().__init__(rows, columns, bits, samples, shuffle=True, **o)
        more = whole - bits
        self.whole_bases = [
            (base << more) + rng.integers(0, 1 << more, base.shape) for base in self.bases
        ]
        self.whole_ups = [rng.integers(0, 2, up.shape) for up in self.ups]
        self.asked: list[tuple[int, int]] = []
        self.pack()

    def pack(self) -> None:
        """Put the bits into planes again, after they were changed."""
        few = self.stored_bits - self.samples
        self.packed = [planes_of(b, u, few) for b, u in zip(self.bases, self.ups, strict=True)]
        pairs = zip(self.bases, self.ups, strict=True)
        self.codes = [self.samples * base + up.sum(axis=0) for base, up in pairs]
        pairs = zip(self.whole_bases, self.whole_ups, strict=True)
        self.planes = [planes_of(base, up, self.whole_bits) for base, up in pairs]

    def fresh(self) -> tuple[TileBatch, Any]:
        """A batch that has no planes but those of few bits, and what fetches the others."""
        stored = self.whole_bits + self.samples
        present = [np.zeros(-(-n // TILE_ROWS), np.uint8) for n in self.rows]
        held = [np.full(planes.shape, 0xA5, np.uint8) for planes in self.planes]
        self.asked = []

        def fetch(tiles: list[tuple[int, int]]) -> None:
            for chunk, tile in tiles:
                assert not present[chunk][tile]
                self.asked.append((chunk, tile))
                size = len(self.planes[chunk]) // stored
                start, stop = (8 * self.columns * t for t in (tile, tile + 1))
                for plane in range(stored):
                    part = slice(plane * size + start, plane * size + min(stop, size))
                    held[chunk][part] = self.planes[chunk][part]
                present[chunk][tile] = 1

        return self.tile_batch(whole=(held, present, stored)), fetch

    def woven_tiles(self) -> list[WovenTile]:
        out = []
        for few, (c, t) in zip(self.reference_tiles(), self.tiles.tolist(), strict=True):
            part = slice(t * TILE_ROWS, (t + 1) * TILE_ROWS)
            base, up = self.whole_bases[c][part], self.whole_ups[c][:, part]
            codes = self.samples * base + up.sum(axis=0)
            out.append(WovenTile(few, replace(few, codes=codes), self.bases[c][part]))
        return out

    def refetch(self, o: ReferenceOptions) -> tuple[Any, ...]:
        """Model, intercept, their sums, loss, rows read again and slots of their tiles."""
        batch, fetch = self.fresh()
        model, intercept = self.model.copy(), self.intercept.copy()
        model_sum, intercept_sum = np.zeros(model.shape), np.zeros(self.outputs)
        counts = np.zeros(2, np.uint64)
        names = (
            "loss arithmetic split correction fit_intercept batch_tiles batch_rows step_first "
            "step_last average_from seed draw"
        )
        loss, _, _ = batch.sgd(
            model=model, intercept=intercept, model_sum=model_sum, intercept_sum=intercept_sum,
            variance=o.variance.astype("f4"), l2=o.l2.astype("f4"), fetch=fetch, refetched=counts,
            **{name: getattr(o, name) for name in names.split()},
        )  # fmt: skip
        return model, intercept, model_sum, intercept_sum, loss, *counts.tolist()


@st.composite
def cases(draw: Any) -> RefetchCase:
    bits = draw(st.integers(1, 7))
    case = RefetchCase(
        draw(st.lists(st.integers(1, 200), min_size=1, max_size=3)),
        draw(st.integers(1, 100)),
        bits,
        draw(st.integers(bits + 1, 8)),
        draw(st.sampled_from([1, 2])),
        outputs=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 1000)),
        weighted=draw(st.booleans()),
    )
    scale = draw(st.sampled_from([0.1, 1.0, 10.0]))  # few rows, many, hardly any are near the kink
    case.model *= np.float32(scale)
    return case


def expected(case: RefetchCase, o: ReferenceOptions) -> Refetched:
    model, intercept = case.model.astype("f8"), case.intercept.astype("f8")
    return mini_batch(case.woven_tiles(), o, case.whole_bits, model, intercept)


@settings(max_examples=200)
@given(case=cases(), batch_tiles=st.integers(1, 6), arithmetic=st.sampled_from(ARITHMETICS))
def test_every_instruction_set_gives_the_same_bits(
    case: RefetchCase, batch_tiles: int, arithmetic: str
) -> None:
    o = case.options(loss="hinge", batch_tiles=batch_tiles, arithmetic=arithmetic)
    assert_same_bits(on_every_level(lambda: case.refetch(o)))


@settings(max_examples=300)
@given(case=cases(), arithmetic=st.sampled_from(ARITHMETICS))
def test_a_mini_batch_agrees_with_the_reference(case: RefetchCase, arithmetic: str) -> None:
    o = case.options(loss="hinge", arithmetic=arithmetic)
    want = expected(case, o)
    got = case.refetch(o)
    tiles = case.woven_tiles()
    near = [rows.any(axis=1) for rows in want.again]
    # Rows so close to the edge that single precision may see them on the other side.
    assume(int(got[5]) == sum(int(rows.sum()) for rows in near))
    scale = o.step_first / o.batch_rows
    model, intercept = case.model.astype("f8"), case.intercept.astype("f8")
    moved = proximal(model - scale * want.gradient, 0.0, o.l2, scale * sum(case.rows))
    spread = 1 + np.abs(moved).max()
    # Weights are whole quarters of the largest: integers hold them to 1 / 64 in int8.
    flips = {"float": 0, "int16": 1e-4, "int8": 1 / 64}[arithmetic] * bool(case.weights)
    values = np.abs(middles(tiles[0].base, o)).max() + 1
    admitted = flips * scale * 3 * values * np.sqrt(sum(case.rows)) * 5
    assert (np.abs(got[0] - moved) <= 2e-4 * spread + admitted).all()
    np.testing.assert_allclose(
        got[1], intercept - scale * want.residual, rtol=1e-4, atol=1e-4 * spread
    )
    assert got[6] == sum(-(-len(rows) // 8) * 8 for rows in near if rows.any())
    assert sorted(case.asked) == sorted(
        tuple(ref) for ref, rows in zip(case.tiles.tolist(), near, strict=True) if rows.any()
    )
    if arithmetic == "float":
        np.testing.assert_allclose(got[4], want.loss, rtol=1e-3, atol=1e-3 * sum(case.rows))


@settings(max_examples=500)
@given(case=cases(), arithmetic=st.sampled_from(ARITHMETICS), place=st.floats(-1.1, 1.1))
def test_no_row_is_decided_other_than_by_all_bits(
    case: RefetchCase, arithmetic: str, place: float
) -> None:
    """The first row's kink is put anywhere within its reach, and its bits to that end of it.

    Sums of residuals are those of the intercept's step, which is as long as they are: whole
    quarters, so that a single row that was decided otherwise is seen.
    """
    o = case.options(loss="hinge", arithmetic=arithmetic, step_first=1.0, batch_rows=1.0)
    model = case.model.astype("f8")
    more = case.whole_bits - (case.stored_bits - case.samples)
    seen = _seen_model(o, model, case.reference_tiles()[0].number)
    sign = np.where(case.targets[0][0] > 0.5, 1.0, -1.0)
    towards = o.slope * seen[0] * sign[0] * place > 0
    case.whole_bases[0][0] = (case.bases[0][0] << more) + ((1 << more) - 1) * towards
    case.whole_ups[0][:, 0] = towards
    case.pack()
    if case.weights:
        case.weights[0][0] = 1
    at = middles(case.bases[0][:1], o)[0] @ seen.T
    case.intercept[:] = (sign * (1 - place * reach(o, seen)) - at).astype("f4")
    intercept = case.intercept.astype("f8")
    fine = replace(o, slope=np.ldexp(o.slope, -more))
    total, doubtful = np.zeros(case.outputs), np.zeros(case.outputs)
    for tile in case.woven_tiles():
        signs = np.where(tile.few.target > 0.5, 1.0, -1.0)
        gap = 1 - signs * (affine_values(tile.all, tile.all.codes, fine) @ seen.T + intercept)
        weight = np.ones(len(gap)) if tile.few.weight is None else tile.few.weight
        total -= ((gap > 0) * signs * weight[:, None]).sum(axis=0)
        # As near to the kink as single precision, the sums of all bits are in doubt themselves.
        near = np.abs(gap) <= 1e-4 * (1 + np.abs(intercept) + reach(o, seen) * 2**9)
        doubtful += (near * weight[:, None]).sum(axis=0)
    got = case.refetch(o)
    assert (np.abs(intercept - got[1] - total) <= 0.1 + doubtful).all()


@pytest.mark.parametrize("bits", [1, 3, 6])
@pytest.mark.parametrize(("samples", "columns"), [(1, 2), (2, 1)])
def test_the_expected_gradient_is_that_of_the_values(bits: int, samples: int, columns: int) -> None:
    """Exactly, over all ways in which the sample bits can fall, each with its probability.

    Two rows whose values lie anywhere between levels, the first so near to its kink that it is
    read again and the other far from it. The expectation is what no rounding at all would give.
    """
    whole = 8
    more = whole - bits
    case = RefetchCase([2], columns, bits, whole, samples, seed=4)
    case.slope[:] = np.array([3, 2], "f4")[:columns] * 2.0**-bits / samples
    case.offset[:], case.centre[:] = -1, 0
    case.model[:] = np.array([0.75, -0.5])[:columns]
    case.targets[0][:] = [[1], [0]]
    place = np.random.default_rng(bits).uniform(0, 1 << whole, (2, columns))
    place[1] = np.where(case.model[0] > 0, (1 << whole) - 2.25, 1.75)  # margin: as large as can be
    case.whole_bases[0] = np.floor(place).astype(np.int64)
    case.bases[0] = case.whole_bases[0] >> more
    value = case.offset + case.slope * samples * place / (1 << more)
    w, target = case.model[0].astype("f8"), np.array([1.0, -1.0])
    o = case.options(loss="hinge", step_first=1.0, batch_rows=1.0, l2=np.zeros(columns))
    near = float(reach(o, case.model.astype("f8"))[0])
    case.intercept[:] = 1 - middles(case.bases[0], o)[0] @ w - 0.7 * near
    gap = 1 - target * (value @ w + float(case.intercept[0]))
    assert (np.abs(gap) > 2 * near / (1 << more)).all()  # all bits are enough, as they fall
    exact = -((target * (gap > 0))[:, None] * value).sum(axis=0)
    few, many = place / (1 << more) % 1, place % 1
    bits_in_all = 2 * 2 * columns * samples
    found, chances, again = np.zeros(columns), 0.0, set()
    for number in range(1 << bits_in_all):
        fall = np.array([number >> i & 1 for i in range(bits_in_all)])
        case.ups[0], case.whole_ups[0] = fall.reshape(2, samples, 2, columns)
        chance = 1.0
        for up, p in ((case.ups[0], few), (case.whole_ups[0], many)):
            chance *= float(np.where(up == 1, p, 1 - p).prod())
        case.pack()
        model, *_, rows, _ = case.refetch(o)
        again.add(rows)
        found += chance * (w - model[0])
        chances += chance
    assert chances == pytest.approx(1) and again == {1}
    np.testing.assert_allclose(found, exact, atol=2e-5 * np.abs(exact).max())


def test_what_the_kernels_cannot_read_again_is_refused() -> None:
    case = RefetchCase([100, 30], 5, 3, 8, 1)
    batch, fetch = case.fresh()
    o = case.options(loss="hinge")

    def run(batch: TileBatch = batch, **changes: Any) -> None:
        given = {"loss": "hinge", "split": False, "fetch": fetch} | changes
        counts = given.pop("counts", np.zeros(2, np.uint64))
        batch.full_gradient(
            model=case.model, intercept=case.intercept, arithmetic="float", correction=0.0,
            variance=case.variance, batch_tiles=1, seed=0, draw=0, out=np.zeros((1, 5)),
            intercept_out=np.zeros(1), refetched=counts, **given,
        )  # fmt: skip

    run()
    with pytest.raises(ValueError, match="hinge loss alone"):
        run(loss="logistic")
    with pytest.raises(ValueError, match="does not have"):
        run(batch=case.tile_batch())
    with pytest.raises(ValueError, match="two numbers"):
        run(counts=np.zeros(1, np.uint64))
    held = [planes.copy() for planes in case.planes]
    there = [np.zeros(2, np.uint8), np.zeros(1, np.uint8)]
    for whole, message in (
        ((held, there, 4), "all planes are more"),
        ((held[:1], there, 9), "every chunk needs"),
        (([held[0], held[0]], there, 9), "wrong size"),
        ((held, there[:1] * 2, 9), "one byte a tile"),
    ):
        with pytest.raises(ValueError, match=message):
            case.tile_batch(whole=whole)
    # What would have to be copied: planes that are fetched later would not come into the copy.
    apart = [np.repeat(planes, 2)[::2] for planes in held]
    for whole in ((apart, there, 9), (held, [flags.view(bool) for flags in there], 9)):
        with pytest.raises(TypeError, match="incompatible"):
            case.tile_batch(whole=whole)

    def fails(tiles: list[tuple[int, int]]) -> None:
        raise OSError("gone")

    case.model[:] = np.nan  # decides nothing
    with pytest.raises(OSError, match="gone"):
        run(batch=case.fresh()[0], fetch=fails)
    assert o.loss == "hinge"
