"""The command line: `python -m benchmarks.accelerator`."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass

from benchmarks.machine import about_machine, about_versions
from benchmarks.tables import add_data_option
from zipml_ooc.gateware.profiles import PROFILES, Profile

from . import __doc__ as about
from .learners import TABLES, Course, Float32, Learner, Quantised, Table, make_table
from .search import Budget, Found, fastest, final_loss, search
from .speed import COLUMNS, speeds

WITHIN = 1.01
BITS = (8, 4, 2, 1)
# Where the optimum is out of reach for SGD, the loss after so many epochs at full precision is.
UNREACHABLE, EPOCHS = ("mnist 3/8",), 20


@dataclass
class Result:
    """What one learner took on one table."""

    learner: Learner
    found: list[Found]


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _target(table: Table, full: Float32, budget: Budget) -> float:
    """The loss to be reached, over that of the optimum."""
    if table.name not in UNREACHABLE:
        _say(f"\n{table.name}, {_shape(table)}: to within 1 % of the optimum")
        return WITHIN
    kinds = budget.kinds(table.x.shape[1])
    courses = [Course(EPOCHS, step, *kind) for step in budget.steps for kind in kinds]
    loss = min(final_loss(full, course, budget.seeds) for course in courses)
    _say(
        f"\n{table.name}, {_shape(table)}: to within 1 % of the loss at full precision after "
        f"{EPOCHS} epochs, {loss:.3f} times the optimum"
    )
    return WITHIN * loss


def _shape(table: Table) -> str:
    return f"{table.x.shape[0]} rows, {table.x.shape[1]} columns"


def _row(result: Result, baseline: float | None, profile: Profile) -> tuple[str, float | None]:
    """A row of the table of a profile, and the seconds that it ends with."""
    learner = result.learner
    name = "32" if learner.bits == 32 else f"{learner.bits}"
    best = fastest(learner, result.found, profile)
    if best is None:
        return f"| {name} | not reached | | | | | | | |", None
    course, epoch = best.course, learner.epoch(best.course, profile)
    seconds = course.epochs * epoch.seconds
    ratio = "1" if baseline is None else f"{baseline / seconds:.2f}"
    batch = f"{course.batch_tiles}{', delayed' if course.delayed else ''}"
    cycles = "" if learner.bits == 32 else f"{epoch.cycles:,}"
    return (
        f"| {name} | {course.epochs} | {batch} | {best.loss:.4f} | {cycles} | {epoch.bytes:,} "
        f"| {1000 * seconds:.3f} | {ratio} | {epoch.bound_by} |",
        seconds,
    )


def _show(results: list[Result], profile: Profile) -> None:
    """The table of a profile."""
    _say(f"\n{profile.title} ({profile.name})\n")
    _say(
        "| Bits | Epochs | Tiles of a mini-batch | Loss / optimum | Cycles of an epoch "
        "| Bytes of an epoch | Modelled ms | Times as fast | Bound by |"
    )
    _say("|---|---|---|---|---|---|---|---|---|")
    line, baseline = _row(results[0], None, profile)
    _say(line)
    for result in results[1:]:
        _say(_row(result, baseline, profile)[0])


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accelerator", description=(about or "").splitlines()[0]
    )
    parser.add_argument(
        "--profile", choices=list(PROFILES), default="pynq-z1", help="shown in full"
    )
    parser.add_argument("--table", choices=TABLES, action="append", help="by default all")
    parser.add_argument("--seeds", type=int, default=3, help="whose median counts")
    parser.add_argument("--speed", action="store_true", help="of the emulator, and nothing else")
    add_data_option(parser)
    arguments = parser.parse_args()
    if arguments.speed:
        _say(about_machine())
        _say(about_versions())
        _speed()
        return
    tables = arguments.table or TABLES
    if arguments.data is None and set(tables) != {"synthetic"}:
        parser.error("--data, or ZIPML_TEST_DATA, has to name the folder of the tables")
    _say(about_machine())
    _say(about_versions())
    budget = Budget(seeds=arguments.seeds)
    summary = []
    for name in tables:
        table = make_table(name, arguments.data)
        full = Float32(table)
        target = _target(table, full, budget)
        learners: list[Learner] = [full, *(Quantised(table, bits) for bits in BITS)]
        results = [Result(learner, search(learner, target, budget)) for learner in learners]
        for profile in PROFILES.values():
            if profile.name == arguments.profile:
                _show(results, profile)
            ratios = " | ".join(_ratios(results, profile))
            summary.append(f"| {name} | {profile.name} | {ratios} |")
    _say("\nTimes as fast as 32 bits, to the same loss\n")
    _say("| Table | Profile | " + " | ".join(f"{bits} bits" for bits in BITS) + " |")
    _say("|---|---|" + "---|" * len(BITS))
    for line in summary:
        _say(line)


def _speed() -> None:
    """Codes a second of the emulator."""
    _say(f"\nG codes/s of the emulator on one core, {COLUMNS} columns, an update a tile\n")
    _say("| Instruction set | " + " | ".join(f"{bits} bits" for bits in BITS) + " |")
    _say("|---|" + "---|" * len(BITS))
    for level, found in speeds(BITS).items():
        _say(f"| {level} | " + " | ".join(f"{speed:.1f}" for speed in found) + " |")


def _ratios(results: list[Result], profile: Profile) -> list[str]:
    """How much faster each is than 32 bits."""
    _, baseline = _row(results[0], None, profile)
    rows = [_row(result, baseline, profile)[1] for result in results[1:]]
    return [f"{baseline / s:.2f}" if s is not None and baseline is not None else "-" for s in rows]


if __name__ == "__main__":
    main()
