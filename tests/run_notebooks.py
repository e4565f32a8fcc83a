"""Execute notebooks and say how long each took: ``python tests/run_notebooks.py *.ipynb``.

They run in a temporary folder of their own, so that what they write goes with it, and the files
in the repository stay as they are: without outputs. A cell that fails ends the run with its error.
ZIPML_CHECKOUT tells those that use `benchmarks` where it lies.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

TIMEOUT_SECONDS = 300


def run(path: Path) -> float:
    """Execute one notebook and return the seconds it took."""
    notebook = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=TIMEOUT_SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        began = time.perf_counter()
        client.execute()
        return time.perf_counter() - began


def main(paths: list[str]) -> int:
    """Execute all of them and return the exit code."""
    if not paths:
        print("usage: python tests/run_notebooks.py NOTEBOOK...", file=sys.stderr)
        return 2
    os.environ["ZIPML_CHECKOUT"] = str(Path(__file__).resolve().parents[1])
    failed = 0
    for path in map(Path, paths):
        with_outputs = [
            cell for cell in nbformat.read(path, as_version=4).cells if cell.get("outputs")
        ]
        if with_outputs:
            failed += 1
            print(f"{path}: {len(with_outputs)} cells hold outputs: clear them before committing")
            continue
        try:
            print(f"{path}: {run(path):.1f} s")
        except CellExecutionError as error:
            failed += 1
            print(f"{path}: failed\n{error}", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
