"""What importing the codecs costs, in fresh processes."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from typing import Any

from .timing import seconds

WITHOUT = "import numpy, numcodecs"
WITH = "import numpy, numcodecs, zipml_codecs"
INSIDE = f"""{WITHOUT}, time
began = time.process_time()
import zipml_codecs
print(time.process_time() - began)
"""


def measure(quick: bool = False) -> dict[str, Any]:
    """Milliseconds that `zipml_codecs` adds to a process that has NumPy and numcodecs."""
    turns = [(start(WITHOUT), start(WITH)) for _ in range(7 if quick else 15)]
    inside = [
        float(subprocess.check_output([sys.executable, "-c", INSIDE], text=True)) for _ in turns
    ]
    return {
        "processes": len(turns),
        "without_ms": 1e3 * statistics.median(without for without, _ in turns),
        "with_ms": 1e3 * statistics.median(with_ for _, with_ in turns),
        "added_ms": 1e3 * statistics.median(with_ - without for without, with_ in turns),
        "inside_ms": 1e3 * statistics.median(inside),
        "lowest_ms": 1e3 * min(with_ - without for without, with_ in turns),
        "highest_ms": 1e3 * max(with_ - without for without, with_ in turns),
    }


def start(code: str) -> float:
    """Seconds that a fresh process which runs this takes of its core."""
    return seconds(
        lambda: subprocess.run([sys.executable, "-c", code], check=True), clock=children_time
    )


def children_time() -> float:
    """Processor time of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
