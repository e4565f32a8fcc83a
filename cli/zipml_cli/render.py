"""What people see: sizes, tables, progress bars and one-line errors; for programs, strict JSON.

Results go to standard output, everything else to standard error. Bars appear on terminals only.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

    from zipml_ooc.executors import Counters
    from zipml_ooc.training import EpochRecord, TrainResult

__all__ = [
    "counted",
    "epoch_progress",
    "executed",
    "number",
    "one_line",
    "print_facts",
    "print_json",
    "print_table",
    "refetched",
    "row_progress",
    "say",
    "size",
    "step_progress",
]

# Wide enough that nothing is cut where nobody looks at the width: pipes and files.
_UNLIMITED_WIDTH = 10_000


def size(count: int) -> str:
    """Bytes for people, in powers of 1000.

    >>> size(999), size(1_300_000)
    ('999 bytes', '1.30 MB')
    """
    if count < 1000:
        return f"{count} bytes"
    power = min(5, int(math.log10(count)) // 3)
    value = count / 1000**power
    return f"{value:.{max(0, 2 - int(math.log10(value)))}f} {'kMGTP'[power - 1]}B"


def number(value: float | None) -> str:
    """Six significant digits; a dash for nothing."""
    return "-" if value is None else f"{value:.6g}"


def refetched(epochs: Sequence[EpochRecord]) -> str:
    """Say what was read again in a run: rows in its last epoch, bytes of the mean one."""
    again = size(round(sum(e.refetched_bytes or 0 for e in epochs) / len(epochs)))
    every = size(round(sum(e.bytes_read for e in epochs) / len(epochs)))
    rate = 100 * (epochs[-1].refetch_rate or 0)
    return f"{rate:.3g} % of the rows at the end, {again} of {every} an epoch"


def counted(counters: Counters) -> str:
    """Say what an executor has counted."""
    parts = [f"{counters.runs:,} runs"]
    if counters.cycles:
        took = counters.beats / counters.cycles
        parts.append(f"{counters.cycles:,} cycles, {took:.1%} of them with a beat")
    parts.append(f"{size(counters.bytes)} in {counters.seconds:.3g} s")
    parts += [
        f"{name} {number(value)}"
        for name, value in counters.more.items()
        if not name.startswith("modelled_")
    ]
    return ", ".join(parts)


def modelled(more: Mapping[str, float]) -> str:
    """Say how long a device would have been busy, what with, and how long at 32 bits a value."""
    parts = {name: more[f"modelled_{name}_seconds"] for name in ("memory", "link", "clock")}
    bound = max(parts, key=lambda name: parts[name])
    seconds, full = more["modelled_seconds"], more["modelled_float32_seconds"]
    return (
        f"modelled {seconds:.3g} s, bound by the {bound}; "
        f"the same rows at 32 bits {full:.3g} s, {full / seconds:.3g} times as long"
    )


def executed(record: Mapping[str, Any], result: TrainResult) -> list[tuple[str, str]]:
    """Say what computed the steps, if it was not the native core."""
    if "executor" not in record:
        return []
    facts = [("executor", record["executor"]["name"])]
    if result.counters is not None:
        facts.append(("", counted(result.counters)))
        if "modelled_seconds" in result.counters.more:
            facts.append(("", modelled(result.counters.more)))
    if result.lost is not None:
        lost = result.lost
        facts.append(("", f"lost in window {lost.window} of epoch {lost.epoch + 1}; then native"))
    return facts


def one_line(text: str) -> str:
    """`text` without line breaks and without characters that steer a terminal."""
    joined = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in joined
    )


def say(text: str) -> None:
    """Tell, beside the results, what happened on the way."""
    print(f"zipml: {one_line(text)}", file=sys.stderr)


def print_json(data: Mapping[str, Any]) -> None:
    """Print one strict JSON object: a number that is not finite becomes null."""
    print(json.dumps(_finite(data), allow_nan=False, indent=2))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line, aligned."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:<{width}}  {one_line(value)}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column left, the others right; plain text outside a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    if not console.is_terminal:
        console = Console(file=sys.stdout, highlight=False, width=_UNLIMITED_WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    console.print(table)


def _progress(*, json_wanted: bool, columns: Sequence[Any]) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=json_wanted or not console.is_terminal or not sys.stderr.isatty(),
    )


@contextmanager
def row_progress(*, json_wanted: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Give a function (stage, rows done, rows in all or None); each stage has a bar."""
    from rich.progress import TextColumn

    with _progress(
        json_wanted=json_wanted, columns=[TextColumn("{task.fields[rows]} rows")]
    ) as progress:
        stages: dict[str, Any] = {}

        def update(stage: str, done: int, total: int | None) -> None:
            if stage not in stages:
                for earlier in stages.values():  # it had no total: it is done now
                    progress.update(earlier, total=1, completed=1)
                    progress.stop_task(earlier)
                stages[stage] = progress.add_task(stage, total=None, rows="")
            rows = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            progress.update(stages[stage], total=total, completed=done, rows=rows)

        yield update


@contextmanager
def epoch_progress(*, json_wanted: bool) -> Iterator[Callable[[EpochRecord, int], None]]:
    """Give a function (epoch record, epochs in all) that shows the losses."""
    from rich.progress import TextColumn

    with _progress(
        json_wanted=json_wanted,
        columns=[TextColumn("{task.completed} of {task.total} epochs{task.fields[losses]}")],
    ) as progress:
        task = progress.add_task("train", total=None, losses="")
        cycles: list[int] = []

        def update(record: EpochRecord, total: int) -> None:
            losses = f"  loss {number(record.loss)}"
            if record.validation_loss is not None:
                losses += f"  validation {number(record.validation_loss)}"
            if record.counters is not None and record.counters.cycles:
                cycles.append(record.counters.cycles)
                losses += f"  {sum(cycles):,} cycles"
            progress.update(task, total=total, completed=record.epoch, losses=losses)

        yield update


@contextmanager
def step_progress(*, json_wanted: bool) -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is going on."""
    with _progress(json_wanted=json_wanted, columns=[]) as progress:
        task = progress.add_task("", total=None)
        yield lambda step: progress.update(task, description=step)
