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
    RISE_BITS,
    TABLE_BITS,
    TARGET_BITS,
    Format,
)
from .logistic import Logistic
from .tables import Tables

__all__ = ["Dot", "Unpacker"]


class Unpacker(wiring.Component):
    """Wires only: the codes of a beat in the order of rows."""

    LATENCY = 0

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__({"beat": In(form.beat_bits), "codes": Out(form.codes_bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits, lanes = self.form.bits, self.form.lanes
        size, places = lanes * bits // 8, 8 // bits
        for row in range(lanes):
            field = (row % size) * places + row // size
            m.d.comb += self.codes.word_select(row, bits).eq(self.beat.word_select(field, bits))
        return m


class Dot(wiring.Component):
    """One margin a lane, and what becomes of it at a tile's end.

    Lanes take the model from several registers (`models`, every other one inverted), to share the
    wires. Residuals come `form.residual_latency` cycles after the last column, those of the
    logistic loss `LOGISTIC_LATENCY` later. `counts` says which rows count, `counts_valid` when; the
    logistic loss has a sum of curvatures instead. Its margins are not rounded.

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
                "codes": In(form.codes_bits),
                "model": In(signed(MODEL_BITS)),
                "models": In(Tables.COPIES * MODEL_BITS),
                "centre": In(TABLE_BITS),
                "targets": In(lanes * TARGET_BITS),
                "residuals": Out(lanes * RESIDUAL_BITS),
                "is_logistic": In(1),
                "is_hinge": In(1),
                "refinement": In(2),
                "counts": Out(lanes),
                "counts_valid": Out(1),
                "curvature": Out(RISE_BITS + form.lane_bits),
                "curvature_valid": Out(1),
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
            below = Mux(self.is_logistic, 1, (1 << (form.margin_shift - 1)) + 1)
            m.d.sync += shared.eq((at_centre >> form.centre_fraction) - below)

        # Margins, then what is shared is taken off, then shift and, in two cycles, saturate.
        valid, first, last = delayed(m, flags, form.product_latency, "flags")
        ended = delayed(m, valid & last, form.residual_latency - 3 - form.product_latency, "ended")
        whole_there = delayed(m, ended, 1, "whole_there")
        ended_whole = delayed(m, ended & ~self.is_logistic, 1, "ended_whole")

        m.submodules.logistic = logistic = Logistic(form)
        kept_valid = delayed(m, ended_whole | logistic.valid, 1, "kept_valid")
        clipped, negatives, presents = Signal(lanes), Signal(lanes), Signal(lanes)
        for row in range(lanes):
            code = self.codes.word_select(row, form.bits)
            target = self.targets.word_select(row, TARGET_BITS).as_signed()
            product = CodeProduct(form, MODEL_BITS)
            m.submodules[f"product_{row}"] = product
            margin = Signal(signed(width), name=f"margin_{row}", reset_less=True)
            about = Signal(2, name=f"about_{row}", reset_less=True)  # present, negative
            copy = row * Tables.COPIES // lanes
            model = self.models.word_select(copy, MODEL_BITS)
            m.d.comb += [product.value.eq(~model if copy % 2 else model), product.code.eq(code)]
            with m.If(valid):
                start = ~(target << form.margin_shift)
                m.d.sync += margin.eq(Mux(first, start, margin) + product.product)
                with m.If(first):
                    m.d.sync += about.eq(Cat(target != NO_ROW, target[-1]))
            whole = Signal(signed(width + 1), name=f"whole_{row}", reset_less=True)
            about_whole = Signal(2, name=f"about_whole_{row}", reset_less=True)
            with m.If(ended):
                m.d.sync += [whole.eq(margin - shared), about_whole.eq(about)]
            present, negative = about_whole
            rounded = whole >> form.margin_shift
            _, outside = saturated(rounded, RESIDUAL_BITS)
            counts = Signal(name=f"counts_{row}")
            kept = Signal(RESIDUAL_BITS, name=f"kept_{row}", reset_less=True)
            about_kept = Signal(3, name=f"about_kept_{row}", reset_less=True)
            sign, is_clipped, is_kept = about_kept
            own = logistic.residuals.word_select(row, RESIDUAL_BITS)
            m.d.sync += [
                kept.eq(Mux(self.is_logistic, own, rounded)),
                sign.eq(whole[-1]),
                is_clipped.eq(outside & ~self.is_logistic),
                is_kept.eq(counts | self.is_logistic),
            ]
            limit = Cat((~sign).replicate(RESIDUAL_BITS - 1), sign)
            residual = Signal(RESIDUAL_BITS, name=f"residual_{row}", reset_less=True)
            with m.If(kept_valid):
                m.d.sync += residual.eq(Mux(is_kept, Mux(is_clipped, limit, kept), 0))
            m.d.comb += [
                counts.eq(present & (~self.is_hinge | (whole[-1] ^ negative))),
                self.residuals.word_select(row, RESIDUAL_BITS).eq(residual),
                self.counts[row].eq(counts),
                clipped[row].eq(is_kept & is_clipped),
                logistic.margins.word_select(row, width + 1).eq(whole),
                negatives[row].eq(negative),
                presents[row].eq(present),
            ]
        any_clipped = delayed(m, clipped, 1, "clipped")
        m.d.comb += [
            logistic.start.eq(whole_there & self.is_logistic),
            logistic.negative.eq(negatives),
            logistic.present.eq(presents),
            logistic.refinement.eq(self.refinement),
            self.counts_valid.eq(ended_whole),
            self.curvature.eq(logistic.curvature),
            self.curvature_valid.eq(logistic.curvature_valid),
            self.saturated.eq(delayed(m, ended_whole, 2, "ended_residual") & any_clipped.any()),
        ]
        return m
