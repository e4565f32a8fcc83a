"""From float32 to codes of 16 bits, at the door."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed
from .formats import FLOAT_FRACTION, Format

__all__ = ["FloatUnpacker"]

_BIAS, _MANTISSA_BITS = 127, 23
_SMALLEST_FAR = _BIAS + 15 - FLOAT_FRACTION  # the exponent of values that 16 bits do not hold
_PLACES = _MANTISSA_BITS - 15  # by which a mantissa is shifted at least, but for half a unit


class FloatUnpacker(wiring.Component):
    """The codes of a beat of values, `LATENCY` cycles later: `floats.float_codes` in gates."""

    LATENCY = 3

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__({"beat": In(form.beat_bits), "codes": Out(form.codes_bits)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for lane in range(self.form.lanes):
            word = self.beat.word_select(lane, 32)
            mantissa, exponent, sign = word[:_MANTISSA_BITS], word[_MANTISSA_BITS:31], word[31]
            # Cycle 0: a signed number, and how far it is to be shifted. Zero and denormal numbers
            # are shifted out with the others that are small.
            number = Signal(signed(_MANTISSA_BITS + 2), name=f"number_{lane}", reset_less=True)
            places = Signal(5, name=f"places_{lane}", reset_less=True)
            one = Cat(mantissa, 1)
            less = Signal(signed(10), name=f"less_{lane}")
            m.d.comb += less.eq(_SMALLEST_FAR - 1 - exponent)
            far = delayed(m, less < 0, 2, f"far_{lane}")
            below = delayed(m, sign, 2, f"below_{lane}")
            m.d.sync += [
                number.eq(Mux(sign, -one, one)),
                places.eq(Mux(less > 31, 31, less[:5])),
            ]
            # 1: twice the code, rounded down. 2: rounded, clipped, and moved to the centre.
            twice = Signal(signed(_MANTISSA_BITS + 2 - _PLACES), name=f"twice_{lane}")
            m.d.sync += twice.eq((number >> _PLACES) >> places)
            rounded = Signal(signed(17), name=f"rounded_{lane}")
            code = Signal(16, name=f"code_{lane}", reset_less=True)
            m.d.comb += rounded.eq((twice + 1) >> 1)
            outside = far | (rounded[16] != rounded[15])
            m.d.sync += code.eq(Mux(outside, (~below).replicate(16), rounded[:16] ^ 0x8000))
            m.d.comb += self.codes.word_select(lane, 16).eq(code)
        return m
