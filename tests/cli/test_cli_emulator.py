"""zipml train --executor fpga-emulator: what the run would have taken on a board is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def test_modelled_time_is_shown_and_part_of_the_json(zipml: Any, tmp_path: Path) -> None:
    made = tmp_path / "t.npz"
    zipml("synth", made, "--kind", "regression", "--rows", 5000, "--columns", 40).must_succeed()
    data = tmp_path / "t.zarr"
    packed = ("--bits", 4, "--samples", 1, "--levels", "uniform")
    zipml("compress", made, data, *packed).must_succeed()
    emulated = ("--executor", "fpga-emulator", "--epochs", 2, "--executor-option")
    shown = zipml("train", data, *emulated, "profile=harp").must_succeed().out
    assert "bound by the" in shown and "the same rows at 32 bits" in shown
    found = zipml("train", data, *emulated, "profile=harp", "--json").must_succeed().out
    counters = json.loads(found)["counters"]
    assert 0 < counters["modelled_seconds"] < counters["modelled_float32_seconds"]
    assert counters["cycles"] > counters["beats"] > 0
    zipml("train", data, *emulated, "profile=vu9p").must_refuse(2, "profile", "alveo-hbm", "vu9p")
