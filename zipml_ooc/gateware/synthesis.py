"""The gateware as Verilog, and synthesised, placed and routed for ECP5-85 with the open tools.

The ports of the accelerator are wider than any package has pins: they sit inside of the device, on
a bus. For placing, a harness stands for the bus: registers, loaded and read serially, at every
port. Nothing here decides where results are kept: that is `builds`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .accelerator import Accelerator
from .formats import Format
from .simulation import netlist
from .tools import NEXTPNR, YOSYS, ToolError, run_tool, tool

__all__ = ["CELLS", "place", "verilog"]

_DEVICE = ["--85k", "--package", "CABGA756", "--speed", "8"]
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
        inputs: list[Signal] = []
        outputs: list[Signal] = []
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


def verilog(form: Format, folder: Path) -> Path:
    """Write the gateware into a folder as ``accelerator.v``, a module of that name.

    Clock and reset, which is synchronous and active high, are ``clk`` and ``rst``; the other ports
    are those of `Accelerator`.
    """
    (folder / "accelerator.il").write_text(netlist(form))
    # Unlike amaranth.back.verilog, which looks for Yosys on the path only, and leaves processes:
    # simulators that wait for a change evaluate those late, and begin with unknown values.
    marks = "-remove generator -remove top -remove amaranth.hierarchy -remove amaranth.decoding"
    script = (
        "read_rtlil accelerator.il; proc -norom; memory_collect; "
        f"attrmap {marks}; attrmap -modattr {marks}; write_verilog accelerator.v"
    )
    run_tool([*tool(*YOSYS), "-q", "-p", script], folder, "writing Verilog")
    (folder / "accelerator.il").unlink()
    return folder / "accelerator.v"


def place(
    form: Format, folder: Path, *, frequency_mhz: float, seed: int
) -> tuple[float, dict[str, tuple[int, int]]]:
    """Synthesise, place and route for ECP5-85, speed grade 8.

    Parameters
    ----------
    form : Format
    folder : Path
        Gets the logs ``yosys.log`` and ``nextpnr.log``, with the critical path, and nextpnr's own
        ``report.json``.
    frequency_mhz : float
        What the placer aims at.
    seed : int
        Of the placer.

    Returns
    -------
    clock_mhz : float
        What it reached.
    used : dict
        Used and available cells of each kind in `CELLS`.
    """
    harness = Harness(form)
    ports = [harness.into, harness.load, harness.out]
    (folder / "top.il").write_text(rtlil.convert(harness, ports=ports, emit_src=False))
    script = "read_rtlil top.il; synth_ecp5 -abc9 -top top -json top.json"
    run_tool([*tool(*YOSYS), "-p", script], folder, "synthesis", log="yosys.log")
    options = ["--json", "top.json", "--report", "report.json", "--timing-allow-fail"]
    options += ["--freq", f"{frequency_mhz:g}", "--seed", str(seed)]
    command = [*tool(*NEXTPNR), *_DEVICE, *options]
    run_tool(command, folder, "placing and routing", log="nextpnr.log")
    for large in ("top.il", "top.json"):  # many times as large as the rest
        (folder / large).unlink()
    report = json.loads((folder / "report.json").read_text())
    if not report["fmax"]:
        raise ToolError("placing and routing found no clock in the gateware")
    (clock,) = report["fmax"].values()
    used = {
        name: (report["utilization"][cell]["used"], report["utilization"][cell]["available"])
        for name, cell in CELLS.items()
    }
    return clock["achieved"], used
