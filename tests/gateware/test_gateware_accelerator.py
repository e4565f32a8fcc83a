"""The whole accelerator, simulated cycle by cycle, computes what the reference computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import Host, random_run, simulate

from zipml_ooc.gateware.accelerator import Accelerator
from zipml_ooc.gateware.formats import (
    DELAYED_COLUMNS,
    FEWEST_COLUMNS,
    Error,
    Format,
    Loss,
    Register,
    Status,
    Table,
)
from zipml_ooc.gateware.reference import Program, State, Tile, run
from zipml_ooc.gateware.sequencer import FrontBuffer
from zipml_ooc.gateware.stream import pack
from zipml_ooc.gateware.timing import run_cycles, run_stalls

DONE = 1 << Status.DONE
CLIPPED = 1 << Status.MODEL_SATURATED | 1 << Status.RESIDUAL_SATURATED


async def check(
    host: Host, form: Format, case: tuple[Program, list[Tile], State], pauses: float
) -> None:
    """Run a program on the simulation and on the reference; both must end alike."""
    program, tiles, state = case
    await host.load(program, state, len(tiles))
    assert await host.write(Register.CONTROL, 1) == 0
    await host.stream(tiles, form, np.random.default_rng(0), pauses)
    assert await host.finish() & ~CLIPPED == DONE
    found = await host.outcome(len(state.model))
    run(program, tiles, state)
    assert found.model.tolist() == state.model.tolist()
    assert (found.seed, found.model_saturated, found.residual_saturated) == (
        state.seed,
        state.model_saturated,
        state.residual_saturated,
    )
    columns = tiles[0].codes.shape[1]
    assert await host.counter(Register.BEATS_LOW) == len(tiles) * (columns + form.target_beats)


CASES = st.tuples(
    st.integers(0, 2**32 - 1),  # seed
    st.booleans(),  # delayed
    st.integers(0, 20),  # columns above the fewest
    st.integers(1, 5),  # tiles
    st.integers(1, 3),  # tiles of a mini-batch
    st.sampled_from([0.0, 0.4]),  # pauses
    st.sampled_from(list(Loss)),
)


@pytest.mark.parametrize(("bits", "lanes"), [(1, 8), (2, 16), (4, 8), (8, 8), (16, 8)])
@settings(max_examples=4)
@given(cases=st.lists(CASES, min_size=3, max_size=3))
def test_random_programs_end_as_on_the_reference(bits: int, lanes: int, cases: list[Any]) -> None:
    """Three programs one after the other: nothing of a run is left in the next one."""
    form = Format(bits, lanes, 64)

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        for seed, delayed, more, tiles, batch, pauses, loss in cases:
            fewest = DELAYED_COLUMNS if delayed else FEWEST_COLUMNS
            columns = min(fewest + more, form.columns_limit)
            rng = np.random.default_rng(seed)
            case = random_run(
                rng, form, columns=columns, tiles=tiles, batch=batch, delayed=delayed, loss=loss
            )
            await check(host, form, case, pauses)

    top = Accelerator(form)
    simulate(top, bench)


@pytest.mark.parametrize(
    ("bits", "lanes", "delayed", "loss"),
    [
        (1, 64, True, Loss.SQUARED),
        (4, 64, False, Loss.SQUARED_HINGE),
        (8, 64, False, Loss.SQUARED),
        (4, 64, True, Loss.LOGISTIC),
        (8, 64, False, Loss.LOGISTIC),
        (16, 16, False, Loss.SQUARED),
        (16, 16, True, Loss.LOGISTIC),
    ],
)
def test_wide_beats_and_full_memories_end_as_on_the_reference(
    bits: int, lanes: int, delayed: bool, loss: Loss
) -> None:
    form = Format(bits, lanes, 64)
    rng = np.random.default_rng(bits)
    case = random_run(
        rng,
        form,
        columns=form.columns_limit,
        tiles=3,
        batch=2 - delayed,
        delayed=delayed,
        loss=loss,
    )

    async def bench(ctx: Any) -> None:
        await check(Host(top, ctx), form, case, 0.1)

    top = Accelerator(form)
    simulate(top, bench)


@pytest.mark.parametrize("bits", [1, 4, 8, 16])
@pytest.mark.parametrize("delayed", [False, True])
@pytest.mark.parametrize("loss", [Loss.SQUARED, Loss.LOGISTIC])
def test_a_run_takes_the_cycles_that_the_documentation_says(
    bits: int, delayed: bool, loss: Loss
) -> None:
    form = Format(bits, 8, 128)
    extra = []

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        for columns, tiles, batch in ((40, 1, 1), (41, 5, 1), (48, 6, 2), (46, 5, 4)):
            rng = np.random.default_rng(columns)
            case = random_run(
                rng, form, columns=columns, tiles=tiles, batch=batch, delayed=delayed, loss=loss
            )
            await host.load(case[0], case[2], tiles)
            # The first beat waits at the door.
            beats = [
                (beat, number == len(packet) - 1)
                for packet in (pack(tile, form) for tile in case[1])
                for number, beat in enumerate(packet)
            ]
            assert await host.send(beats[0][0].tobytes(), last=False)
            assert await host.write(Register.CONTROL, 1) == 0
            for beat, last in beats[1:]:
                assert await host.send(beat.tobytes(), last=last)
            await host.finish()
            expected = run_cycles(form, columns, tiles, batch, delayed=delayed, loss=loss)
            extra.append(await host.counter(Register.CYCLES_LOW) - expected)
            stalls = run_stalls(form, columns, tiles, batch, delayed=delayed, loss=loss)
            assert await host.counter(Register.STALLS_LOW) == stalls

    top = Accelerator(form)
    simulate(top, bench)
    assert len(set(extra)) == 1
    assert -13 <= extra[0] <= 0  # the formula has the cycles of a host that looks at STATUS


@pytest.mark.parametrize("bits", [1, 8, 16])
@pytest.mark.parametrize("loss", Loss)
def test_short_tiles_close_behind_each_other_keep_their_targets(bits: int, loss: Loss) -> None:
    form = Format(bits, 8, 64)
    rng = np.random.default_rng(0)

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        for batch in (6, 64, 1):
            case = random_run(
                rng, form, columns=FEWEST_COLUMNS, tiles=12, batch=batch, delayed=False, loss=loss
            )
            await check(host, form, case, 0.0)

    top = Accelerator(form)
    simulate(top, bench)


def test_a_run_in_parts_is_that_run() -> None:
    form = Format(4, 8, 64)
    program, tiles, state = random_run(
        np.random.default_rng(3), form, columns=9, tiles=4, batch=1, delayed=False
    )

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        await host.load(program, state, 2)
        for part in (tiles[:2], tiles[2:]):
            assert await host.write(Register.CONTROL, 1) == 0
            await host.stream(part, form, np.random.default_rng(0), 0.0)
            await host.finish()
        found = await host.outcome(10)
        run(program, tiles, state)
        assert found.model.tolist() == state.model.tolist()
        assert found.seed == state.seed

    top = Accelerator(form)
    simulate(top, bench)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("tile", [0, 1])
def test_a_malformed_packet_stops_the_run_until_a_reset(early: bool, tile: int) -> None:
    form = Format(4, 8, 64)
    rng = np.random.default_rng(0)
    case = random_run(rng, form, columns=6, tiles=2, batch=1, delayed=False)

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        await host.load(case[0], case[2], 2)
        await host.write(Register.CONTROL, 1)
        await host.stream(case[1][:tile], form, rng, 0.0)
        for number, beat in enumerate(pack(case[1][tile], form)):
            last = number == (7 if early else 10)
            await host.send(beat.tobytes(), last=last, patience=60)
            if last:
                break
        status = await host.finish()
        assert status & ~CLIPPED == 1 << (Error.EARLY_LAST if early else Error.MISSING_LAST)
        for _ in range(FrontBuffer.DEPTH):  # its room, then nothing is taken any more
            await host.send(bytes(form.beat_bits // 8), last=False, patience=5)
        assert not await host.send(bytes(form.beat_bits // 8), last=False, patience=50)
        assert await host.write(Register.CONTROL, 1) == 2
        assert await host.write(Register.CONTROL, 2) == 0
        assert (await host.read(Register.STATUS))[0] == 0
        assert (await host.read(Register.SEED_LOW))[0] == 1
        fresh = random_run(rng, form, columns=6, tiles=3, batch=2, delayed=False)
        await check(host, form, fresh, 0.0)

    top = Accelerator(form)
    simulate(top, bench)


def test_a_reset_in_the_middle_of_a_run_leaves_nothing_behind() -> None:
    form = Format(2, 8, 64)
    rng = np.random.default_rng(1)

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        for beats in (1, 8, 9, 20, 31, 42):
            case = random_run(rng, form, columns=12, tiles=4, batch=2, delayed=False)
            await host.load(case[0], case[2], 4)
            await host.write(Register.CONTROL, 1)
            sent = [beat for tile in case[1] for beat in pack(tile, form)][:beats]
            for number, beat in enumerate(sent):
                await host.send(beat.tobytes(), last=number % 20 == 19)
            await host.write(Register.CONTROL, 2)
            assert (await host.read(Register.STATUS))[0] == 0
            fresh = random_run(rng, form, columns=5, tiles=2, batch=1, delayed=False)
            await check(host, form, fresh, 0.0)

    top = Accelerator(form)
    simulate(top, bench)


def test_registers_identify_refuse_and_keep() -> None:
    form = Format(4, 8, 64)

    async def bench(ctx: Any) -> None:
        host = Host(top, ctx)
        assert await host.read(Register.IDENTITY) == (int.from_bytes(b"ZPML", "little"), 0)
        assert await host.read(Register.VERSION) == (0x20000, 0)
        assert await host.read(Register.FORMAT) == (4 << 16 | 8 << 8 | 4, 0)
        assert await host.read(Register.COLUMNS_LIMIT) == (40, 0)

        for address in (Register.IDENTITY, Register.STATUS, Register.CYCLES_LOW, 0x58, 0x1000):
            assert await host.write(address, 1) == 2
        for address in (0x58, 0x5C, 0x1000, 0x10000 + 4 * 64, 0x50000, 0x70000, 0x10002):
            assert (await host.read(address))[1] == 2
        assert await host.write(Register.COLUMNS, 5, strobes=3) == 2
        assert await host.write(0x50000, 5) == 2
        assert await host.write(0x10000 + 4 * 64, 5) == 2

        case = random_run(
            np.random.default_rng(0), form, columns=6, tiles=1, batch=1, delayed=False
        )
        await host.load(case[0], case[2], 1)
        for register, bad, good in (
            (Register.COLUMNS, 3, 6),
            (Register.COLUMNS, 41, 6),
            (Register.COLUMNS, 1 << 16 | 6, 6),
            (Register.BATCH_TILES, 0, 1),
            (Register.BATCH_TILES, 65, 1),
            (Register.TILES, 0, 1),
            (Register.LOSS, 3, 0),
            (Register.LOSS, 1 << 16, 0),
            (Register.MODE, 1, 0),  # too few columns for a delayed run
        ):
            assert await host.write(register, bad) == 0
            assert await host.read(register) == (bad, 0)
            assert await host.write(Register.CONTROL, 1) == 0
            assert (await host.read(Register.STATUS))[0] == 1 << Error.CONFIGURATION
            assert await host.write(register, good) == 0
        await host.write(Register.LOSS, Loss.LOGISTIC)
        for exponent in (10, 15, 11 + 64):
            assert await host.write(Register.EXPONENT, exponent) == 0
            assert await host.write(Register.CONTROL, 1) == 0
            assert (await host.read(Register.STATUS))[0] == 1 << Error.CONFIGURATION
        await host.write(Register.LOSS, Loss.SQUARED)
        await host.write(Register.SEED_LOW, 0)
        await host.write(Register.SEED_HIGH, 0)
        assert await host.write(Register.CONTROL, 1) == 0
        assert (await host.read(Register.STATUS))[0] == 1 << Error.CONFIGURATION
        await host.write(Register.SEED_LOW, case[2].seed & 0xFFFFFFFF)
        await host.write(Register.SEED_HIGH, case[2].seed >> 32)

        assert await host.write(Register.CONTROL, 1) == 0
        assert (await host.read(Register.STATUS))[0] == 1 << Status.BUSY
        for address in (Register.COLUMNS, Register.SEED_LOW, Table.MODEL << 16):
            assert await host.write(address, 7) == 2
        assert (await host.read(Table.MODEL << 16))[1] == 2
        assert await host.write(Register.CONTROL, 1) == 2
        await host.stream(case[1], form, np.random.default_rng(0), 0.0)
        assert await host.finish() & ~CLIPPED == DONE
        assert await host.read(Register.COLUMNS) == (6, 0)

    top = Accelerator(form)
    simulate(top, bench)
