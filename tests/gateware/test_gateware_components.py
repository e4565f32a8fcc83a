"""Each part of the gateware in a simulation of its own, against integers of Python and NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import joined, simulate

from zipml_ooc.gateware.dot import Dot, Unpacker
from zipml_ooc.gateware.float_unpacker import FloatUnpacker
from zipml_ooc.gateware.floats import float_codes
from zipml_ooc.gateware.formats import (
    LEAST_EXPONENT,
    LOGISTIC_LATENCY,
    NO_ROW,
    Format,
    Loss,
    Table,
    intercept_code,
)
from zipml_ooc.gateware.gradient import GradientTree
from zipml_ooc.gateware.logistic import Logistic, Sigmoid
from zipml_ooc.gateware.reference import (
    Program,
    State,
    Tile,
    curvature_sum,
    draw,
    residuals,
    update,
)
from zipml_ooc.gateware.replay import Replay
from zipml_ooc.gateware.sequencer import FrontBuffer, Sequencer
from zipml_ooc.gateware.sigmoid import slope_and_value
from zipml_ooc.gateware.stream import pack
from zipml_ooc.gateware.tables import Tables
from zipml_ooc.gateware.update import Update


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
@pytest.mark.parametrize("loss", Loss)
def test_dot_gives_residuals_and_says_which_rows_count(bits: int, loss: Loss) -> None:
    form = Format(bits, 8, 64)
    rng = np.random.default_rng(bits)
    dut = Dot(form)
    logistic = loss == Loss.LOGISTIC

    async def bench(ctx: Any) -> None:
        ctx.set(dut.is_logistic, logistic)
        ctx.set(dut.is_hinge, loss == Loss.SQUARED_HINGE)
        for turn in range(6):
            size = 15 if turn % 3 == 2 else 9  # the third is clipped
            model = rng.integers(-(1 << size), 1 << size, 7)
            centre = np.concatenate([[0], rng.integers(0, 1 << 16, 6)])
            targets = rng.integers(-(1 << size), 1 << size, 8)
            if logistic:
                targets = -(targets < 0).astype(np.int64)
            targets[turn] = NO_ROW
            tile = Tile(rng.integers(0, 1 << bits, (8, 6)), targets)
            exponent = LEAST_EXPONENT + max(0, bits - 4) + turn % 4
            program = Program(bits, 1, 1, 0, centre, centre, centre, loss=loss, exponent=exponent)
            ctx.set(dut.refinement, turn % 4)
            expected, clipped = residuals(program, model, tile)
            ctx.set(dut.targets, joined(targets, 16))
            for entry in range(7):
                own = np.full(8, intercept_code(bits))
                column = own if entry == 0 else tile.codes[:, entry - 1]
                held = int(model[entry])
                ctx.set(dut.valid, 1)
                ctx.set(dut.first, entry == 0)
                ctx.set(dut.last, entry == 6)
                ctx.set(dut.codes, joined(column, bits))
                ctx.set(dut.model, held)
                ctx.set(dut.models, joined([held, ~held, held, ~held], 16))
                ctx.set(dut.centre, int(centre[entry]))
                await ctx.tick()
                ctx.set(dut.valid, 0)  # a pause, in which nothing is added up
                if turn % 2:
                    ctx.set(dut.model, 12345)
                    ctx.set(dut.models, 12345)
                    await ctx.tick()
            wait = form.residual_latency - 3 - turn % 2  # of the latency, 1 or 2 are over
            for _ in range(wait):
                assert not ctx.get(dut.counts_valid)
                await ctx.tick()
            curvature = curvature_sum(program, model, tile)
            if logistic:
                sums = []
                for _ in range(LOGISTIC_LATENCY + form.lane_bits - 1):
                    assert not ctx.get(dut.counts_valid)
                    if ctx.get(dut.curvature_valid):
                        sums.append(ctx.get(dut.curvature))
                    await ctx.tick()
                assert sums == [curvature]
            else:
                assert ctx.get(dut.counts_valid)
                assert ctx.get(dut.counts).bit_count() == curvature
            await ctx.tick().repeat(2)
            assert ctx.get(dut.residuals) == joined(expected, 16)
            assert ctx.get(dut.saturated) == clipped

    simulate(dut, bench)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("refinement", range(4))
def test_the_sigmoid_is_that_of_the_reference_a_row_a_cycle(bits: int, refinement: int) -> None:
    form, more = Format(bits, 8, 64), max(0, bits - 4)
    dut = Sigmoid(form)
    rng = np.random.default_rng(refinement)
    unit = 1 << (LEAST_EXPONENT + more + refinement)
    edges = np.array([-16, 0, 16])[:, None] * unit + np.arange(-3, 4)
    limit = 1 << form.margin_bits
    margins = [*edges.ravel(), *rng.integers(-18 * unit, 18 * unit, 200), -limit, limit - 1]
    negative, present = rng.integers(0, 2, len(margins)), rng.random(len(margins)) < 0.9
    taken_off = np.array(margins) - (negative << form.margin_shift)
    rise, value = slope_and_value((taken_off << (3 - refinement)) >> more)
    value = np.where(present, value - ((1 - negative) << 14), 0)
    rises, found = [], []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.refinement, refinement)
        for i in range(len(margins) + dut.LATENCY):
            row = min(i, len(margins) - 1)
            ctx.set(dut.margin, int(margins[row]))
            ctx.set(dut.negative, int(negative[row]))
            ctx.set(dut.present, bool(present[row]))
            await ctx.tick()
            rises.append(ctx.get(dut.rise))
            found.append(ctx.get(dut.residual))

    simulate(dut, bench)
    assert found[dut.LATENCY - 1 : -1] == value.tolist()
    assert rises[dut.LATENCY - 2 : -2] == np.where(present, rise, 0).tolist()


def test_the_logistic_part_takes_tiles_that_follow_each_other_closely() -> None:
    form, program = Format(4, 16, 64), Program(4, 1, 1, 0, *[np.zeros(1, int)] * 3)
    program = replace(program, loss=Loss.LOGISTIC, exponent=13)
    dut = Logistic(form)
    rng = np.random.default_rng(0)
    margins = rng.integers(-(1 << 17), 1 << 17, (5, 16))
    targets = rng.choice([0, -1, NO_ROW], (5, 16))
    seen, sums = [], []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.refinement, 2)
        for cycle in range(5 * 5 + dut.LATENCY + form.lane_bits):
            tile = min(cycle // 5, 4)
            ctx.set(dut.start, cycle % 5 == 0 and cycle < 25)
            held = cycle % 5 < dut.TURNS  # then the next tile's margins may come
            ctx.set(dut.margins, joined(margins[tile], form.margin_bits + 1) if held else 0)
            ctx.set(dut.negative, joined(targets[tile] < 0, 1))
            ctx.set(dut.present, joined(targets[tile] != NO_ROW, 1))
            if ctx.get(dut.valid):
                seen.append((cycle, ctx.get(dut.residuals)))
            if ctx.get(dut.curvature_valid):
                sums.append(ctx.get(dut.curvature))
            await ctx.tick()

    simulate(dut, bench)
    assert [cycle for cycle, _ in seen] == [5 * i + LOGISTIC_LATENCY for i in range(5)]
    for i in range(5):
        # A margin that is given, by way of the intercept and the targets alone.
        rows = [
            (Tile(np.zeros((1, 0), int), targets[i, r : r + 1]), margins[i, r : r + 1])
            for r in range(16)
        ]
        expected = []
        for tile, margin in rows:
            model = margin + (tile.targets << form.margin_shift)
            expected.append(int(residuals(program, model, tile)[0][0]))
        assert seen[i][1] == joined(expected, 16)
        total = sum(
            curvature_sum(program, margin + (tile.targets << form.margin_shift), tile)
            for tile, margin in rows
        )
        assert sums[i] == total


def test_gradient_tree_sums_over_rows() -> None:
    form = Format(4, 16, 64)
    rng = np.random.default_rng(0)
    dut = GradientTree(form)
    held = rng.integers(-(1 << 15), 1 << 15, 16)
    columns = rng.integers(0, 16, (12, 16))
    seen = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.residuals, joined(held, 16))
        for column in [*columns, *columns[: dut.latency]]:
            ctx.set(dut.codes, joined(column, 4))
            await ctx.tick()
            seen.append(ctx.get(dut.total))

    simulate(dut, bench)
    assert seen[dut.latency - 1 :][: len(columns)] == (columns @ held).tolist()


@pytest.mark.parametrize("bits", [1, 8])
def test_update_is_that_of_the_reference(bits: int) -> None:
    form = Format(bits, 64, 64)
    dut = Update(form)
    rng = np.random.default_rng(bits)
    checked = []

    async def bench(ctx: Any) -> None:
        for shift in (0, 7, 20, 26, 31):
            size = form.gradient_bits - 1
            gradient = rng.integers(-(1 << size), 1 << size, 30)
            gradient >>= rng.integers(0, size, 30)
            # The sum of residuals times the intercept's code.
            gradient[0] = (gradient[0] >> bits) * intercept_code(bits)
            centre = rng.integers(0, 1 << 16, 30)
            centre[0] = 0
            program = Program(
                bits,
                1,
                int(rng.integers(0, 1 << 16)),
                shift,
                centre,
                rng.integers(0, 1 << 16, 30),
                rng.integers(0, 1 << 16, 30),
            )
            state = State(rng.integers(-(1 << 15), 1 << 15, 30), 1)
            before, rows = state.model, 4096
            update(program, state, gradient, rows)
            ctx.set(dut.step, program.step)
            ctx.set(dut.shift, shift)
            ctx.set(dut.curvature, rows)
            seed, drawn, new, clipped = 1, 0, [], False
            for cycle in range(31 + dut.LATENCY):
                ahead, entry = min(cycle, 29), min(cycle - 1, 29)
                for port, table in (
                    (dut.model, before),
                    (dut.centre, centre),
                    (dut.pace, program.pace),
                    (dut.variance, program.variance),
                ):
                    ctx.set(port, int(table[ahead]))
                ctx.set(dut.gradient, int(gradient[max(entry, 0)]))
                ctx.set(dut.valid, 0 <= cycle - 1 < 30)
                ctx.set(dut.first, cycle == 1)
                ctx.set(dut.draw, drawn)
                if ctx.get(dut.advance):
                    seed, drawn = draw(seed)
                comes = ctx.get(dut.ahead_valid)
                await ctx.tick()
                if comes:
                    new.append(ctx.get(dut.new_model))
                    clipped |= bool(ctx.get(dut.saturated))
            assert new == state.model.tolist()
            assert seed == state.seed
            assert clipped == state.model_saturated
            checked.append((state.model != before).sum())

    simulate(dut, bench)
    assert max(checked) > 20


def test_replay_gives_a_tile_back_and_waits_in_delayed_runs() -> None:
    form = Format(1, 8, 64)
    dut = Replay(form)

    async def bench(ctx: Any) -> None:
        ctx.set(dut.columns, 4)
        number = 0

        async def put(count: int) -> None:
            nonlocal number
            for _ in range(count):
                ctx.set(dut.write, 1)
                ctx.set(dut.write_codes, number)
                number += 1
                await ctx.tick()
            ctx.set(dut.write, 0)

        async def begin() -> None:
            ctx.set(dut.start, 1)
            await ctx.tick()
            ctx.set(dut.start, 0)

        for turn in range(30):  # round the ring twice
            await put(5)
            await begin()
            for entry in range(5 + dut.LATENCY):
                assert ctx.get(dut.issue) == (entry < 5)
                if entry < 5:
                    assert ctx.get(dut.entry) == entry
                    assert ctx.get(dut.last) == (entry == 4)
                if entry >= dut.LATENCY:
                    assert ctx.get(dut.codes) == 5 * turn + entry - dut.LATENCY
                await ctx.tick()

        ctx.set(dut.is_delayed, 1)
        await put(5)
        await begin()
        for _ in range(5):
            assert not ctx.get(dut.issue)
            await put(1)  # an entry of the next tile lets one go
            assert ctx.get(dut.issue)
            await ctx.tick()
        assert not ctx.get(dut.issue)
        await begin()
        assert not ctx.get(dut.issue)
        ctx.set(dut.run_end, 1)  # there is no next tile
        for _ in range(5):
            assert ctx.get(dut.issue)
            await ctx.tick()
        assert not ctx.get(dut.issue)

    simulate(dut, bench)


def test_tables_answer_after_their_latency_and_belong_to_host_or_run() -> None:
    dut = Tables(Format(4, 8, 64))

    async def bench(ctx: Any) -> None:
        async def read(table: int, entry: int) -> int:
            ctx.set(dut.host_table, table)
            ctx.set(dut.host_entry, entry)
            await ctx.tick().repeat(dut.LATENCY + 1)
            return int(ctx.get(dut.host_read))

        async def write(table: int, entry: int, value: int) -> None:
            ctx.set(dut.host_table, table)
            ctx.set(dut.host_entry, entry)
            ctx.set(dut.host_value, value)
            ctx.set(dut.host_write, 1)
            await ctx.tick()
            ctx.set(dut.host_write, 0)

        ctx.set(dut.host, 1)
        for table in Table:
            for entry in range(3):
                await write(table, entry, 1000 * table + entry)
        for table in Table:
            for entry in range(3):
                fixed = table == Table.CENTRE and entry == 0
                assert await read(table, entry) == (0 if fixed else 1000 * table + entry)

        ctx.set(dut.host, 0)
        await write(Table.MODEL, 1, 7)  # not the host's now
        ctx.set(dut.ahead_valid, 1)
        ctx.set(dut.ahead_entry, 2)
        await ctx.tick()
        ctx.set(dut.ahead_valid, 0)
        ctx.set(dut.new_model, -5)
        await ctx.tick()
        ctx.set(dut.dot_entry, 2)
        await ctx.tick().repeat(dut.DOT_LATENCY - dut.LATENCY)
        ctx.set(dut.update_entry, 1)
        await ctx.tick().repeat(dut.LATENCY)
        assert (ctx.get(dut.dot_model), ctx.get(dut.dot_centre)) == (-5, 2002)
        assert (ctx.get(dut.model), ctx.get(dut.pace), ctx.get(dut.variance)) == (1001, 3001, 4001)

    simulate(dut, bench)


@pytest.mark.parametrize("lead", [-3, -2, -1, 0, 1, 2])
def test_margins_meet_a_new_entry_however_shortly_before_it_is_stored(lead: int) -> None:
    dut = Tables(Format(4, 8, 64))
    news, seen = [100, -200, 300, -400], []

    async def bench(ctx: Any) -> None:
        for cycle in range(14):
            entry = cycle - 4  # stored in cycles 4 to 7
            ctx.set(dut.ahead_valid, 0 <= entry + 1 < 4)
            ctx.set(dut.ahead_entry, entry + 1 & 63)
            ctx.set(dut.new_model, news[entry] if 0 <= entry < 4 else 999)
            ctx.set(dut.dot_entry, (cycle - 4 - lead) & 63)
            await ctx.tick()
            if 0 <= cycle - 4 - lead - (dut.DOT_LATENCY - 1) < 4:
                seen.append(ctx.get(dut.dot_model))
                copies = [seen[-1], ~seen[-1], seen[-1], ~seen[-1]]
                assert ctx.get(dut.dot_models) == joined(copies, 16)

    simulate(dut, bench)
    assert seen == news


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
