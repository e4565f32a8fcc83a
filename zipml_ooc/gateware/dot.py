"""Margins and residuals: a tile's codes meet the model as they arrive, a column a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import CodeProduct, delayed, saturated
from .formats import (
    MODEL_BITS,
    NO_ROW,
    RESIDUAL_BITS,
    TABLE_BITS,
    TARGET_BITS,
    Format,
)

__all__ = ["Dot", "Unpacker"]


class Unpacker(wiring.Component):
    """Wires only: the codes of a beat in the order of rows."""

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__({"beat": In(form.beat_bits), "codes": Out(form.beat_bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits, lanes = self.form.bits, self.form.lanes
        size, places = lanes * bits // 8, 8 // bits
        for row in range(lanes):
            field = (row % size) * places + row // size
            m.d.comb += self.codes.word_select(row, bits).eq(self.beat.word_select(field, bits))
        return m


class Dot(wiring.Component):
    """One margin a lane; half of them take the model from its inverse, to share the wires.

    Residuals come `form.residual_latency` cycles after the last column.

    `codes`, `model` and `centre` belong to the same entry; `first` and `last` mark the entries 0
    and d. Targets must hold from the cycle of `first` until its products are there.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        lanes = form.lanes
        super().__init__(
            {
                "valid": In(1),
                "first": In(1),
                "last": In(1),
                "codes": In(form.beat_bits),
                "model": In(signed(MODEL_BITS)),
                "model_inverted": In(signed(MODEL_BITS)),
                "centre": In(TABLE_BITS),
                "targets": In(lanes * TARGET_BITS),
                "residuals": Out(lanes * RESIDUAL_BITS),
                "present": Out(lanes),
                "present_valid": Out(1),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        lanes, width = form.lanes, form.margin_bits

        # What all rows have in common: sums with the centres, and half a unit for rounding. Margins
        # start from minus the target less 1, which has the bits of the target inverted.
        flags = Cat(self.valid, self.first, self.last)
        valid, first, last = delayed(m, flags, 1, "centre_flags")
        centre_product = Signal(signed(MODEL_BITS + TABLE_BITS), reset_less=True)
        at_centre = Signal(signed(MODEL_BITS + TABLE_BITS + form.entry_bits), reset_less=True)
        shared = Signal(signed(MODEL_BITS + form.bits + form.entry_bits + 1), reset_less=True)
        centre_ended = Signal()
        m.d.sync += [
            centre_product.eq(self.model * self.centre),
            centre_ended.eq(valid & last),
        ]
        with m.If(valid):
            m.d.sync += at_centre.eq(Mux(first, 0, at_centre) + centre_product)
        with m.If(centre_ended):
            below = (1 << (form.margin_shift - 1)) + 1
            m.d.sync += shared.eq((at_centre >> form.centre_fraction) - below)

        # Margins, then what is shared is taken off, then shift and saturate.
        valid, first, last = delayed(m, flags, form.product_latency, "flags")
        ended = delayed(m, valid & last, form.residual_latency - 2 - form.product_latency, "ended")
        ended_whole = delayed(m, ended, 1, "ended_whole")

        clipped = Signal(lanes)
        for row in range(lanes):
            code = self.codes.word_select(row, form.bits)
            target = self.targets.word_select(row, TARGET_BITS).as_signed()
            product = CodeProduct(form, MODEL_BITS)
            m.submodules[f"product_{row}"] = product
            margin = Signal(signed(width), name=f"margin_{row}", reset_less=True)
            here = Signal(name=f"here_{row}", reset_less=True)
            model = self.model if row < lanes // 2 else ~self.model_inverted
            m.d.comb += [product.value.eq(model), product.code.eq(code)]
            with m.If(valid):
                start = ~(target << form.margin_shift)
                m.d.sync += margin.eq(Mux(first, start, margin) + product.product)
                with m.If(first):
                    m.d.sync += here.eq(target != NO_ROW)
            whole = Signal(signed(width + 1), name=f"whole_{row}", reset_less=True)
            whole_here = Signal(name=f"whole_here_{row}", reset_less=True)
            with m.If(ended):
                m.d.sync += [whole.eq(margin - shared), whole_here.eq(here)]
            rounded, outside = saturated(whole >> form.margin_shift, RESIDUAL_BITS)
            residual = Signal(RESIDUAL_BITS, name=f"residual_{row}", reset_less=True)
            with m.If(ended_whole):
                m.d.sync += residual.eq(Mux(whole_here, rounded, 0))
            m.d.comb += [
                self.residuals.word_select(row, RESIDUAL_BITS).eq(residual),
                self.present[row].eq(whole_here),
                clipped[row].eq(whole_here & outside),
            ]
        any_clipped = delayed(m, clipped, 1, "clipped")
        m.d.comb += [
            self.present_valid.eq(ended_whole),
            self.saturated.eq(delayed(m, ended_whole, 1, "ended_residual") & any_clipped.any()),
        ]
        return m
