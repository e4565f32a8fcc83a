"""Test benches in cocotb for the emitted Verilog: run inside of a simulator by test_gateware_cosim.

Nothing of Amaranth is used here. Clock edges, handshakes and pauses are the bench's own: it holds
back beats, addresses, data and answers as its seed says.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge

from zipml_ooc.gateware.formats import (
    DELAYED_COLUMNS,
    LEAST_EXPONENT,
    NO_ROW,
    Error,
    Format,
    Loss,
    Register,
    Status,
    Table,
)
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.stream import pack

FORM = Format(**json.loads(os.environ.get("ZIPML_COSIM_FORM", '{"bits": 1}')))
SEED = int(os.environ.get("ZIPML_COSIM_SEED", "0"))
_CLIPPED = 1 << Status.MODEL_SATURATED | 1 << Status.RESIDUAL_SATURATED
_PATIENCE = 2000
OKAY, SLVERR = 0, 2


class Host:
    """AXI4-Lite and AXI4-Stream by hand, with pauses."""

    def __init__(self, dut: Any, rng: random.Random, pauses: float) -> None:
        self.dut, self.rng, self.pauses = dut, rng, pauses

    async def begin(self) -> None:
        """Start the clock, and reset."""
        dut = self.dut
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            getattr(dut, f"s_axil_{name}").value = 0
        dut.s_axis_tvalid.value = 0
        dut.s_axis_tlast.value = 0
        cocotb.start_soon(Clock(dut.clk, 10, "ns").start())
        await self.hard_reset()

    async def hard_reset(self) -> None:
        """Pull the wire."""
        self.dut.rst.value = 1
        await self.ticks(3)
        self.dut.rst.value = 0
        await self.ticks(1)

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    async def pause(self) -> None:
        while self.rng.random() < self.pauses:
            await RisingEdge(self.dut.clk)

    async def _happens(self, *names: str) -> list[int]:
        """Wait for the edge at which the first of some signals is high; the others' values then."""
        for _ in range(_PATIENCE):
            await ReadOnly()
            values = [int(getattr(self.dut, name).value) for name in names]
            await RisingEdge(self.dut.clk)
            if values[0]:
                return values[1:]
        raise AssertionError(f"{names[0]} stays low")

    async def _offer(self, channel: str, **values: int) -> None:
        """A transfer of a channel of AXI4-Lite, from this side."""
        await self.pause()
        for name, value in values.items():
            getattr(self.dut, f"s_axil_{name}").value = value
        getattr(self.dut, f"s_axil_{channel}valid").value = 1
        await self._happens(f"s_axil_{channel}ready")
        getattr(self.dut, f"s_axil_{channel}valid").value = 0

    async def _answer(self, channel: str, *names: str) -> list[int]:
        """A transfer of a channel of AXI4-Lite, from the other side."""
        await self.pause()
        getattr(self.dut, f"s_axil_{channel}ready").value = 1
        found = await self._happens(f"s_axil_{channel}valid", *(f"s_axil_{n}" for n in names))
        getattr(self.dut, f"s_axil_{channel}ready").value = 0
        return found

    async def write(self, address: int, value: int, strobes: int = 15) -> int:
        """Address and data, each in its own time; the response."""
        sent = [
            cocotb.start_soon(self._offer("aw", awaddr=address)),
            cocotb.start_soon(self._offer("w", wdata=value & 0xFFFFFFFF, wstrb=strobes)),
        ]
        for part in sent:
            await part
        return (await self._answer("b", "bresp"))[0]

    async def read(self, address: int) -> tuple[int, int]:
        """Value and response."""
        await self._offer("ar", araddr=address)
        value, response = await self._answer("r", "rdata", "rresp")
        return value, response

    async def read_well(self, address: int) -> int:
        value, response = await self.read(address)
        assert response == OKAY, hex(address)
        return value

    async def load(self, program: Program, state: State, tiles: int) -> None:
        """Tables and settings."""
        tables = [
            (Table.MODEL, state.model),
            (Table.CENTRE, program.centre),
            (Table.PACE, program.pace),
            (Table.VARIANCE, program.variance),
        ]
        words = [((t << 16) + 4 * j, v & 0xFFFF) for t, vs in tables for j, v in enumerate(vs)]
        words += [
            (Register.COLUMNS, len(state.model) - 1),
            (Register.BATCH_TILES, program.batch_tiles),
            (Register.TILES, tiles),
            (Register.STEP, program.step),
            (Register.SHIFT, program.shift),
            (Register.LOSS, program.loss),
            (Register.EXPONENT, program.exponent),
            (Register.MODE, int(program.delayed)),
            (Register.SEED_LOW, state.seed & 0xFFFFFFFF),
            (Register.SEED_HIGH, state.seed >> 32),
        ]
        for address, value in words:
            assert await self.write(int(address), int(value)) == OKAY

    async def beat(self, data: bytes, *, last: bool, patience: int = _PATIENCE) -> bool:
        """Offer a beat until it is taken; False if it is not."""
        dut = self.dut
        await self.pause()
        dut.s_axis_tdata.value = int.from_bytes(data, "little")
        dut.s_axis_tlast.value = int(last)
        dut.s_axis_tvalid.value = 1
        taken = False
        for _ in range(patience):
            await ReadOnly()
            taken = bool(dut.s_axis_tready.value)
            await RisingEdge(dut.clk)
            if taken:
                break
        dut.s_axis_tvalid.value = 0
        return taken

    async def stream(self, packets: list[np.ndarray]) -> None:
        for packet in packets:
            for number, beat in enumerate(packet):
                assert await self.beat(beat.tobytes(), last=number == len(packet) - 1)

    async def finish(self) -> int:
        """STATUS when the run is over."""
        for _ in range(_PATIENCE):
            status = await self.read_well(Register.STATUS)
            if not status >> Status.BUSY & 1:
                return status
        raise AssertionError("the accelerator is still busy")


