"""The command line: `python -m benchmarks.outofcore`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..machine import machine
from . import __doc__ as about
from . import epoch, loading, memory
from .text import as_text

PARTS = {"epoch": epoch.measure, "loading": loading.measure, "memory": memory.measure}


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.outofcore", description=about.splitlines()[0]
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6, help="of each timed run")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--memory-rows",
        type=int,
        default=10_000_000,
        help="rows of the part `memory` (100,000,000 x 100: 40 GB as float32)",
    )
    parser.add_argument(
        "--only", help=f"some of {','.join(PARTS)}", default=",".join(PARTS), metavar="PARTS"
    )
    parser.add_argument("--folder", type=Path, help="where to put the files (default: a new one)")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(PARTS)}")
    report: dict[str, Any] = {"machine": machine()}
    with TemporaryDirectory(dir=arguments.folder) as folder:
        for name in chosen:
            report[name] = PARTS[name](Path(folder), arguments)
    print(json.dumps(report, indent=1) if arguments.json else as_text(report))


if __name__ == "__main__":
    main()
