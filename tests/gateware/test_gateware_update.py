"""From residuals to a new model: row buffer, gradient, update and tables, each by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")

from gateware_bench import joined, simulate

from zipml_ooc.gateware.formats import Format, Table, intercept_code
from zipml_ooc.gateware.gradient import GradientTree
from zipml_ooc.gateware.reference import Program, State, draw, update
from zipml_ooc.gateware.replay import Replay
from zipml_ooc.gateware.tables import Tables
from zipml_ooc.gateware.update import Update


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
