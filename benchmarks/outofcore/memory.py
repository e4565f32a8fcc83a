"""A table far larger than the memory that training it takes: the commands, and their peaks."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

BITS, SAMPLES, EPOCHS = 2, 2, 2
BUDGET = "256MB"


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the rows, compress them, train: three processes, as a user starts them."""
    rows, columns = arguments.memory_rows, arguments.columns
    source, packed, model = (folder / name for name in ("rows.npy", "rows.zarr", "rows.zipml"))
    _zipml("synth", source, "--rows", rows, "--columns", columns)
    compressing, compress_peak, _ = _zipml(
        "compress", source, packed, "--target", -1, "--bits", BITS, "--samples", SAMPLES
    )
    source.unlink()
    training, train_peak, printed = _zipml(
        "train", packed, "--out", model, "--epochs", EPOCHS, "--memory", BUDGET, "--json"
    )
    result = json.loads(printed)
    return {
        "rows": rows,
        "columns": columns,
        "float32_bytes": 4 * rows * columns,
        "stored_bytes": sum(f.stat().st_size for f in packed.rglob("*") if f.is_file()),
        "bits": BITS,
        "samples": SAMPLES,
        "compress_seconds": compressing,
        "compress_peak": compress_peak,
        "budget": BUDGET,
        "epochs": EPOCHS,
        "train_seconds": training,
        "epoch_seconds": min(epoch["seconds"] for epoch in result["epochs"]),
        "train_peak": train_peak,
        "loss": result["loss"],
    }


def _zipml(*words: object) -> tuple[float, int, str]:
    """Seconds, peak bytes of resident memory and output of a command."""
    command = [sys.executable, "-m", "zipml_cli", *map(str, words)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024, printed
