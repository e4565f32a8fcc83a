"""The memory that training takes: bounded by its budget, without an effect on the model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tables import compressed, regression_npz

from zipml_ooc import Dataset, TrainOptions, UsageError, open_dataset, train
from zipml_ooc.training import loading
from zipml_ooc.training.reading import available_bytes, budget_of, parse_memory


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Many windows of several chunks each."""
    folder = tmp_path_factory.mktemp("memory")
    source = regression_npz(folder / "t.npz", rows=40_000, columns=40)
    return compressed(source, folder / "d", chunk_rows=512)


OPTIONS = TrainOptions(epochs=3, replicas=4, validation=0.1)


def test_the_model_does_not_depend_on_the_memory(dataset: Dataset) -> None:
    models = [
        train(dataset, OPTIONS, memory=memory, threads=threads).model
        for memory, threads in ((None, 2), ("1MB", 2), ("100kB", 1), ("100kB", 3), (0, 2))
    ]
    models.append(train(dataset, OPTIONS, memory="300kB", workers=2).model)
    for model in models[1:]:
        np.testing.assert_array_equal(model.coef, models[0].coef)
        np.testing.assert_array_equal(model.intercept, models[0].intercept)
        assert model.record == models[0].record


def test_with_room_every_chunk_is_fetched_once_and_without_it_few_more(dataset: Dataset) -> None:
    opened = open_dataset(dataset.path)
    traffic, stored = opened.store.traffic, opened.stored_bytes
    # Indexes of shards, a thousandth of the bytes, are kept apart and may be there already.
    for memory, least, most in (("64MB", 0.998, 1.002), (stored // 2, 2.0, 6.0), (0, 6.0, 8.5)):
        loading._CACHE.clear()
        before = traffic.fetched_bytes
        train(opened, OPTIONS, memory=memory)
        fetched = (traffic.fetched_bytes - before) / stored
        # Eight passes: three epochs, three validations, the spectrum and the final score.
        assert least <= fetched <= most, (memory, fetched)


@pytest.mark.parametrize("text", ["much", "-3MB", "12 apples", "", "MB", -1])
def test_what_is_no_size_is_refused(dataset: Dataset, text: str | int) -> None:
    with pytest.raises(UsageError, match="memory must be a size such as 512MB or 2GiB; got"):
        train(dataset, OPTIONS, memory=text)


def test_workers_divide_the_memory_and_threads_share_it() -> None:
    assert parse_memory("2GiB") == 2 << 30
    assert budget_of("400MB") == 400_000_000
    assert budget_of("400MB", workers=4) == 100_000_000
    assert budget_of("400MB", elsewhere=True) == 400_000_000
    assert budget_of(None, elsewhere=True) is None
    assert budget_of(None, workers=2) == available_bytes() // 4 // 2


PEAK = """
import sys
from pathlib import Path
from zipml_ooc import TrainOptions, train
train(sys.argv[1], TrainOptions(epochs=2, step_size=0.1, shrinkage=1.0), threads=2, memory="4MB")
status = Path("/proc/self/status").read_text()  # ru_maxrss would count the parent's peak in
print(int(status.partition("VmHWM:")[2].split()[0]) * 1024)
"""


def test_the_peak_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """Data of 25 times the budget take no more than the budget above data of half of it."""
    peaks = {}
    for name, rows in (("small", 10_000), ("large", 500_000)):
        source = tmp_path / f"{name}.npy"
        rng = np.random.default_rng(0)
        table = np.lib.format.open_memmap(source, "w+", "f4", (rows, 201))
        for start in range(0, rows, 10_000):
            table[start : start + 10_000] = rng.standard_normal((10_000, 201), "f4")
        table.flush()
        made = compressed(source, tmp_path / name, (-1,), bits=8, samples=1, chunk_rows=2048)
        source.unlink()
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(made.path)], capture_output=True, text=True, check=True
        )
        peaks[name] = json.loads(done.stdout)
    assert open_dataset(tmp_path / "large").stored_bytes > 20 * 4_000_000
    # Two windows of eight megabytes are at work at a time, whatever the budget is.
    assert peaks["large"] - peaks["small"] < 4_000_000 + 2 * 9_000_000 + 8_000_000, peaks
