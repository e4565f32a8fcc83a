"""AXI4-Lite: the registers and tables of docs/accelerator.md, one access at a time."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import C, Cat, Module, Mux, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .core import Core
from .formats import (
    BATCH_TILES_LIMIT,
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    IDENTITY,
    LEAST_EXPONENT,
    STEP_BITS,
    VERSION,
    Error,
    Format,
    Loss,
    Register,
    Status,
    Table,
)

__all__ = ["Accelerator"]

_OKAY, _SLVERR = 0, 2
_ADDRESS_BITS = 19


def _is_entry(address: Value, form: Format) -> Value:
    """Whether an address is that of a table's entry."""
    known = (address[16:] >= min(Table)) & (address[16:] <= max(Table))
    return known & (address[:2] == 0) & (address[2:16] < form.depth)


class Accelerator(wiring.Component):
    """The whole: a `Core` behind AXI4-Lite registers.

    Signals are named as in AMBA AXI4, in lower case: ``s_axil_*`` for the registers, ``s_axis_*``
    for the stream.
    """

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__(
            {
                "s_axil_awaddr": In(_ADDRESS_BITS),
                "s_axil_awvalid": In(1),
                "s_axil_awready": Out(1),
                "s_axil_wdata": In(32),
                "s_axil_wstrb": In(4),
                "s_axil_wvalid": In(1),
                "s_axil_wready": Out(1),
                "s_axil_bresp": Out(2),
                "s_axil_bvalid": Out(1),
                "s_axil_bready": In(1),
                "s_axil_araddr": In(_ADDRESS_BITS),
                "s_axil_arvalid": In(1),
                "s_axil_arready": Out(1),
                "s_axil_rdata": Out(32),
                "s_axil_rresp": Out(2),
                "s_axil_rvalid": Out(1),
                "s_axil_rready": In(1),
                "s_axis_tdata": In(form.beat_bits),
                "s_axis_tvalid": In(1),
                "s_axis_tready": Out(1),
                "s_axis_tlast": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        form = self.form
        soft_reset = Signal()
        core = Core(form)
        m.submodules.core = ResetInserter(soft_reset)(core)
        m.d.comb += [
            core.tvalid.eq(self.s_axis_tvalid),
            core.tdata.eq(self.s_axis_tdata),
            core.tlast.eq(self.s_axis_tlast),
            self.s_axis_tready.eq(core.tready & ~soft_reset),
        ]

        columns = Signal(32)
        batch_tiles = Signal(32, init=1)
        tiles = Signal(32)
        step = Signal(STEP_BITS)
        shift = Signal(5)
        loss = Signal(32)
        mode = Signal(1)
        least = LEAST_EXPONENT + max(0, form.bits - 4)
        exponent = Signal(8, init=least)
        settings = {
            Register.COLUMNS: columns,
            Register.BATCH_TILES: batch_tiles,
            Register.TILES: tiles,
            Register.STEP: step,
            Register.SHIFT: shift,
            Register.LOSS: loss,
            Register.MODE: mode,
            Register.EXPONENT: exponent,
        }
        is_logistic, is_hinge, refinement = Signal(), Signal(), Signal(2)
        m.d.sync += [
            is_logistic.eq(loss == Loss.LOGISTIC),
            is_hinge.eq(loss == Loss.SQUARED_HINGE),
            refinement.eq(exponent - least),
        ]
        m.d.comb += [
            core.columns.eq(columns),
            core.batch_tiles.eq(batch_tiles),
            core.tiles.eq(tiles),
            core.step.eq(step),
            core.shift.eq(shift),
            core.is_delayed.eq(mode),
            core.is_logistic.eq(is_logistic),
            core.is_hinge.eq(is_hinge),
            core.refinement.eq(refinement),
        ]

        # Whether the settings make sense: known a cycle after they are set.
        sensible, refused = Signal(), Signal()
        fewest = Signal(6)
        m.d.sync += [
            fewest.eq(FEWEST_COLUMNS),
            sensible.eq(
                (columns >= fewest)
                & (columns <= form.columns_limit)
                & (batch_tiles >= 1)
                & (batch_tiles <= BATCH_TILES_LIMIT)
                & (tiles != 0)
                & (loss <= max(Loss))
                & ((loss != Loss.LOGISTIC) | ((exponent >= least) & (exponent <= least + 3)))
                & (core.random_state != 0)
            ),
        ]
        with m.If(mode):
            m.d.sync += fewest.eq(DELAYED_COLUMNS)

        # One write: address and data in any order, then the answer.
        address, value, strobes = Signal(_ADDRESS_BITS), Signal(32), Signal(4)
        has_address, has_value = Signal(), Signal()
        m.d.comb += [
            self.s_axil_awready.eq(~has_address),
            self.s_axil_wready.eq(~has_value),
        ]
        with m.If(self.s_axil_awvalid & self.s_axil_awready):
            m.d.sync += [has_address.eq(1), address.eq(self.s_axil_awaddr)]
        with m.If(self.s_axil_wvalid & self.s_axil_wready):
            m.d.sync += [
                has_value.eq(1),
                value.eq(self.s_axil_wdata),
                strobes.eq(self.s_axil_wstrb),
            ]
        write, done = Signal(), Signal()
        m.d.comb += write.eq(has_address & has_value & ~done)
        with m.If(write):
            m.d.sync += done.eq(1)
        m.d.comb += self.s_axil_bvalid.eq(done)
        with m.If(self.s_axil_bvalid & self.s_axil_bready):
            m.d.sync += [done.eq(0), has_address.eq(0), has_value.eq(0)]

        # One read: the tables take a few cycles, which all addresses get.
        read_address = Signal(_ADDRESS_BITS)
        reads, read_wait = Signal(), Signal(3)
        m.d.comb += self.s_axil_arready.eq(~reads & ~self.s_axil_rvalid & ~has_address)
        with m.If(self.s_axil_arvalid & self.s_axil_arready):
            m.d.sync += [reads.eq(1), read_wait.eq(0), read_address.eq(self.s_axil_araddr)]

        # Writes.
        refuse = Signal()
        failed = Signal()
        m.d.comb += failed.eq(core.early_last | core.missing_last)
        start, reset = Signal(), Signal()
        m.d.comb += [core.seed.eq(value), core.host_value.eq(value)]
        at = address[2:16]
        with m.If(write):
            m.d.sync += self.s_axil_bresp.eq(_OKAY)
            with m.If(strobes != 0xF):
                m.d.comb += refuse.eq(1)
            with m.Elif(address[16:] != 0):
                m.d.comb += refuse.eq(core.busy | ~_is_entry(address, form))
                m.d.comb += core.host_write.eq(~refuse)
            with m.Elif(address == Register.CONTROL):
                m.d.comb += [start.eq(value[0] & ~value[1]), reset.eq(value[1])]
                m.d.comb += refuse.eq(start & (core.busy | failed))
            with m.Elif(core.busy):
                m.d.comb += refuse.eq(1)
            with m.Else(), m.Switch(address):
                for register, setting in settings.items():
                    with m.Case(register):
                        m.d.sync += setting.eq(value)
                with m.Case(Register.SEED_LOW):
                    m.d.comb += core.load_low.eq(1)
                with m.Case(Register.SEED_HIGH):
                    m.d.comb += core.load_high.eq(1)
                with m.Default():
                    m.d.comb += refuse.eq(1)
            with m.If(refuse):
                m.d.sync += self.s_axil_bresp.eq(_SLVERR)
        with m.If(start & ~refuse):
            m.d.comb += core.start.eq(sensible)
            m.d.sync += refused.eq(~sensible)
        m.d.sync += soft_reset.eq(reset)
        with m.If(reset):
            m.d.sync += refused.eq(0)

        # Reads.
        table = Signal(3)
        m.d.comb += [
            table.eq(read_address[16:]),
            core.host_table.eq(table),
            core.host_entry.eq(read_address[2:]),
        ]
        with m.If(has_address):
            m.d.comb += [core.host_table.eq(address[16:]), core.host_entry.eq(at)]
        status = Signal(32)
        m.d.comb += [
            status[Status.BUSY].eq(core.busy),
            status[Status.DONE].eq(core.done),
            status[Error.EARLY_LAST].eq(core.early_last),
            status[Error.MISSING_LAST].eq(core.missing_last),
            status[Error.CONFIGURATION].eq(refused),
            status[Status.MODEL_SATURATED].eq(core.model_saturated),
            status[Status.RESIDUAL_SATURATED].eq(core.residual_saturated),
        ]
        readable = {
            Register.IDENTITY: C(IDENTITY, 32),
            Register.VERSION: C(VERSION, 32),
            Register.FORMAT: Cat(C(form.bits, 8), C(form.lanes, 8), C(form.target_beats, 8)),
            Register.COLUMNS_LIMIT: C(form.columns_limit, 32),
            Register.CONTROL: C(0, 32),
            Register.STATUS: status,
            **settings,
            Register.SEED_LOW: core.random_state[:32],
            Register.SEED_HIGH: core.random_state[32:],
            Register.CYCLES_LOW: core.cycles[:32],
            Register.CYCLES_HIGH: core.cycles[32:],
            Register.BEATS_LOW: core.beats[:32],
            Register.BEATS_HIGH: core.beats[32:],
            Register.STALLS_LOW: core.stalls[:32],
            Register.STALLS_HIGH: core.stalls[32:],
        }
        looked_up, known = Signal(32), Signal()
        m.d.sync += [looked_up.eq(0), known.eq(0)]
        with m.Switch(read_address):
            for register, source in readable.items():
                with m.Case(register):
                    m.d.sync += [looked_up.eq(source), known.eq(1)]
        with m.If(has_address):  # a write has the tables for itself
            m.d.sync += read_wait.eq(0)
        with m.Elif(reads):
            m.d.sync += read_wait.eq(read_wait + 1)
        with m.If(reads & (read_wait == 5) & ~has_address):
            m.d.sync += [
                reads.eq(0),
                self.s_axil_rvalid.eq(1),
                self.s_axil_rdata.eq(0),
                self.s_axil_rresp.eq(_SLVERR),
            ]
            with m.If(table == 0):
                m.d.sync += [
                    self.s_axil_rdata.eq(looked_up),
                    self.s_axil_rresp.eq(Mux(known, _OKAY, _SLVERR)),
                ]
            with m.Elif(~core.busy & _is_entry(read_address, form)):
                m.d.sync += self.s_axil_rdata.eq(core.host_read)
                m.d.sync += self.s_axil_rresp.eq(_OKAY)
        with m.If(self.s_axil_rvalid & self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        return m
