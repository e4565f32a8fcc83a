"""The gradient of a column: the codes of its rows times the residuals, summed by a tree."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import AdderTree, CodeProduct
from .formats import RESIDUAL_BITS, Format

__all__ = ["GradientTree"]


class GradientTree(wiring.Component):
    """Sum over lanes of code times residual, `latency` cycles later, a column a cycle.

    The last addition takes place in the cycle in which the sum is used, and has another one behind
    it there: the carries of both run at once.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        self.latency = form.product_latency + form.lane_bits - 1
        super().__init__(
            {
                "codes": In(form.codes_bits),
                "residuals": In(form.lanes * RESIDUAL_BITS),
                "total": Out(signed(form.tile_sum_bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        width = RESIDUAL_BITS + form.bits
        m.submodules.tree = tree = AdderTree(form.lanes, width, is_signed=True, is_held=False)
        for row in range(form.lanes):
            product = CodeProduct(form, RESIDUAL_BITS)
            m.submodules[f"product_{row}"] = product
            m.d.comb += [
                product.value.eq(self.residuals.word_select(row, RESIDUAL_BITS)),
                product.code.eq(self.codes.word_select(row, form.bits)),
                tree.terms.word_select(row, width).eq(product.product),
            ]
        m.d.comb += self.total.eq(tree.total)
        return m
