"""Parts of the pipelines: sums over lanes, wide products, the generator of the roundings."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .formats import DRAW_BITS, Format

__all__ = ["AdderTree", "CodeProduct", "WideProduct", "XorShift", "delayed", "saturated"]

_LIMB = 17  # unsigned digits that fit a signed multiplier of 18 bits


def delayed(m: Module, value: Value, cycles: int, name: str) -> Value:
    """The value so many cycles ago; flags obey the reset, wider values need none."""
    for stage in range(cycles):
        later = Signal.like(value, name=f"{name}_{stage + 1}", reset_less=len(value) > 1)
        m.d.sync += later.eq(value)
        value = later
    return value


def saturated(value: Value, bits: int) -> tuple[Value, Value]:
    """The nearest signed number of so many bits, and whether that is another one."""
    head = value[bits - 1 :]
    outside = (head != 0) & (~head != 0)
    sign = value[-1]
    limit = Cat((~sign).replicate(bits - 1), sign)
    return Mux(outside, limit, value[:bits]).as_signed(), outside


class AdderTree(wiring.Component):
    """The sum of many numbers, one set a cycle, `latency` cycles later.

    Parameters
    ----------
    count : int
        A power of two.
    width : int
        Bits of a number.
    is_signed : bool
    is_held : bool
        Whether the sum itself is in a register, or only its two parts.
    """

    def __init__(self, count: int, width: int, *, is_signed: bool, is_held: bool = True) -> None:
        self.count, self.width, self.is_signed, self.is_held = count, width, is_signed, is_held
        self.levels = count.bit_length() - 1
        self.latency = self.levels - (not is_held)
        total = width + self.levels
        super().__init__(
            {
                "terms": In(count * width),
                "total": Out(signed(total) if is_signed else total),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        values: list[Value] = [self.terms.word_select(i, self.width) for i in range(self.count)]
        if self.is_signed:
            values = [value.as_signed() for value in values]
        for level in range(self.levels):
            width = self.width + level + 1
            shape = signed(width) if self.is_signed else width
            sums = []
            for i in range(0, len(values), 2):
                part = Signal(shape, name=f"sum_{level}_{i // 2}", reset_less=True)
                domain = m.d.sync if level < self.latency else m.d.comb
                domain += part.eq(values[i] + values[i + 1])
                sums.append(part)
            values = sums
        m.d.comb += self.total.eq(values[0])
        return m


class CodeProduct(wiring.Component):
    """A number times a code, `form.product_latency` cycles later, without a multiplier.

    Multipliers stand in a few columns of a device. A product for each of 64 rows spreads over all
    of them, and the ways there and back take longer than the product; adders lie where they are
    needed, and a code has few bits.
    """

    def __init__(self, form: Format, width: int) -> None:
        self.form, self.width = form, width
        super().__init__(
            {
                "value": In(signed(width)),
                "code": In(form.bits),
                "product": Out(signed(width + form.bits)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        # A term for each bit; neighbours are added, no wider than they have to be.
        terms: list[Value] = [Mux(bit, self.value, C(0, signed(1))) for bit in self.code]
        bits, stage = 1, 0
        while stage == 0 or len(terms) > 1:
            wider = []
            for i in range(0, len(terms), 2):
                pair = terms[i : i + 2]
                size = self.width + bits * len(pair)
                total = Signal(signed(size), name=f"sum_{stage}_{i // 2}", reset_less=True)
                m.d.sync += total.eq(pair[0] if len(pair) == 1 else pair[0] + (pair[1] << bits))
                wider.append(total)
            terms, bits, stage = wider, 2 * bits, stage + 1
        m.d.comb += self.product.eq(terms[0])
        return m


class WideProduct(wiring.Component):
    """The product of a wide number and one that fits a multiplier, two cycles later.

    Parameters
    ----------
    width : int
        Bits of `a`, up to 51, or 34 if `b` is signed.
    a_signed, b_signed : bool
    b_width : int
        Up to 17 bits, 18 if signed.
    """

    def __init__(self, width: int, b_width: int, *, a_signed: bool, b_signed: bool) -> None:
        self.a_signed, self.b_signed = a_signed, b_signed
        limbs = -(-width // _LIMB)
        if limbs > (2 if b_signed else 3) or b_width > (18 if b_signed else 17):
            raise ValueError(f"a product of {width} and {b_width} bits is too wide")
        self.limbs = limbs
        product = width + b_width
        is_signed = a_signed or b_signed
        super().__init__(
            {
                "a": In(signed(width) if a_signed else width),
                "b": In(signed(b_width) if b_signed else b_width),
                "product": Out(signed(product) if is_signed else product),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        parts: list[Value] = []
        for i in range(self.limbs):
            limb: Value = self.a[i * _LIMB : (i + 1) * _LIMB]
            if i == self.limbs - 1 and self.a_signed:
                limb = limb.as_signed()
            exact = limb * self.b
            part = Signal(exact.shape(), name=f"part_{i}", reset_less=True)
            m.d.sync += part.eq(exact)
            parts.append(part)
        if self.limbs == 3:  # the outer digits do not overlap: one addition is enough
            low = Signal(2 * _LIMB)
            m.d.comb += low.eq(parts[0])
            outer = Cat(low, parts[2])
            total = (outer.as_signed() if self.a_signed else outer) + (parts[1] << _LIMB)
        else:
            total = parts[0]
            for i, part in enumerate(parts[1:], 1):
                total = total + (part << (_LIMB * i))
        product = Signal(self.product.shape(), reset_less=True)
        m.d.sync += product.eq(total)
        m.d.comb += self.product.eq(product)
        return m


class XorShift(wiring.Component):
    """Marsaglia's xorshift64 with shifts 13, 7, 17; a draw is the upper 16 bits of the new state.

    `draw` holds the number for the advance of the cycle before. `load` sets half of the state.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "advance": In(1),
                "load_low": In(1),
                "load_high": In(1),
                "value": In(32),
                "state": Out(64, init=1),
                "draw": Out(DRAW_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        x: Value = self.state
        x = x ^ (x << 13)[:64]
        x = x ^ x[7:]
        x = x ^ (x << 17)[:64]
        m.d.comb += self.draw.eq(self.state[-DRAW_BITS:])
        with m.If(self.advance):
            m.d.sync += self.state.eq(x)
        with m.Elif(self.load_low):
            m.d.sync += self.state[:32].eq(self.value)
        with m.Elif(self.load_high):
            m.d.sync += self.state[32:].eq(self.value)
        return m
