"""A host for simulations: registers, tables and stream of the gateware, and programs to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.sim import Simulator

from zipml_ooc.gateware.accelerator import Accelerator
from zipml_ooc.gateware.formats import LEAST_EXPONENT, NO_ROW, Format, Loss, Register, Status, Table
from zipml_ooc.gateware.reference import Program, State, Tile
from zipml_ooc.gateware.stream import pack


def random_run(
    rng: np.random.Generator,
    form: Format,
    *,
    columns: int,
    tiles: int,
    batch: int,
    delayed: bool,
    loss: Loss = Loss.SQUARED,
) -> tuple[Program, list[Tile], State]:
    """A program with tables, tiles with missing rows, and a state, of all magnitudes."""
    entries = columns + 1
    size = int(rng.integers(3, 16))  # bits of model and targets: now and then beyond the range
    centre = rng.integers(0, 1 << 16, entries)
    centre[0] = 0
    program = Program(
        bits=form.bits,
        batch_tiles=batch,
        step=int(rng.integers(1, 1 << 16)),
        shift=int(np.clip(size + 2 * form.bits + 3 - rng.integers(0, 14), 0, 31)),
        centre=centre,
        pace=rng.integers(0, 1 << 16, entries),
        variance=rng.integers(0, 1 << 15, entries),
        delayed=delayed,
        loss=loss,
        exponent=LEAST_EXPONENT + max(0, form.bits - 4) + int(rng.integers(0, 4)),
    )
    model = rng.integers(-(1 << size), 1 << size, entries)
    made = []
    for _ in range(tiles):
        targets = rng.integers(-(1 << size), 1 << size, form.lanes)
        if loss == Loss.LOGISTIC and rng.random() < 0.7:  # else any, of which the sign counts
            targets = -(targets < 0).astype(np.int64)
        targets[rng.random(form.lanes) < 0.1] = NO_ROW
        made.append(Tile(rng.integers(0, 1 << form.bits, (form.lanes, columns)), targets))
    return program, made, State(model, int(rng.integers(1, 1 << 63)))


@dataclass
class Host:
    """What a driver does, on an Amaranth simulation of the whole accelerator."""

    top: Accelerator
    ctx: Any

    async def write(self, address: int, value: int, strobes: int = 15) -> int:
        """Write a register or an entry; return the response."""
        top, ctx = self.top, self.ctx
        ctx.set(top.s_axil_awaddr, address)
        ctx.set(top.s_axil_wdata, value & 0xFFFFFFFF)
        ctx.set(top.s_axil_wstrb, strobes)
        ctx.set(top.s_axil_awvalid, 1)
        ctx.set(top.s_axil_wvalid, 1)
        await ctx.tick().until(top.s_axil_awready & top.s_axil_wready)
        ctx.set(top.s_axil_awvalid, 0)
        ctx.set(top.s_axil_wvalid, 0)
        ctx.set(top.s_axil_bready, 1)
        (response,) = await ctx.tick().sample(top.s_axil_bresp).until(top.s_axil_bvalid)
        ctx.set(top.s_axil_bready, 0)
        return int(response)

    async def read(self, address: int) -> tuple[int, int]:
        """Return value and response of a register or an entry."""
        top, ctx = self.top, self.ctx
        ctx.set(top.s_axil_araddr, address)
        ctx.set(top.s_axil_arvalid, 1)
        await ctx.tick().until(top.s_axil_arready)
        ctx.set(top.s_axil_arvalid, 0)
        ctx.set(top.s_axil_rready, 1)
        value, response = (
            await ctx.tick().sample(top.s_axil_rdata, top.s_axil_rresp).until(top.s_axil_rvalid)
        )
        ctx.set(top.s_axil_rready, 0)
        return int(value), int(response)

    async def load(self, program: Program, state: State, tiles: int) -> None:
        """Write tables and settings."""
        for table, values in (
            (Table.MODEL, state.model),
            (Table.CENTRE, program.centre),
            (Table.PACE, program.pace),
            (Table.VARIANCE, program.variance),
        ):
            for entry, value in enumerate(values.tolist()):
                assert await self.write((table << 16) + 4 * entry, value) == 0
        for register, value in (
            (Register.COLUMNS, len(state.model) - 1),
            (Register.BATCH_TILES, program.batch_tiles),
            (Register.TILES, tiles),
            (Register.STEP, program.step),
            (Register.SHIFT, program.shift),
            (Register.LOSS, program.loss),
            (Register.MODE, int(program.delayed)),
            (Register.EXPONENT, program.exponent),
            (Register.SEED_LOW, state.seed & 0xFFFFFFFF),
            (Register.SEED_HIGH, state.seed >> 32),
        ):
            assert await self.write(register, value) == 0

    async def send(self, beat: bytes, *, last: bool, patience: int = 500) -> bool:
        """Offer a beat until it is taken; False if it is not."""
        top, ctx = self.top, self.ctx
        ctx.set(top.s_axis_tdata, int.from_bytes(beat, "little"))
        ctx.set(top.s_axis_tlast, int(last))
        ctx.set(top.s_axis_tvalid, 1)
        taken = False
        for _ in range(patience):
            _, _, taken = await ctx.tick().sample(top.s_axis_tready)
            if taken:
                break
        ctx.set(top.s_axis_tvalid, 0)
        return bool(taken)

    async def stream(
        self, tiles: list[Tile], form: Format, rng: np.random.Generator, pauses: float
    ) -> None:
        """Send tiles, with random pauses between beats."""
        for tile in tiles:
            packet = pack(tile, form)
            for number, beat in enumerate(packet):
                while rng.random() < pauses:
                    await self.ctx.tick()
                last = number == len(packet) - 1
                assert await self.send(beat.tobytes(), last=last)

    async def finish(self, patience: int = 100) -> int:
        """Wait for the end of a run; return the status."""
        for _ in range(patience):
            status, _ = await self.read(Register.STATUS)
            if not status >> Status.BUSY & 1:
                return status
        raise AssertionError("the accelerator is still busy")

    async def outcome(self, entries: int) -> State:
        """Read model, generator and flags."""
        model = [(await self.read((Table.MODEL << 16) + 4 * j))[0] for j in range(entries)]
        low, _ = await self.read(Register.SEED_LOW)
        high, _ = await self.read(Register.SEED_HIGH)
        status, _ = await self.read(Register.STATUS)
        return State(
            np.array(model, np.int64).astype(np.uint16).astype(np.int16).astype(np.int64),
            high << 32 | low,
            bool(status >> Status.MODEL_SATURATED & 1),
            bool(status >> Status.RESIDUAL_SATURATED & 1),
        )

    async def counter(self, low: Register) -> int:
        """Read a counter of two words."""
        return (await self.read(low))[0] | (await self.read(low + 4))[0] << 32


def simulate(dut: Any, testbench: Any, *, clocked: bool = True) -> None:
    """Run a testbench to its end on a component with one clock, or with none."""
    simulator = Simulator(dut)
    if clocked:
        simulator.add_clock(1e-8)
    simulator.add_testbench(testbench)
    simulator.run()


def joined(values: Any, bits: int) -> int:
    """Numbers side by side, the first in the lowest bits."""
    return sum((int(v) & ((1 << bits) - 1)) << (bits * i) for i, v in enumerate(values))
