"""What Vivado needs to implement the gateware for a Zynq-7020: wrapper, constraints and script.

Written, and not run here: Vivado is not an open tool.
"""

from __future__ import annotations

from pathlib import Path

from .formats import Format

__all__ = ["PART", "write_sources"]

PART = "xc7z020clg400-1"  # PYNQ-Z1, PYNQ-Z2, Arty Z7-20

_AXIL = [
    ("input", 19, "awaddr"),
    ("input", 1, "awvalid"),
    ("output", 1, "awready"),
    ("input", 32, "wdata"),
    ("input", 4, "wstrb"),
    ("input", 1, "wvalid"),
    ("output", 1, "wready"),
    ("output", 2, "bresp"),
    ("output", 1, "bvalid"),
    ("input", 1, "bready"),
    ("input", 19, "araddr"),
    ("input", 1, "arvalid"),
    ("output", 1, "arready"),
    ("output", 32, "rdata"),
    ("output", 2, "rresp"),
    ("output", 1, "rvalid"),
    ("input", 1, "rready"),
]

_XDC = """\
# {form.bits} bits, {form.lanes} lanes, depth {form.depth}: the clock of both buses.
create_clock -name aclk -period {period:.3f} [get_ports aclk]
"""

_TCL = """\
# Implements the accelerator by itself, without pins ("out of context"), and reports clock and area:
#   vivado -mode batch -source build.tcl
set here [file dirname [file normalize [info script]]]
create_project -in_memory -part {part}
read_verilog [list [file join $here accelerator.v] [file join $here zipml_accelerator.v]]
read_xdc -mode out_of_context [file join $here clock.xdc]
synth_design -top zipml_accelerator -part {part} -mode out_of_context
opt_design
place_design
phys_opt_design
route_design
report_timing_summary -file [file join $here timing.rpt]
report_utilization -file [file join $here utilization.rpt]
write_checkpoint -force [file join $here routed.dcp]
"""


def _wrapper(form: Format) -> str:
    """A module with the clock and the reset that Vivado's block designs know."""
    stream = [
        ("input", form.beat_bits, "tdata"),
        ("input", 1, "tvalid"),
        ("output", 1, "tready"),
        ("input", 1, "tlast"),
    ]
    ports = [("s_axil", *port) for port in _AXIL] + [("s_axis", *port) for port in stream]
    declared, joined = [], [".clk(aclk)", ".rst(~aresetn)"]
    for bus, direction, width, name in ports:
        size = f" [{width - 1}:0]" if width > 1 else ""
        declared.append(f"    {direction} wire{size} {bus}_{name}")
        joined.append(f".{bus}_{name}({bus}_{name})")
    clock = (
        '    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 aclk CLK",\n'
        '       X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF s_axil:s_axis, '
        'ASSOCIATED_RESET aresetn" *)\n'
        "    input wire aclk"
    )
    head = ",\n".join([clock, "    input wire aresetn", *declared])
    body = ",\n        ".join(joined)
    return (
        "// The accelerator with its clock and reset as block designs expect them: aresetn is low\n"
        "// while the reset lasts, and changes with aclk.\n"
        f"module zipml_accelerator (\n{head}\n);\n"
        f"    accelerator inner (\n        {body}\n    );\nendmodule\n"
    )


def write_sources(form: Format, folder: Path, *, frequency_mhz: float) -> None:
    """Write wrapper, constraints and script beside ``accelerator.v``."""
    (folder / "zipml_accelerator.v").write_text(_wrapper(form))
    (folder / "clock.xdc").write_text(_XDC.format(form=form, period=1000 / frequency_mhz))
    (folder / "build.tcl").write_text(_TCL.format(part=PART))
