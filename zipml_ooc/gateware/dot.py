"""Margins and residuals: a tile's codes meet the model as they arrive, a column a cycle."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed, saturated
from .formats import (
    MARGIN_SHIFT,
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
    """One margin a lane; the residuals come `LATENCY` cycles after the tile's last column.

    `codes`, `model` and `centre` belong to the same entry; `first` and `last` mark the entries 0
    and d. Targets must hold from the cycle of `first` to two cycles later.
    """

    LATENCY = 5

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

        # Products.
        valid, first, last = (
            delayed(m, flag, 1, name)
            for flag, name in ((self.valid, "valid"), (self.first, "first"), (self.last, "last"))
        )
        centre_product = Signal(signed(MODEL_BITS + TABLE_BITS), reset_less=True)
        m.d.sync += centre_product.eq(self.model * self.centre)

        # Sums, from minus the target on. A missing row is marked by its target.
        at_centre = Signal(signed(MODEL_BITS + TABLE_BITS + form.entry_bits), reset_less=True)
        with m.If(valid):
            m.d.sync += at_centre.eq(Mux(first, 0, at_centre) + centre_product)
        ended = Signal()
        m.d.sync += ended.eq(valid & last)

        # What all rows have in common, and half a unit for rounding; then shift and saturate.
        half = 1 << (MARGIN_SHIFT - 1)
        shared = Signal(signed(MODEL_BITS + form.bits + form.entry_bits + 1), reset_less=True)
        m.d.sync += shared.eq((at_centre >> form.centre_fraction) - half)
        ended_shared = delayed(m, ended, 1, "ended")
        ended_whole = delayed(m, ended_shared, 1, "ended_shared")

        clipped = Signal(lanes)
        for row in range(lanes):
            code = self.codes.word_select(row, form.bits)
            target = self.targets.word_select(row, TARGET_BITS).as_signed()
            product = Signal(signed(MODEL_BITS + form.bits), name=f"product_{row}", reset_less=True)
            margin = Signal(signed(width), name=f"margin_{row}", reset_less=True)
            here = Signal(name=f"here_{row}", reset_less=True)
            m.d.sync += product.eq(self.model * code)
            with m.If(valid):
                m.d.sync += margin.eq(
                    Mux(first, -(target << MARGIN_SHIFT), margin) + product,
                )
                with m.If(first):
                    m.d.sync += here.eq(target != NO_ROW)
            whole = Signal(signed(width + 1), name=f"whole_{row}", reset_less=True)
            whole_here = Signal(name=f"whole_here_{row}", reset_less=True)
            with m.If(ended_shared):
                m.d.sync += [whole.eq(margin - shared), whole_here.eq(here)]
            rounded, outside = saturated(whole >> MARGIN_SHIFT, RESIDUAL_BITS)
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
            self.saturated.eq(delayed(m, ended_whole, 1, "ended_whole") & any_clipped.any()),
        ]
        return m
