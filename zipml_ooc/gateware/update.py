"""The end of a mini-batch: correction, step, and stochastic rounding of the model."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .arithmetic import WideProduct, delayed, saturated
from .formats import (
    CURVATURE_SHIFT,
    DRAW_BITS,
    MODEL_BITS,
    STEP_BITS,
    TABLE_BITS,
    Format,
    intercept_code,
)

__all__ = ["Update"]

_MOVED_BITS = 33  # a change of the model in 2**-16 of its units, beyond which it is clipped anyway


class Update(wiring.Component):
    """A new entry of the model `LATENCY` cycles after its gradient, one a cycle.

    `begins` comes `AHEAD` cycles before the first, and `ahead_valid` a cycle before each.

    The entry's `variance`, `pace`, `centre`, `model` and the sum of curvatures come a cycle ahead
    of its `gradient`; `step` and `shift` hold still. `first` comes with the gradient of entry 0,
    which is the sum of the residuals times the intercept's code. `random` advances in the cycle of
    `advance`; its draw is there in the next one.
    """

    LATENCY = 9
    AHEAD = 4

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                "model": In(signed(MODEL_BITS)),
                "centre": In(TABLE_BITS),
                "pace": In(TABLE_BITS),
                "variance": In(TABLE_BITS),
                "curvature": In(form.curvature_bits - CURVATURE_SHIFT),
                "step": In(STEP_BITS),
                "shift": In(5),
                "valid": In(1),
                "first": In(1),
                "gradient": In(signed(form.gradient_bits)),
                "advance": Out(1),
                "draw": In(DRAW_BITS),
                "begins": Out(1),
                "ahead_valid": Out(1),
                "new_model": Out(signed(MODEL_BITS)),
                "saturated": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        sum_bits = form.gradient_bits - form.bits

        # One cycle ahead of the gradient.
        noise = Signal(TABLE_BITS + len(self.curvature), reset_less=True)
        paced = Signal(TABLE_BITS + STEP_BITS, reset_less=True)
        centre = delayed(m, self.centre, 1, "centre")
        model = delayed(m, self.model, 1, "model")
        m.d.sync += [noise.eq(self.variance * self.curvature), paced.eq(self.pace * self.step)]

        # Cycles 0 and 1: products with the sum of residuals and with the model.
        total = Signal(signed(sum_bits), reset_less=True)
        with m.If(self.valid & self.first):
            m.d.sync += total.eq(self.gradient >> exact_log2(intercept_code(form.bits)))
        m.submodules.at_centre = at_centre = WideProduct(
            sum_bits, TABLE_BITS, a_signed=True, b_signed=False
        )
        m.submodules.correction = correction = WideProduct(
            len(noise), MODEL_BITS, a_signed=False, b_signed=True
        )
        pace = Signal(STEP_BITS, reset_less=True)
        m.d.comb += [
            at_centre.a.eq(total),
            at_centre.b.eq(centre),
            correction.a.eq(noise),
            correction.b.eq(model),
        ]
        m.d.sync += pace.eq((paced + (1 << (STEP_BITS - 1))) >> STEP_BITS)

        # Cycle 2: the corrected gradient. Cycles 3 and 4: times the pace.
        gradient = delayed(m, self.gradient, 2, "gradient")
        bias = Signal(signed(form.gradient_bits + 1), reset_less=True)
        m.d.comb += bias.eq(
            (at_centre.product >> form.centre_fraction)
            + (correction.product >> (TABLE_BITS + form.margin_shift))
        )
        change = Signal(signed(form.gradient_bits + 2), reset_less=True)
        m.d.sync += change.eq(gradient - bias)
        m.submodules.moved = moved = WideProduct(
            len(change), STEP_BITS, a_signed=True, b_signed=False
        )
        m.d.comb += [moved.a.eq(change), moved.b.eq(delayed(m, pace, 2, "pace"))]

        # Cycles 5 to 7: shift and saturate. Cycle 8: take it off, with the draw below the point.
        coarse = Signal(moved.product.shape(), reset_less=True)
        fine = Signal(moved.product.shape(), reset_less=True)
        m.d.sync += [
            coarse.eq(moved.product >> (self.shift & 0b11000)),
            fine.eq(coarse >> self.shift[:3]),
        ]
        clipped, _ = saturated(fine, _MOVED_BITS)
        moved_by = Signal(signed(_MOVED_BITS), reset_less=True)
        m.d.sync += moved_by.eq(clipped)
        exact = Signal(signed(_MOVED_BITS + 1), reset_less=True)
        old = delayed(m, model, 8, "old")
        m.d.sync += exact.eq(Cat(self.draw, old).as_signed() - moved_by)
        new, outside = saturated(exact >> DRAW_BITS, MODEL_BITS)
        advance = delayed(m, self.valid, 7, "advance")
        ahead = delayed(m, advance, self.LATENCY - 8, "ahead")
        begins = delayed(m, self.valid & self.first, self.LATENCY - self.AHEAD, "begins")
        m.d.comb += [
            self.advance.eq(advance),
            self.begins.eq(begins),
            self.ahead_valid.eq(ahead),
            self.new_model.eq(new),
            self.saturated.eq(delayed(m, ahead, 1, "new_valid") & outside),
        ]
        return m
