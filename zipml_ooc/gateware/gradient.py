"""The gradient of a column: the codes of its rows times the residuals, summed by a tree."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import AdderTree
from .formats import RESIDUAL_BITS, Format

__all__ = ["GradientTree"]


class GradientTree(wiring.Component):
    """Sum over lanes of code times residual, `latency` cycles later, a column a cycle."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.latency = 1 + form.lane_bits
        super().__init__(
            {
                "codes": In(form.beat_bits),
                "residuals": In(form.lanes * RESIDUAL_BITS),
                "total": Out(signed(form.tile_sum_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        width = RESIDUAL_BITS + form.bits
        m.submodules.tree = tree = AdderTree(form.lanes, width, is_signed=True)
        for row in range(form.lanes):
            product = Signal(signed(width), name=f"product_{row}", reset_less=True)
            residual = self.residuals.word_select(row, RESIDUAL_BITS).as_signed()
            m.d.sync += product.eq(residual * self.codes.word_select(row, form.bits))
            m.d.comb += tree.terms.word_select(row, width).eq(product)
        m.d.comb += self.total.eq(tree.total)
        return m
