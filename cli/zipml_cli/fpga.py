"""The commands that make the accelerator's gateware: fpga build, fpga report."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as opt
from .render import print_facts, print_json, print_table, step_progress

if TYPE_CHECKING:
    from zipml_ooc.gateware.builds import Build, Roof

app = typer.Typer(
    help="Make the gateware of the accelerator, and see what it can do.",
    rich_markup_mode=None,
)

_CELLS = {
    "lut": "LUT",
    "register": "registers",
    "multiplier": "DSP",
    "memory": "block RAM",
}


class Device(StrEnum):
    """Devices that gateware is made for."""

    ECP5_85 = "ecp5-85"
    ZYNQ_7020 = "zynq-7020"


Links = Annotated[
    list[str] | None,
    typer.Option(
        "--bandwidth",
        metavar="GB/S",
        help="Show the roofline for a link of this bandwidth, not for boards; may be repeated.",
    ),
]
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="A build of the gateware.")]


@app.command()
def build(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    bits: Annotated[
        int,
        typer.Option(
            "--bits",
            metavar="N",
            help="Bits of a stored code: 1, 2, 4 or 8; 16 for values in float32, to compare with.",
        ),
    ] = 4,
    lanes: Annotated[
        int,
        typer.Option("--lanes", metavar="N", help="Codes of a beat: 8, 16, 32 or 64."),
    ] = 64,
    depth: Annotated[
        int,
        typer.Option(
            "--depth",
            metavar="N",
            help="Words of the memories: up to N - 24 columns; a power of 2.",
        ),
    ] = 1024,
    device: Annotated[
        Device, typer.Option("--device", help="What it is made for.")
    ] = Device.ECP5_85,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Seed of the placer (ECP5).", show_default="1"),
    ] = None,
    frequency: Annotated[
        float | None,
        typer.Option(
            "--frequency",
            metavar="MHZ",
            help="Clock to aim at.",
            show_default="160 for ECP5, 100 for Zynq",
        ),
    ] = None,
    force: opt.Force = False,
    json: opt.Json = False,
) -> None:
    """Make the gateware of the accelerator for a device.

    Writes Verilog. For ECP5 it is synthesised, placed and routed too, with the open tools of the
    extra fpga, which takes minutes; reports and logs stay in the folder. For Zynq, a wrapper,
    constraints and a script for Vivado are written, and not run.

    \b
    Examples:
      zipml fpga build q4 --bits 4
      zipml fpga build q1 --bits 1 --depth 2048 --seed 3
      zipml fpga build pynq --bits 2 --lanes 64 --device zynq-7020 --frequency 125
    """
    from zipml_ooc.gateware.builds import build as run
    from zipml_ooc.gateware.formats import Format

    form = Format(bits, lanes, depth)
    with step_progress(json_wanted=json) as progress:
        made = run(
            out,
            form,
            device=device.value,
            seed=seed,
            frequency_mhz=frequency,
            force=force,
            progress=progress,
        )
    _show(out, made, [], json_wanted=json)


@app.command()
def report(folder: Folder, bandwidth: Links = None, json: opt.Json = False) -> None:
    """Show clock, area and speed of gateware that zipml fpga build made.

    Speeds are those of the stream: a code for each lane in every cycle. On a board either the
    clock, the memory or the link sets the limit, which is compared with float32 values that come
    the same way. What boards have is known or assumed: see docs/accelerator.md.

    \b
    Examples:
      zipml fpga report q4
      zipml fpga report q4 --bandwidth 1.2 --bandwidth 6.5
      zipml fpga report q4 --json
    """
    from zipml_ooc import UsageError
    from zipml_ooc.gateware.builds import profile_rooflines, read_build, roofline

    made = read_build(folder)
    links = []
    for text in bandwidth or ():
        try:
            links.append(float(text) * 1e9)
        except ValueError:
            raise UsageError(f"--bandwidth is {text!r}; give GB/s as a number, as in 6.5") from None
    roofs = [roofline(made, link) for link in links] or profile_rooflines(made)
    _show(folder, made, roofs, json_wanted=json)


def _show(folder: Path, made: Build, roofs: list[Roof], *, json_wanted: bool) -> None:
    from zipml_ooc.gateware.builds import DEVICES

    if json_wanted:
        facts: dict[str, Any] = {"folder": str(folder), **asdict(made)}
        facts["columns_limit"] = made.form.columns_limit
        facts["codes_per_second"] = made.codes_per_second
        facts["bytes_per_second"] = made.bytes_per_second
        facts["used"] = {
            name: {"used": used, "available": there} for name, (used, there) in made.used.items()
        }
        print_json(facts | {"roofline": [asdict(roof) for roof in roofs]})
        return
    columns = made.form.columns_limit
    values = "float32" if made.form.is_float else f"{made.bits} bit{'s'[: made.bits > 1]}"
    lines = [
        ("folder", str(folder)),
        ("device", DEVICES[made.device]),
        ("format", f"{values}, {made.lanes} lanes, up to {columns:,} columns"),
    ]
    if made.clock_mhz is None:
        lines.append(("clock", f"{made.frequency_mhz:g} MHz aimed at, nothing was placed"))
    else:
        aim = f"aimed at {made.frequency_mhz:g}, seed {made.seed}"
        lines.append(("clock", f"{made.clock_mhz:.0f} MHz ({aim})"))
    for name, (used, there) in made.used.items():
        lines.append((_CELLS.get(name, name), f"{used:,} of {there:,} ({used / there:.0%})"))
    rate = f"{made.codes_per_second / 1e9:.3g} G codes/s, {made.bytes_per_second / 1e9:.3g} GB/s"
    lines.append(("stream", rate if made.clock_mhz else f"{rate} at the clock aimed at"))
    lines.append(("made with", ", ".join(f"{tool} {text}" for tool, text in made.tools.items())))
    print_facts(lines)
    if roofs:
        print()
        print_table(
            ["board" if roofs[0].profile else "link", "data", "codes/s", "bound by", "of float32"],
            [
                [
                    roof.profile or "given",
                    f"{roof.link_bytes / 1e9:.3g} GB/s",
                    f"{roof.codes_per_second / 1e9:.3g} G",
                    roof.bound,
                    f"{roof.gain:.2f} x",
                ]
                for roof in roofs
            ],
        )
