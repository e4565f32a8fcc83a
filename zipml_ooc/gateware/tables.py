"""The memories of the model and of what its updates need; where a host reads and writes them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .formats import MODEL_BITS, TABLE_BITS, Format, Table

__all__ = ["Tables"]


class Tables(wiring.Component):
    """Model, centre, pace, variance; each answers two cycles after its entry is named.

    `dot_entry` names an entry for the margins, `update_entry` one for an update. While the host has
    the tables (`host`) it names entries instead and may write them. Entry 0 of the centres is 0.
    """

    LATENCY = 2

    def __init__(self, form: Format) -> None:
        self.form = form
        entry = form.entry_bits
        super().__init__(
            {
                "dot_entry": In(entry),
                "dot_model": Out(signed(MODEL_BITS)),
                "dot_centre": Out(TABLE_BITS),
                "update_entry": In(entry),
                "model": Out(signed(MODEL_BITS)),
                "centre": Out(TABLE_BITS),
                "pace": Out(TABLE_BITS),
                "variance": Out(TABLE_BITS),
                "new_valid": In(1),
                "new_entry": In(entry),
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

        def table(table: Table, shape: Any, value: Any, *readers: tuple[Any, Any]) -> Any:
            name = table.name.lower()
            memory = Memory(shape=shape, depth=depth, init=[])
            m.submodules[name] = memory
            write = memory.write_port()
            m.d.comb += [
                write.addr.eq(self.host_entry),
                write.data.eq(self.host_value),
                write.en.eq(self.host & self.host_write & (self.host_table == table)),
            ]
            for entry, out in readers:
                read = memory.read_port()
                m.d.comb += read.addr.eq(entry)
                m.d.sync += out.eq(read.data)
            with m.If(self.host_table == table):
                m.d.comb += self.host_read.eq(value)
            return write

        model = table(
            Table.MODEL,
            signed(MODEL_BITS),
            self.model,
            (self.dot_entry, self.dot_model),
            (update_entry, self.model),
        )
        with m.If(~self.host):
            m.d.comb += [
                model.addr.eq(self.new_entry),
                model.data.eq(self.new_model),
                model.en.eq(self.new_valid),
            ]
        centre = table(
            Table.CENTRE,
            TABLE_BITS,
            self.centre,
            (self.dot_entry, self.dot_centre),
            (update_entry, self.centre),
        )
        with m.If(self.host_entry == 0):
            m.d.comb += centre.en.eq(0)
        table(Table.PACE, TABLE_BITS, self.pace, (update_entry, self.pace))
        table(Table.VARIANCE, TABLE_BITS, self.variance, (update_entry, self.variance))
        return m
