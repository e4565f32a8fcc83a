"""The command line: `python -m benchmarks.paper`."""

from __future__ import annotations

import argparse
import time

from threadpoolctl import threadpool_limits

from ..machine import about_machine, about_versions, versions
from ..tables import add_data_option
from . import PARTS, measure
from . import __doc__ as about


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=about.splitlines()[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer rows, seeds, bits: a minute")
    add_data_option(parser)
    parser.add_argument(
        "--only", help=f"some of {','.join(PARTS)}", default=",".join(PARTS), metavar="PARTS"
    )
    arguments = parser.parse_args()
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in PARTS]:
        parser.error(f"there is no {', '.join(unknown)}; known: {', '.join(PARTS)}")
    print(f"{about_machine()}, one thread\n{about_versions(versions(['scikit-learn']))}")
    began = time.perf_counter()
    with threadpool_limits(1):
        for name in chosen:
            for findings in measure(name, arguments.data, quick=arguments.quick):
                print(f"\n{findings}", flush=True)
    print(f"\ntook {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
