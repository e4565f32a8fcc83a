"""The memories of the model and of what its updates need; where a host reads and writes them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed
from .formats import MODEL_BITS, TABLE_BITS, Format, Table

__all__ = ["Tables"]


class Tables(wiring.Component):
    """Model, centre, pace, variance.

    `update_entry` names an entry for an update, which is answered `LATENCY` cycles later, and
    `dot_entry` one for the margins, answered after `DOT_LATENCY`. The margins may ask for an entry
    of the model three cycles before its new value is there, two before `ahead_*` name it: they
    get the new one. They get `COPIES` of it, each for its part of the lanes; every other one is
    inverted. While the host has the tables (`host`) it names entries instead and may write them.
    Entry 0 of the centres is 0.
    """

    LATENCY = 2
    DOT_LATENCY = 4
    COPIES = 4

    def __init__(self, form: Format) -> None:
        self.form = form
        entry = form.entry_bits
        super().__init__(
            {
                "dot_entry": In(entry),
                "dot_models": Out(self.COPIES * MODEL_BITS),
                "dot_model": Out(signed(MODEL_BITS)),
                "dot_centre": Out(TABLE_BITS),
                "update_entry": In(entry),
                "model": Out(signed(MODEL_BITS)),
                "centre": Out(TABLE_BITS),
                "pace": Out(TABLE_BITS),
                "variance": Out(TABLE_BITS),
                "ahead_valid": In(1),
                "ahead_entry": In(entry),
                "new_model": In(signed(MODEL_BITS)),
                "host": In(1),
                "host_table": In(3),
                "host_entry": In(entry),
                "host_write": In(1),
                "host_value": In(TABLE_BITS),
                "host_read": Out(TABLE_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        depth = self.form.depth
        update_entry = Signal.like(self.update_entry)
        m.d.comb += update_entry.eq(Mux(self.host, self.host_entry, self.update_entry))

        def table(table: Table, shape: Any, value: Any) -> tuple[Any, Any]:
            """A memory that the host may write and an update reads."""
            name = table.name.lower()
            memory = Memory(shape=shape, depth=depth, init=[])
            m.submodules[name] = memory
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [
                write.addr.eq(self.host_entry),
                write.data.eq(self.host_value),
                write.en.eq(self.host & self.host_write & (self.host_table == table)),
                read.addr.eq(update_entry),
            ]
            m.d.sync += value.eq(read.data)
            with m.If(self.host_table == table):
                m.d.sync += self.host_read.eq(value)
            return memory, write

        memory, model = table(Table.MODEL, signed(MODEL_BITS), self.model)
        new_valid = delayed(m, self.ahead_valid, 1, "new_valid")
        new_entry = Signal.like(self.ahead_entry)
        m.d.sync += new_entry.eq(self.ahead_entry)
        with m.If(~self.host):
            m.d.comb += [
                model.addr.eq(new_entry),
                model.data.eq(self.new_model),
                model.en.eq(new_valid),
            ]
        # Two cycles after an entry is asked for: it is just new, it was new, or it is stored; and
        # in the next cycle it may be new again.
        read = memory.read_port()
        is_new, was_new, was_older, is_held = Signal(), Signal(), Signal(), Signal()
        is_newest = Signal()
        entry, entry_later = Signal.like(self.dot_entry), Signal.like(self.dot_entry)
        last_model = Signal(signed(MODEL_BITS), reset_less=True)
        held = Signal(signed(MODEL_BITS), reset_less=True)
        stored = Signal(signed(MODEL_BITS), reset_less=True)
        found = Signal(signed(MODEL_BITS), reset_less=True)
        m.d.comb += read.addr.eq(self.dot_entry)
        m.d.sync += [
            found.eq(Mux(is_new, self.new_model, Mux(is_held, held, stored))),
            entry.eq(self.dot_entry),
            entry_later.eq(entry),
            is_newest.eq(self.ahead_valid & (self.ahead_entry == entry_later)),
            was_new.eq(self.ahead_valid & (self.ahead_entry == self.dot_entry)),
            was_older.eq(new_valid & (new_entry == self.dot_entry)),
            is_new.eq(self.ahead_valid & (self.ahead_entry == entry)),
            last_model.eq(self.new_model),
            held.eq(Mux(was_new, self.new_model, last_model)),
            is_held.eq(was_new | was_older),
            stored.eq(read.data),
        ]
        for i in range(self.COPIES):
            # Registers of the same value become one, unless they begin differently.
            copy = Signal(signed(MODEL_BITS), init=-(i >> 1), reset_less=True, name=f"copy_{i}")
            value = Mux(is_newest, self.new_model, found)
            m.d.sync += copy.eq(~value if i % 2 else value)
            m.d.comb += self.dot_models.word_select(i, MODEL_BITS).eq(copy)
        m.d.comb += self.dot_model.eq(self.dot_models[:MODEL_BITS])

        memory, centre = table(Table.CENTRE, TABLE_BITS, self.centre)
        read = memory.read_port()
        m.d.comb += read.addr.eq(self.dot_entry)
        m.d.sync += self.dot_centre.eq(delayed(m, read.data, 2, "dot_centre"))
        with m.If(self.host_entry == 0):
            m.d.comb += centre.en.eq(0)
        table(Table.PACE, TABLE_BITS, self.pace)
        table(Table.VARIANCE, TABLE_BITS, self.variance)
        return m
