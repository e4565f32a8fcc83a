"""Adders, products and random draws of the gateware, each in a simulation of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import joined, simulate

from zipml_ooc.gateware.arithmetic import AdderTree, CodeProduct, WideProduct, XorShift
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.reference import draw


@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("is_held", [False, True])
def test_adder_tree_adds_a_set_each_cycle(is_signed: bool, is_held: bool) -> None:
    dut = AdderTree(8, 5, is_signed=is_signed, is_held=is_held)
    low, high = (-16, 16) if is_signed else (0, 32)
    sets = np.random.default_rng(0).integers(low, high, (20, 8))
    sets[0], sets[1] = low, high - 1
    seen: list[int] = []

    async def bench(ctx: Any) -> None:
        for numbers in [*sets, *[sets[0]] * dut.latency]:
            ctx.set(dut.terms, joined(numbers, 5))
            await ctx.tick()
            seen.append(ctx.get(dut.total))

    simulate(dut, bench)
    assert seen[dut.latency - 1 :][: len(sets)] == sets.sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("width", "a_signed", "b_width", "b_signed"),
    [(38, True, 16, False), (28, True, 16, False), (29, False, 16, True), (12, False, 16, True)],
)
def test_wide_product_is_exact(width: int, a_signed: bool, b_width: int, b_signed: bool) -> None:
    dut = WideProduct(width, b_width, a_signed=a_signed, b_signed=b_signed)
    rng = np.random.default_rng(0)

    def some(bits: int, signed: bool) -> list[int]:
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if signed else (0, 1 << bits)
        return [low, high - 1, low, high - 1, *rng.integers(low, high, 40).tolist()]

    a, b = some(width, a_signed), some(b_width, b_signed)
    b[2:4] = b[3], b[2]
    seen = []

    async def bench(ctx: Any) -> None:
        for x, y in zip([*a, 0], [*b, 0], strict=True):
            ctx.set(dut.a, x)
            ctx.set(dut.b, y)
            await ctx.tick()
            seen.append(ctx.get(dut.product))

    simulate(dut, bench)
    assert seen[1:] == [x * y for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_code_product_is_exact(bits: int) -> None:
    form = Format(bits)
    dut = CodeProduct(form, 16)
    rng = np.random.default_rng(0)
    values = [-(1 << 15), (1 << 15) - 1, -1, 1, *rng.integers(-(1 << 15), 1 << 15, 40).tolist()]
    codes = [(1 << bits) - 1] * 4 + rng.integers(0, 1 << bits, 40).tolist()
    seen = []

    async def bench(ctx: Any) -> None:
        for value, code in [*zip(values, codes, strict=True), *[(0, 0)] * form.product_latency]:
            ctx.set(dut.value, value)
            ctx.set(dut.code, code)
            await ctx.tick()
            seen.append(ctx.get(dut.product))

    simulate(dut, bench)
    products = [value * code for value, code in zip(values, codes, strict=True)]
    assert seen[form.product_latency - 1 :][: len(products)] == products


def test_generator_draws_as_the_reference_and_only_when_asked() -> None:
    dut = XorShift()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.value, 0xDEADBEEF)
        ctx.set(dut.load_low, 1)
        await ctx.tick()
        ctx.set(dut.load_low, 0)
        ctx.set(dut.load_high, 1)
        await ctx.tick()
        ctx.set(dut.load_high, 0)
        state = 0xDEADBEEF_DEADBEEF
        for turn in range(30):
            ctx.set(dut.advance, turn % 3 != 0)
            await ctx.tick()
            if turn % 3:
                state, drawn = draw(state)
                assert ctx.get(dut.draw) == drawn
            assert ctx.get(dut.state) == state

    simulate(dut, bench)
