"""Residuals and curvatures of a tile's rows, each part in a simulation of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import joined, simulate

from zipml_ooc.gateware.dot import Dot
from zipml_ooc.gateware.formats import (
    LEAST_EXPONENT,
    LOGISTIC_LATENCY,
    NO_ROW,
    Format,
    Loss,
    intercept_code,
)
from zipml_ooc.gateware.logistic import Logistic, Sigmoid
from zipml_ooc.gateware.reference import Program, Tile, curvature_sum, residuals
from zipml_ooc.gateware.sigmoid import slope_and_value


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("loss", Loss)
def test_dot_gives_residuals_and_says_which_rows_count(bits: int, loss: Loss) -> None:
    form = Format(bits, 8, 64)
    rng = np.random.default_rng(bits)
    dut = Dot(form)
    logistic = loss == Loss.LOGISTIC

    async def bench(ctx: Any) -> None:
        ctx.set(dut.is_logistic, logistic)
        ctx.set(dut.is_hinge, loss == Loss.SQUARED_HINGE)
        for turn in range(6):
            size = 15 if turn % 3 == 2 else 9  # the third is clipped
            model = rng.integers(-(1 << size), 1 << size, 7)
            centre = np.concatenate([[0], rng.integers(0, 1 << 16, 6)])
            targets = rng.integers(-(1 << size), 1 << size, 8)
            if logistic:
                targets = -(targets < 0).astype(np.int64)
            targets[turn] = NO_ROW
            tile = Tile(rng.integers(0, 1 << bits, (8, 6)), targets)
            exponent = LEAST_EXPONENT + max(0, bits - 4) + turn % 4
            program = Program(bits, 1, 1, 0, centre, centre, centre, loss=loss, exponent=exponent)
            ctx.set(dut.refinement, turn % 4)
            expected, clipped = residuals(program, model, tile)
            ctx.set(dut.targets, joined(targets, 16))
            for entry in range(7):
                own = np.full(8, intercept_code(bits))
                column = own if entry == 0 else tile.codes[:, entry - 1]
                held = int(model[entry])
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, entry == 0)
                ctx.set(dut.last, entry == 6)
                ctx.set(dut.codes, joined(column, bits))
                ctx.set(dut.model, held)
                ctx.set(dut.models, joined([held, ~held, held, ~held], 16))
                ctx.set(dut.centre, int(centre[entry]))
                await ctx.tick()
                ctx.set(dut.valid, 0)  # a pause, in which nothing is added up
                if turn % 2:
                    ctx.set(dut.model, 12345)
                    ctx.set(dut.models, 12345)
                    await ctx.tick()
            wait = form.residual_latency - 3 - turn % 2  # of the latency, 1 or 2 are over
            for _ in range(wait):
                assert not ctx.get(dut.counts_valid)
                await ctx.tick()
            curvature = curvature_sum(program, model, tile)
            if logistic:
                sums = []
                for _ in range(LOGISTIC_LATENCY + form.lane_bits - 1):
                    assert not ctx.get(dut.counts_valid)
                    if ctx.get(dut.curvature_valid):
                        sums.append(ctx.get(dut.curvature))
                    await ctx.tick()
                assert sums == [curvature]
            else:
                assert ctx.get(dut.counts_valid)
                assert ctx.get(dut.counts).bit_count() == curvature
            await ctx.tick().repeat(2)
            assert ctx.get(dut.residuals) == joined(expected, 16)
            assert ctx.get(dut.saturated) == clipped

    simulate(dut, bench)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("refinement", range(4))
def test_the_sigmoid_is_that_of_the_reference_a_row_a_cycle(bits: int, refinement: int) -> None:
    form, more = Format(bits, 8, 64), max(0, bits - 4)
    dut = Sigmoid(form)
    rng = np.random.default_rng(refinement)
    unit = 1 << (LEAST_EXPONENT + more + refinement)
    edges = np.array([-16, 0, 16])[:, None] * unit + np.arange(-3, 4)
    limit = 1 << form.margin_bits
    margins = [*edges.ravel(), *rng.integers(-18 * unit, 18 * unit, 200), -limit, limit - 1]
    negative, present = rng.integers(0, 2, len(margins)), rng.random(len(margins)) < 0.9
    taken_off = np.array(margins) - (negative << form.margin_shift)
    rise, value = slope_and_value((taken_off << (3 - refinement)) >> more)
    value = np.where(present, value - ((1 - negative) << 14), 0)
    rises, found = [], []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.refinement, refinement)
        for i in range(len(margins) + dut.LATENCY):
            row = min(i, len(margins) - 1)
            ctx.set(dut.margin, int(margins[row]))
            ctx.set(dut.negative, int(negative[row]))
            ctx.set(dut.present, bool(present[row]))
            await ctx.tick()
            rises.append(ctx.get(dut.rise))
            found.append(ctx.get(dut.residual))

    simulate(dut, bench)
    assert found[dut.LATENCY - 1 : -1] == value.tolist()
    assert rises[dut.LATENCY - 2 : -2] == np.where(present, rise, 0).tolist()


def test_the_logistic_part_takes_tiles_that_follow_each_other_closely() -> None:
    form, program = Format(4, 16, 64), Program(4, 1, 1, 0, *[np.zeros(1, int)] * 3)
    program = replace(program, loss=Loss.LOGISTIC, exponent=13)
    dut = Logistic(form)
    rng = np.random.default_rng(0)
    margins = rng.integers(-(1 << 17), 1 << 17, (5, 16))
    targets = rng.choice([0, -1, NO_ROW], (5, 16))
    seen, sums = [], []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.refinement, 2)
        for cycle in range(5 * 5 + dut.LATENCY + form.lane_bits):
            tile = min(cycle // 5, 4)
            ctx.set(dut.start, cycle % 5 == 0 and cycle < 25)
            held = cycle % 5 < dut.TURNS  # then the next tile's margins may come
            ctx.set(dut.margins, joined(margins[tile], form.margin_bits + 1) if held else 0)
            ctx.set(dut.negative, joined(targets[tile] < 0, 1))
            ctx.set(dut.present, joined(targets[tile] != NO_ROW, 1))
            if ctx.get(dut.valid):
                seen.append((cycle, ctx.get(dut.residuals)))
            if ctx.get(dut.curvature_valid):
                sums.append(ctx.get(dut.curvature))
            await ctx.tick()

    simulate(dut, bench)
    assert [cycle for cycle, _ in seen] == [5 * i + LOGISTIC_LATENCY for i in range(5)]
    for i in range(5):
        # A margin that is given, by way of the intercept and the targets alone.
        rows = [
            (Tile(np.zeros((1, 0), int), targets[i, r : r + 1]), margins[i, r : r + 1])
            for r in range(16)
        ]
        expected = []
        for tile, margin in rows:
            model = margin + (tile.targets << form.margin_shift)
            expected.append(int(residuals(program, model, tile)[0][0]))
        assert seen[i][1] == joined(expected, 16)
        total = sum(
            curvature_sum(program, margin + (tile.targets << form.margin_shift), tile)
            for tile, margin in rows
        )
        assert sums[i] == total
