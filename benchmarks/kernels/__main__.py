"""The command line: `python -m benchmarks.kernels`."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from threadpoolctl import threadpool_limits
from zipml_codecs import _native

from ..machine import machine, versions
from . import __doc__ as about
from . import codecs, imports, timing, training
from .text import as_text

PACKAGES = ("scikit-learn", "numcodecs", "blosc2", "pcodec")
PARTS = {"training": training.measure, "codecs": codecs.measure, "imports": imports.measure}


def main() -> None:
    """Measure on one core, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=about.splitlines()[0]
    )
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true", help="fewer cases and turns: a minute")
    parser.add_argument(
        "--only", help=f"some of {','.join(PARTS)}", default=",".join(PARTS), metavar="PARTS"
    )
    parser.add_argument("--simd", choices=_native.simd_levels(), help="not the best level")
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if arguments.simd:
        _native.select_simd(arguments.simd)
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions(PACKAGES),
        "quick": arguments.quick,
    }
    began = time.perf_counter()
    with timing.cores(1), threadpool_limits(1):
        for name in chosen:
            report[name] = PARTS[name](arguments.quick)
    report["seconds"] = time.perf_counter() - began
    print(json.dumps(report, indent=1) if arguments.json else as_text(report))


if __name__ == "__main__":
    main()
