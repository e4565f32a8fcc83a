"""What happens to a beat and when: targets, entries, tiles, mini-batches, and what waits."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic import delayed
from .formats import BATCH_TILES_LIMIT, Format

__all__ = ["FrontBuffer", "Sequencer"]


class FrontBuffer(wiring.Component):
    """A short queue at the door. Taking a beat moves a pointer, and no wide register.

    What comes in waits a cycle in a register: of the wires outside, nothing is known.
    """

    DEPTH = 16

    def __init__(self, width: int) -> None:
        super().__init__(
            {
                "in_valid": In(1),
                "in_ready": Out(1),
                "in_data": In(width),
                "out_valid": Out(1),
                "out_ready": In(1),
                "out_data": Out(width),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        memory = Memory(shape=len(self.in_data), depth=self.DEPTH, init=[])
        m.submodules.memory = memory
        write, read = memory.write_port(), memory.read_port(domain="comb")
        held, held_next = Signal(range(self.DEPTH + 1)), Signal(range(self.DEPTH + 1))
        push, pop = Signal(), Signal()
        arrived = Signal.like(self.in_data, reset_less=True)
        m.d.sync += [push.eq(self.in_valid & self.in_ready), arrived.eq(self.in_data)]
        m.d.comb += [
            pop.eq(self.out_valid & self.out_ready),
            held_next.eq(held + push - pop),
            write.en.eq(push),
            write.data.eq(arrived),
            self.out_data.eq(read.data),
        ]
        m.d.sync += [
            held.eq(held_next),
            self.out_valid.eq(held_next != 0),
            self.in_ready.eq(held < self.DEPTH - 2),  # the three on their way then still fit
        ]
        with m.If(push):
            m.d.sync += write.addr.eq(write.addr + 1)
        with m.If(pop):
            m.d.sync += read.addr.eq(read.addr + 1)
        return m


class Sequencer(wiring.Component):
    """Takes beats while a run has tiles left and names each.

    `issue` is a beat of codes, or a tile's last beat of targets, in whose cycle the intercept takes
    its turn: entry 0 (`first`), the columns being 1 to `columns` (`last`). `batch_start`,
    `batch_end` and `run_end` describe the tile that `last` ends; `in_codes` says what the beat at
    hand is, taken or not. Behind the end of a mini-batch nothing is issued until `update_begins`,
    unless the run is delayed.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                "start": In(1),
                "columns": In(form.entry_bits),
                "batch_tiles": In(range(BATCH_TILES_LIMIT + 1)),
                "tiles": In(32),
                "is_delayed": In(1),
                "beat_valid": In(1),
                "beat_last": In(1),
                "beat_ready": Out(1),
                "update_begins": In(1),
                "update_ends": In(1),
                "in_codes": Out(1),
                "load_target": Out(1),
                "issue": Out(1),
                "first": Out(1),
                "last": Out(1),
                "entry": Out(form.entry_bits),
                "batch_start": Out(1),
                "batch_end": Out(1),
                "run_end": Out(1),
                "busy": Out(1),
                "done": Out(1),
                "early_last": Out(1),
                "missing_last": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        takes = Signal()  # beats are wanted
        tiles_left = Signal(32)
        tiles_of_batch = Signal(range(BATCH_TILES_LIMIT + 1))  # left, this one included
        target = Signal(range(form.target_beats))
        only_target = form.target_beats == 1
        # All of these are known ahead, so that `beat_ready` is.
        last_target = Signal(init=only_target)
        in_codes = Signal()
        entry = Signal(form.entry_bits)
        last_entry = Signal()
        waits = Signal()
        final_tile = Signal()
        m.d.comb += [
            self.entry.eq(entry),
            self.in_codes.eq(in_codes),
            self.run_end.eq(final_tile),
            self.batch_end.eq(final_tile | (tiles_of_batch == 1)),
            self.beat_ready.eq(takes & ~(waits & (in_codes | last_target))),
            self.load_target.eq(self.beat_valid & self.beat_ready & ~in_codes),
            self.issue.eq(self.beat_valid & self.beat_ready & (in_codes | last_target)),
            self.first.eq(self.issue & ~in_codes),
            self.last.eq(self.issue & in_codes & last_entry),
        ]

        with m.If(self.load_target):
            m.d.sync += [
                target.eq(target + 1),
                last_target.eq(only_target | (target == form.target_beats - 2)),
            ]
            with m.If(last_target):
                m.d.sync += [target.eq(0), in_codes.eq(1), entry.eq(1)]
        with m.If(self.issue & in_codes):
            m.d.sync += [entry.eq(entry + 1), last_entry.eq(entry + 1 == self.columns)]
        with m.If(self.update_begins):
            m.d.sync += waits.eq(0)
        with m.If(self.last):
            m.d.sync += [
                in_codes.eq(0),
                entry.eq(0),
                last_entry.eq(0),
                waits.eq(self.batch_end & ~self.is_delayed),
            ]
            with m.If(final_tile):
                m.d.sync += takes.eq(0)
        with m.If(delayed(m, self.last, 1, "counted")):  # there is time until the next one
            m.d.sync += [
                tiles_left.eq(tiles_left - 1),
                final_tile.eq(tiles_left == 2),
                self.batch_start.eq(self.batch_end),
                tiles_of_batch.eq(tiles_of_batch - 1),
            ]
            with m.If(self.batch_end):
                m.d.sync += tiles_of_batch.eq(self.batch_tiles)

        with m.If(self.beat_valid & self.beat_ready & (self.beat_last != self.last)):
            m.d.sync += [takes.eq(0), self.busy.eq(0)]
            with m.If(self.beat_last):
                m.d.sync += self.early_last.eq(1)
            with m.Else():
                m.d.sync += self.missing_last.eq(1)
        with m.If(self.update_ends & self.busy):
            m.d.sync += [self.busy.eq(0), self.done.eq(1)]

        with m.If(self.start):
            m.d.sync += [
                takes.eq(1),
                self.busy.eq(1),
                self.done.eq(0),
                tiles_left.eq(self.tiles),
                final_tile.eq(self.tiles == 1),
                tiles_of_batch.eq(self.batch_tiles),
                self.batch_start.eq(1),
                waits.eq(0),
                target.eq(0),
                last_target.eq(only_target),
                in_codes.eq(0),
                entry.eq(0),
                last_entry.eq(0),
            ]
        return m
