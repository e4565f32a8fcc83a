"""The row buffer: a tile's codes wait here until its residuals are known, and come once more."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .formats import Format

__all__ = ["Replay"]


class Replay(wiring.Component):
    """A ring of beats. `start` begins with the oldest entry in the next cycle.

    `issue` and `entry` name the entry whose codes come `LATENCY` cycles later. In a delayed run an
    entry waits until that of the next tile has passed, unless there is none (`run_end`).
    """

    LATENCY = 2

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                "write": In(1),
                "write_codes": In(form.codes_bits),
                "columns": In(form.entry_bits),
                "is_delayed": In(1),
                "run_end": In(1),
                "start": In(1),
                "issue": Out(1),
                "entry": Out(form.entry_bits),
                "last": Out(1),
                "codes": Out(form.codes_bits),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        m.submodules.memory = memory = Memory(shape=form.codes_bits, depth=form.depth, init=[])
        write, read = memory.write_port(), memory.read_port()
        running = Signal()
        held = Signal(form.entry_bits + 1)
        ahead = Signal()
        tile_entries = Signal(form.entry_bits + 1)
        codes = Signal(form.codes_bits, reset_less=True)
        m.d.comb += [
            write.en.eq(self.write),
            write.data.eq(self.write_codes),
            ahead.eq(~self.is_delayed | self.run_end | (held > tile_entries)),
            self.issue.eq(running & ahead),
            self.last.eq(self.issue & (self.entry == self.columns)),
        ]
        m.d.comb += self.codes.eq(codes)
        m.d.sync += [tile_entries.eq(self.columns + 1), codes.eq(read.data)]
        m.d.sync += held.eq(held + self.write - self.issue)
        with m.If(self.write):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(self.issue):
            m.d.sync += [read.addr.eq(read.addr + 1), self.entry.eq(self.entry + 1)]
            with m.If(self.last):
                m.d.sync += running.eq(0)
        with m.If(self.start):
            m.d.sync += [running.eq(1), self.entry.eq(0)]
        return m
