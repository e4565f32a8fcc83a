"""Residuals of the logistic loss: four lanes, one after the other, share a table of the sigmoid."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic import AdderTree, delayed, saturated
from .formats import LEAST_EXPONENT, LOGISTIC_BITS, RESIDUAL_BITS, RISE_BITS, Format
from .sigmoid import INTERVALS, POINT_BITS, STEP_BITS, table

__all__ = ["Logistic", "Sigmoid"]

_PLACE_BITS = INTERVALS.bit_length() - 1


class Sigmoid(wiring.Component):
    """From a margin to its residual, a row a cycle, `LATENCY` cycles later.

    `margin` is A of docs/accelerator.md, `negative` the sign of the row's target, `present` says
    whether there is a row. `rise`, R there, comes a cycle ahead of `residual`.
    """

    LATENCY = 7

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                "margin": In(signed(form.margin_bits + 1)),
                "negative": In(1),
                "present": In(1),
                "refinement": In(2),
                "residual": Out(signed(RESIDUAL_BITS)),
                "rise": Out(RISE_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form, width = self.form, self.form.margin_bits + 2
        words = [
            int(value) | int(rise) << (LOGISTIC_BITS + 1)
            for value, rise in zip(*table(), strict=True)
        ]
        half = INTERVALS // 2  # places are signed
        m.submodules.memory = memory = Memory(
            shape=LOGISTIC_BITS + 1 + RISE_BITS,
            depth=INTERVALS,
            init=words[half:] + words[:half],
        )
        read = memory.read_port()

        # Cycle 0: the target's part is taken off. 1 and 2: shift and clip. 3 and 4: the table.
        whole = Signal(signed(width), reset_less=True)
        m.d.sync += whole.eq(self.margin - (self.negative << form.margin_shift))
        places = POINT_BITS - LEAST_EXPONENT
        shifted = Signal(signed(width + places), reset_less=True)
        m.d.sync += shifted.eq(((whole << places) >> self.refinement) >> max(0, form.bits - 4))
        argument = Signal(_PLACE_BITS + STEP_BITS, reset_less=True)
        held, _ = saturated(shifted, _PLACE_BITS + STEP_BITS)
        m.d.sync += argument.eq(held)
        m.d.comb += read.addr.eq(argument[STEP_BITS:])
        entry = delayed(m, read.data, 1, "entry")
        value, rise = entry[: LOGISTIC_BITS + 1], entry[LOGISTIC_BITS + 1 :]

        # 5: between the points; 1 is taken off where the target is positive. 6: the sum.
        negative = delayed(m, self.negative, 5, "negative")
        present = delayed(m, self.present, 5, "present")
        between = Signal(RISE_BITS + STEP_BITS, reset_less=True)
        start = Signal(signed(RESIDUAL_BITS + STEP_BITS), reset_less=True)
        lower, top = value[:LOGISTIC_BITS], value[LOGISTIC_BITS]
        rounding = C(1 << (STEP_BITS - 1), STEP_BITS)
        m.d.sync += [
            between.eq(rise * delayed(m, argument[:STEP_BITS], 2, "within")),
            start.eq(Cat(rounding, lower, top ^ ~negative, ~negative & ~top)),
            self.rise.eq(Mux(present, rise, 0)),
        ]
        total = Signal(signed(RESIDUAL_BITS + STEP_BITS + 1))
        m.d.comb += total.eq(start + between)
        m.d.sync += self.residual.eq(
            Mux(delayed(m, present, 1, "present_sum"), total >> STEP_BITS, 0)
        )
        return m


class Logistic(wiring.Component):
    """Residuals of all lanes from margins that `start` says are there.

    `margins`, `negative` and `present` hold still for `TURNS` cycles. Residuals are there in the
    cycle of `valid`, `LATENCY` cycles after `start`; the sum of the rises in that of
    `curvature_valid`, `form.lane_bits - 2` later.
    """

    TURNS = 4
    LATENCY = Sigmoid.LATENCY + TURNS

    def __init__(self, form: Format) -> None:
        self.form = form
        lanes = form.lanes
        super().__init__(
            {
                "start": In(1),
                "margins": In(lanes * (form.margin_bits + 1)),
                "negative": In(lanes),
                "present": In(lanes),
                "refinement": In(2),
                "residuals": Out(lanes * RESIDUAL_BITS),
                "valid": Out(1),
                "curvature": Out(RISE_BITS + form.lane_bits),
                "curvature_valid": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form, width = self.form, self.form.margin_bits + 1
        groups = form.lanes // self.TURNS
        turn = Signal(range(self.TURNS))
        with m.If(self.start | (turn != 0)):
            m.d.sync += turn.eq(turn + 1)
        m.submodules.tree = tree = AdderTree(groups, RISE_BITS, is_signed=False)
        for group in range(groups):
            m.submodules[f"sigmoid_{group}"] = sigmoid = Sigmoid(form)
            lane = group * self.TURNS
            own = slice(lane, lane + self.TURNS)
            margins = self.margins[lane * width : (lane + self.TURNS) * width]
            m.d.sync += [
                sigmoid.margin.eq(margins.word_select(turn, width)),
                sigmoid.negative.eq(self.negative[own].bit_select(turn, 1)),
                sigmoid.present.eq(self.present[own].bit_select(turn, 1)),
            ]
            m.d.comb += [
                sigmoid.refinement.eq(self.refinement),
                tree.terms.word_select(group, RISE_BITS).eq(sigmoid.rise),
            ]
            ahead = [delayed(m, sigmoid.residual, 1, f"residual_{group}")]
            for turns in range(2, self.TURNS):
                ahead.append(delayed(m, ahead[-1], 1, f"residual_{group}_{turns}"))
            m.d.comb += self.residuals[lane * RESIDUAL_BITS :][: self.TURNS * RESIDUAL_BITS].eq(
                Cat(*reversed(ahead), sigmoid.residual)
            )

        # The first rises come out of the tree so long after the start.
        first = delayed(m, self.start, Sigmoid.LATENCY + tree.levels, "first")
        m.d.sync += self.curvature.eq(Mux(first, 0, self.curvature) + tree.total)
        m.d.comb += [
            self.valid.eq(delayed(m, self.start, self.LATENCY, "valid")),
            self.curvature_valid.eq(delayed(m, first, self.TURNS, "curvature_valid")),
        ]
        return m