def some_run(
    rng: np.random.Generator,
    columns: int,
    tiles: int,
    batch: int,
    delayed: bool,
    loss: Loss = Loss.SQUARED,
) -> tuple[Program, list[Tile], State]:
    """A program of any magnitude, tiles with missing rows, and a state."""
    entries, size = columns + 1, int(rng.integers(4, 16))
    centre = rng.integers(0, 1 << 16, entries)
    centre[0] = 0
    program = Program(
        FORM.bits,
        batch,
        int(rng.integers(1, 1 << 16)),
        int(rng.integers(4, 28)),
        centre,
        rng.integers(0, 1 << 16, entries),
        rng.integers(0, 1 << 15, entries),
        delayed,
        loss,
        LEAST_EXPONENT + max(0, FORM.bits - 4) + int(rng.integers(0, 4)),
    )
    made = []
    for _ in range(tiles):
        targets = rng.integers(-(1 << size), 1 << size, FORM.lanes)
        if loss == Loss.LOGISTIC:
            targets = -(targets < 0).astype(np.int64)
        targets[rng.random(FORM.lanes) < 0.15] = NO_ROW
        made.append(Tile(rng.integers(0, 1 << FORM.bits, (FORM.lanes, columns)), targets))
    model = rng.integers(-(1 << size), 1 << size, entries)
    return program, made, State(model, int(rng.integers(1, 1 << 63)))


async def check(host: Host, rng: np.random.Generator, columns: int, **shape: Any) -> None:
    """A run from loading to reading back is that of the reference."""
    program, made, state = some_run(rng, columns, **shape)
    await host.load(program, state, len(made))
    assert await host.write(Register.CONTROL, 1) == OKAY
    await host.stream([pack(tile, FORM) for tile in made])
    status = await host.finish()
    run(program, made, state)
    assert status & ~_CLIPPED == 1 << Status.DONE
    assert bool(status >> Status.MODEL_SATURATED & 1) == state.model_saturated
    assert bool(status >> Status.RESIDUAL_SATURATED & 1) == state.residual_saturated
    model = [await host.read_well((Table.MODEL << 16) + 4 * j) for j in range(columns + 1)]
    assert model == [int(v) & 0xFFFF for v in state.model]
    low, high = [await host.read_well(Register.SEED_LOW + k) for k in (0, 4)]
    assert high << 32 | low == state.seed
    assert await host.read_well(Register.BEATS_LOW) == len(made) * (columns + FORM.target_beats)


async def opened(dut: Any, test: int, pauses: float) -> tuple[Host, np.random.Generator]:
    host = Host(dut, random.Random(1000 * SEED + test), pauses)
    await host.begin()
    return host, np.random.default_rng([SEED, test])


