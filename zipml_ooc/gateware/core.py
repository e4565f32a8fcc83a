"""The pipelines put together: beats in, model updated; without the host's registers.

A tile's beats go to `Dot` and into `Replay` at once. Its residuals appear a fixed time after its
last beat, just as its codes come out of `Replay` again for `GradientTree`, while the next tile
already goes to `Dot`. Sums of a mini-batch that goes on are kept in a memory; at its end they go
through `Update`, and the new entries into the model.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .arithmetic import AdderTree, XorShift, delayed
from .dot import Dot, Unpacker
from .float_unpacker import FloatUnpacker
from .formats import (
    BATCH_TILES_LIMIT,
    CURVATURE_SHIFT,
    LOGISTIC_LATENCY,
    STEP_BITS,
    TABLE_BITS,
    TARGET_BITS,
    Format,
    intercept_code,
)
from .gradient import GradientTree
from .replay import Replay
from .sequencer import FrontBuffer, Sequencer
from .tables import Tables
from .update import Update

__all__ = ["Core"]


class Core(wiring.Component):
    """See the module. Settings hold still while `busy`."""

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                # AXI4-Stream
                "tvalid": In(1),
                "tready": Out(1),
                "tdata": In(form.beat_bits),
                "tlast": In(1),
                # settings
                "start": In(1),
                "columns": In(form.entry_bits),
                "batch_tiles": In(range(BATCH_TILES_LIMIT + 1)),
                "tiles": In(32),
                "step": In(STEP_BITS),
                "shift": In(5),
                "is_delayed": In(1),
                "is_logistic": In(1),
                "is_hinge": In(1),
                "refinement": In(2),
                # generator
                "load_low": In(1),
                "load_high": In(1),
                "seed": In(32),
                "random_state": Out(64),
                # state
                "busy": Out(1),
                "done": Out(1),
                "early_last": Out(1),
                "missing_last": Out(1),
                "model_saturated": Out(1),
                "residual_saturated": Out(1),
                "cycles": Out(64),
                "beats": Out(64),
                "stalls": Out(64),
                # tables
                "host_table": In(3),
                "host_entry": In(form.entry_bits),
                "host_write": In(1),
                "host_value": In(TABLE_BITS),
                "host_read": Out(TABLE_BITS),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        m.submodules.front = front = FrontBuffer(form.beat_bits + 1)
        m.submodules.unpacker = unpacker = FloatUnpacker(form) if form.is_float else Unpacker(form)
        m.submodules.sequencer = seq = Sequencer(form)
        m.submodules.tables = tables = Tables(form)
        m.submodules.dot = dot = Dot(form)
        m.submodules.replay = replay = Replay(form)
        m.submodules.tree = tree = GradientTree(form)
        m.submodules.update = update = Update(form)
        m.submodules.random = random = XorShift()

        # Beats: targets into a register, codes (and the intercept's own) to the pipelines.
        beat, beat_last = front.out_data[: form.beat_bits], front.out_data[-1]
        m.d.comb += [
            front.in_valid.eq(self.tvalid),
            front.in_data.eq(Cat(self.tdata, self.tlast)),
            self.tready.eq(front.in_ready),
            front.out_ready.eq(seq.beat_ready),
            seq.beat_valid.eq(front.out_valid),
            seq.beat_last.eq(beat_last),
        ]
        # Decisions drive many gates, and the model takes its time: they take effect on a copy of
        # the beat, which meets it.
        ahead = tables.DOT_LATENCY - 1
        beats = [beat]
        for stage in range(ahead):
            beats.append(delayed(m, beats[-1], 1, f"beat_{stage}"))
        beat_taken = beats[-1]
        targets = Signal(form.lanes * TARGET_BITS, reset_less=True)
        with m.If(delayed(m, seq.load_target, ahead, "load_target")):
            m.d.sync += targets.eq(Cat(targets[form.beat_bits :], beat_taken))
        codes = Signal(form.codes_bits, reset_less=True)
        own = C(intercept_code(form.bits), form.bits).replicate(form.lanes)
        in_codes = delayed(m, seq.in_codes, ahead, "in_codes")
        m.d.comb += unpacker.beat.eq(beats[ahead - unpacker.LATENCY])
        m.d.sync += codes.eq(Mux(in_codes, unpacker.codes, own))

        issued = delayed(m, seq.issue, tables.DOT_LATENCY, "issue")
        m.d.comb += [
            tables.dot_entry.eq(seq.entry),
            dot.valid.eq(issued),
            dot.first.eq(delayed(m, seq.first, tables.DOT_LATENCY, "first")),
            dot.last.eq(delayed(m, seq.last, tables.DOT_LATENCY, "last")),
            dot.codes.eq(codes),
            dot.model.eq(tables.dot_model),
            dot.models.eq(tables.dot_models),
            dot.centre.eq(tables.dot_centre),
            dot.targets.eq(targets),
            dot.is_logistic.eq(self.is_logistic),
            dot.is_hinge.eq(self.is_hinge),
            dot.refinement.eq(self.refinement),
            replay.write.eq(issued),
            replay.write_codes.eq(codes),
        ]

        # Once more, so that codes and residuals meet: `start` takes a cycle.
        residual_latency = tables.DOT_LATENCY + form.residual_latency
        wait = residual_latency - replay.LATENCY - 1
        batch_start, batch_end, run_end = Signal(), Signal(), Signal()

        def later(early: Value, cycles: int, name: str) -> Value:
            """What is so many cycles later for the logistic loss."""
            return Mux(self.is_logistic, delayed(m, early, cycles, name), early)

        ended = later(delayed(m, seq.last, wait, "ended"), LOGISTIC_LATENCY, "ended_late")
        about = delayed(m, Cat(seq.batch_start, seq.batch_end, seq.run_end), wait, "about")
        about_ended = later(about, LOGISTIC_LATENCY, "about_late")
        with m.If(ended):
            m.d.sync += Cat(batch_start, batch_end, run_end).eq(about_ended)
        m.d.comb += [
            replay.start.eq(ended),
            replay.columns.eq(self.columns),
            replay.is_delayed.eq(self.is_delayed),
            replay.run_end.eq(run_end),
            tree.codes.eq(replay.codes),
            tree.residuals.eq(dot.residuals),
        ]

        # Curvatures of the mini-batch: rows that count, or a sum of the logistic loss.
        m.submodules.count = count = AdderTree(form.lanes, 1, is_signed=False)
        counted = delayed(m, dot.counts_valid, count.levels, "counted") | dot.curvature_valid
        summed = Signal(form.curvature_bits)
        curvature = Signal.like(update.curvature, reset_less=True)
        # Whether the tile that is counted starts a mini-batch.
        starts = delayed(m, seq.batch_start, residual_latency - 2 + count.levels, "starts")
        starts = later(starts, LOGISTIC_LATENCY - 2, "starts_late")
        m.d.comb += count.terms.eq(dot.counts)
        with m.If(counted):
            more = Mux(self.is_logistic, dot.curvature, count.total)
            m.d.sync += summed.eq(Mux(starts, 0, summed) + more)
        shift = CURVATURE_SHIFT + self.refinement
        m.d.sync += curvature.eq(Mux(self.is_logistic, summed >> shift, summed))

        # Gradient: the memory and the tables are asked so that they answer with the tree.
        tree_latency = replay.LATENCY + tree.latency
        asked = tree_latency - tables.LATENCY
        entry_asked = delayed(m, replay.entry, asked, "entry_asked")
        entry_summed = delayed(m, entry_asked, tables.LATENCY + 1, "entry_summed")
        summed_first = Signal()
        valid = delayed(m, replay.issue, tree_latency, "gradient_valid")
        goes_on = delayed(m, ~batch_start, tree_latency, "goes_on")
        ends = delayed(m, batch_end, tree_latency + 1, "ends")
        m.submodules.gradients = gradients = Memory(
            shape=signed(form.gradient_bits), depth=form.depth, init=[]
        )
        stored, kept = gradients.write_port(), gradients.read_port()
        before = Signal(signed(form.gradient_bits), reset_less=True)
        gradient = Signal(signed(form.gradient_bits), reset_less=True)
        gradient_valid = Signal()
        m.d.comb += [
            kept.addr.eq(entry_asked),
            stored.addr.eq(entry_summed),
            stored.data.eq(gradient),
            stored.en.eq(gradient_valid),
            summed_first.eq(entry_summed == 0),
        ]
        m.d.sync += [
            before.eq(kept.data),
            gradient.eq(Mux(goes_on, before, 0) + tree.total),
            gradient_valid.eq(valid),
        ]

        # Update.
        ends_now = Signal()
        entry_ahead = delayed(m, entry_summed, update.LATENCY - 1, "entry_ahead")
        ends_run = delayed(m, run_end, tree_latency + update.LATENCY, "ends_run")
        m.d.comb += [
            tables.update_entry.eq(entry_asked),
            update.model.eq(tables.model),
            update.centre.eq(tables.centre),
            update.pace.eq(tables.pace),
            update.variance.eq(tables.variance),
            update.curvature.eq(curvature),
            update.step.eq(self.step),
            update.shift.eq(self.shift),
            update.valid.eq(gradient_valid & ends),
            update.first.eq(summed_first),
            update.gradient.eq(gradient),
            update.draw.eq(random.draw),
            random.advance.eq(update.advance),
            tables.ahead_valid.eq(update.ahead_valid),
            tables.ahead_entry.eq(entry_ahead),
            tables.new_model.eq(update.new_model),
            seq.update_begins.eq(update.begins),
            seq.update_ends.eq(delayed(m, ends_now, 1, "ends_now")),
        ]

        m.d.comb += ends_now.eq(update.ahead_valid & (entry_ahead == self.columns) & ends_run)

        # The host's side.
        m.d.comb += [
            seq.start.eq(self.start),
            seq.columns.eq(self.columns),
            seq.batch_tiles.eq(self.batch_tiles),
            seq.tiles.eq(self.tiles),
            seq.is_delayed.eq(self.is_delayed),
            self.busy.eq(seq.busy),
            self.done.eq(seq.done),
            self.early_last.eq(seq.early_last),
            self.missing_last.eq(seq.missing_last),
            random.load_low.eq(self.load_low),
            random.load_high.eq(self.load_high),
            random.value.eq(self.seed),
            self.random_state.eq(random.state),
            tables.host.eq(~seq.busy),
            tables.host_table.eq(self.host_table),
            tables.host_entry.eq(self.host_entry),
            tables.host_write.eq(self.host_write),
            tables.host_value.eq(self.host_value),
            self.host_read.eq(tables.host_read),
        ]
        offered = front.out_valid & seq.busy
        beat_was = delayed(m, offered & seq.beat_ready, 1, "beat_was")
        stall_was = delayed(m, offered & ~seq.beat_ready, 1, "stall_was")
        with m.If(update.saturated):
            m.d.sync += self.model_saturated.eq(1)
        with m.If(dot.saturated):
            m.d.sync += self.residual_saturated.eq(1)
        with m.If(seq.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        with m.If(beat_was):
            m.d.sync += self.beats.eq(self.beats + 1)
        with m.If(stall_was):
            m.d.sync += self.stalls.eq(self.stalls + 1)
        with m.If(self.start):
            m.d.sync += [
                self.cycles.eq(0),
                self.beats.eq(0),
                self.stalls.eq(0),
                self.model_saturated.eq(0),
                self.residual_saturated.eq(0),
            ]
        return m
