"""The command line: `python -m benchmarks.paper`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from ..kernels import timing
from . import PARTS, measure
from . import __doc__ as about


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=about.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows, seeds, bits: a minute")
    parser.add_argument("--data", type=Path, help="folder of the real tables")
    parser.add_argument(
        "--only", help=f"some of {','.join(PARTS)}", default=",".join(PARTS), metavar="PARTS"
    )
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(PARTS)}")
    given = os.environ.get("ZIPML_TEST_DATA")
    data = arguments.data or (Path(given) if given else None)
    if data is not None and not data.is_dir():
        parser.error(f"there is no folder {data}: --data and ZIPML_TEST_DATA name one")
    machine = timing.machine()
    versions = ", ".join(f"{name} {v}" for name, v in timing.versions().items())
    print(
        f"machine   {machine['processor']}, {machine['cores']} cores, one thread, "
        f"{machine['simd']}; Python {machine['python']}\nversions  {versions}"
    )
    began = time.perf_counter()
    with threadpool_limits(1):
        for name in chosen:
            for findings in measure(name, data, quick=arguments.quick):
                print(f"\n{findings}", flush=True)
    print(f"\ntook {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
