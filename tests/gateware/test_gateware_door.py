"""What happens to beats at the door: the queue, codes of beats and values, and each beat's name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import joined, simulate

from zipml_ooc.gateware.dot import Unpacker
from zipml_ooc.gateware.float_unpacker import FloatUnpacker
from zipml_ooc.gateware.floats import float_codes
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.reference import Tile
from zipml_ooc.gateware.sequencer import FrontBuffer, Sequencer
from zipml_ooc.gateware.stream import pack


def test_front_buffer_keeps_every_beat_in_order() -> None:
    dut = FrontBuffer(8)
    rng = np.random.default_rng(0)
    sent, taken = list(range(100)), []

    async def bench(ctx: Any) -> None:
        left = list(sent)
        while len(taken) < len(sent):
            offers, wants = bool(left) and rng.random() < 0.6, rng.random() < 0.6
            ctx.set(dut.in_valid, offers)
            ctx.set(dut.in_data, left[0] if left else 0)
            ctx.set(dut.out_ready, wants)
            if offers and ctx.get(dut.in_ready):
                left.pop(0)
            if wants and ctx.get(dut.out_valid):
                taken.append(ctx.get(dut.out_data))
            await ctx.tick()

    simulate(dut, bench)
    assert taken == sent


def test_front_buffer_is_full_after_all_its_places() -> None:
    dut = FrontBuffer(8)

    async def bench(ctx: Any) -> None:
        await ctx.tick()
        number = 0
        for _ in range(2 * dut.DEPTH):  # the beats come at once, and nobody takes them
            ctx.set(dut.in_valid, 1)
            ctx.set(dut.in_data, number)
            number += ctx.get(dut.in_ready)
            await ctx.tick()
        assert dut.DEPTH - 3 < number <= dut.DEPTH
        ctx.set(dut.in_valid, 0)
        ctx.set(dut.out_ready, 1)
        for expected in range(number):
            assert ctx.get(dut.out_valid)
            assert ctx.get(dut.out_data) == expected
            await ctx.tick()
        assert not ctx.get(dut.out_valid)

    simulate(dut, bench)


def test_front_buffer_passes_a_beat_each_cycle() -> None:
    dut = FrontBuffer(8)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.out_ready, 1)
        await ctx.tick()
        for number in range(20):
            ctx.set(dut.in_valid, 1)
            ctx.set(dut.in_data, number)
            assert ctx.get(dut.in_ready)
            await ctx.tick()
            if number:
                assert ctx.get(dut.out_valid)
                assert ctx.get(dut.out_data) == number - 1

    simulate(dut, bench)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_unpacker_finds_the_rows_of_packed_codes(bits: int) -> None:
    form = Format(bits, 64)
    codes = np.random.default_rng(0).integers(0, 1 << bits, (64, 3))
    packet = pack(Tile(codes, np.zeros(64, np.int64)), form)
    dut = Unpacker(form)

    async def bench(ctx: Any) -> None:
        for column, beat in enumerate(packet[form.target_beats :]):
            ctx.set(dut.beat, int.from_bytes(beat.tobytes(), "little"))
            assert ctx.get(dut.codes) == joined(codes[:, column], bits)

    simulate(dut, bench, clocked=False)


def test_float_unpacker_makes_the_codes_of_the_reference_each_cycle() -> None:
    form = Format(16, 8)
    dut = FloatUnpacker(form)
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 32, (60, 8), dtype=np.uint64).astype(np.uint32)
    words[20:40] = (rng.normal(size=(20, 8)) * 3).astype(np.float32).view(np.uint32)
    halves = (rng.integers(-(1 << 16), 1 << 16, (20, 8)) / 8192).astype(np.float32)
    words[40:] = halves.view(np.uint32)
    words[0] = np.array([0, -0.0, np.inf, -np.inf, np.nan, 8, -8, 7.99999], np.float32).view(
        np.uint32
    )
    seen = []

    async def bench(ctx: Any) -> None:
        for row in [*words, *words[: dut.LATENCY]]:
            ctx.set(dut.beat, joined(row, 32))
            await ctx.tick()
            seen.append(ctx.get(dut.codes))

    simulate(dut, bench)
    expected = [joined(float_codes(row.view(np.float32)), 16) for row in words]
    assert seen[dut.LATENCY - 1 :][: len(words)] == expected


def test_sequencer_names_every_beat_and_waits_for_the_update() -> None:
    form = Format(8, 8, 64)  # two beats of targets
    dut = Sequencer(form)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.columns, 4)
        ctx.set(dut.batch_tiles, 2)
        ctx.set(dut.tiles, 3)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        ctx.set(dut.beat_valid, 1)
        for tile in range(3):
            for beat in range(6):
                waits = tile == 2 and beat == 1
                ctx.set(dut.beat_last, beat == 5)
                if waits:  # the first two tiles were a mini-batch
                    for _ in range(3):
                        assert not ctx.get(dut.beat_ready)
                        await ctx.tick()
                    ctx.set(dut.update_begins, 1)
                    await ctx.tick()
                    ctx.set(dut.update_begins, 0)
                assert ctx.get(dut.beat_ready)
                assert ctx.get(dut.load_target) == (beat < 2)
                assert ctx.get(dut.issue) == (beat > 0)
                assert ctx.get(dut.first) == (beat == 1)
                assert ctx.get(dut.last) == (beat == 5)
                if beat > 0:
                    assert ctx.get(dut.entry) == beat - 1
                if beat > 0:  # a tile's first beat still finds the flags of the one ahead
                    about = [ctx.get(s) for s in (dut.batch_start, dut.batch_end, dut.run_end)]
                    assert about == [[1, 0, 0], [0, 1, 0], [1, 1, 1]][tile]
                await ctx.tick()
        assert not ctx.get(dut.beat_ready)
        assert ctx.get(dut.busy)
        ctx.set(dut.update_ends, 1)
        await ctx.tick()
        assert not ctx.get(dut.busy)
        assert ctx.get(dut.done)

    simulate(dut, bench)