@cocotb.test()
async def runs_with_back_pressure_end_as_the_reference(dut: Any) -> None:
    host, rng = await opened(dut, 1, 0.3)
    assert await host.read_well(Register.IDENTITY) == int.from_bytes(b"ZPML", "little")
    for pauses, columns, tiles, batch, delayed in (
        (0.3, 5, 4, 2, False),
        (0.0, 9, 5, 1, False),
        (0.5, DELAYED_COLUMNS, 3, 1, True),
        (0.1, FORM.columns_limit, 2, 1, False),
    ):
        host.pauses = pauses
        for loss in Loss:
            await check(host, rng, columns, tiles=tiles, batch=batch, delayed=delayed, loss=loss)


@cocotb.test()
async def resets_in_mid_run_leave_nothing_behind(dut: Any) -> None:
    host, rng = await opened(dut, 2, 0.2)
    for number, beats in enumerate((1, FORM.target_beats, FORM.target_beats + 3, 40)):
        program, made, state = some_run(rng, 8, tiles=4, batch=2, delayed=False)
        await host.load(program, state, 4)
        assert await host.write(Register.CONTROL, 1) == OKAY
        packets = [pack(tile, FORM) for tile in made]
        length = len(packets[0])
        sent = np.concatenate(packets)[:beats]
        for place, beat in enumerate(sent):
            assert await host.beat(beat.tobytes(), last=place % length == length - 1)
        if number % 2:
            await host.hard_reset()
        else:
            assert await host.write(Register.CONTROL, 2) == OKAY
        assert await host.read_well(Register.STATUS) == 0
        assert await host.read_well(Register.SEED_LOW) == 1
        await check(host, rng, 6, tiles=3, batch=2, delayed=False)


@cocotb.test()
async def malformed_packets_stop_the_run_until_a_reset(dut: Any) -> None:
    host, rng = await opened(dut, 3, 0.2)
    for error in (Error.EARLY_LAST, Error.MISSING_LAST):
        for tile in (0, 1):
            program, made, state = some_run(rng, 6, tiles=3, batch=1, delayed=False)
            await host.load(program, state, 3)
            assert await host.write(Register.CONTROL, 1) == OKAY
            packets = [pack(tile, FORM) for tile in made]
            await host.stream(packets[:tile])
            bad = packets[tile][:-1] if error == Error.EARLY_LAST else np.vstack(packets[tile:])
            for number, beat in enumerate(bad):
                last = number == len(bad) - 1
                if not await host.beat(beat.tobytes(), last=last, patience=60):
                    break
            assert (await host.finish()) & ~_CLIPPED == 1 << error
            while await host.beat(bytes(FORM.beat_bits // 8), last=True, patience=40):
                pass  # the queue at the door fills
            assert await host.write(Register.CONTROL, 1) == SLVERR
            assert await host.write(Register.CONTROL, 2) == OKAY
            assert await host.read_well(Register.STATUS) == 0
            await check(host, rng, 5, tiles=2, batch=1, delayed=False)


@cocotb.test()
async def refused_accesses_change_nothing(dut: Any) -> None:
    host, rng = await opened(dut, 4, 0.2)
    program, made, state = some_run(rng, 6, tiles=2, batch=1, delayed=False)
    await host.load(program, state, 2)
    for address in (Register.IDENTITY, Register.STATUS, 0x58, 0x1000, 0x10000 + 4 * FORM.depth):
        assert await host.write(int(address), 1) == SLVERR
    assert await host.write(Register.COLUMNS, 9, strobes=3) == SLVERR
    assert (await host.read(0x70000))[1] == SLVERR
    assert await host.read_well(Register.COLUMNS) == 6
    assert await host.write(Register.CONTROL, 1) == OKAY
    for address in (Register.COLUMNS, Register.SEED_LOW, Table.MODEL << 16):
        assert await host.write(int(address), 7) == SLVERR
    assert (await host.read(Table.MODEL << 16))[1] == SLVERR
    await host.stream([pack(tile, FORM) for tile in made])
    assert (await host.finish()) & ~_CLIPPED == 1 << Status.DONE
    run(program, made, state)
    for entry, value in enumerate(state.model):
        assert await host.read_well((Table.MODEL << 16) + 4 * entry) == int(value) & 0xFFFF
