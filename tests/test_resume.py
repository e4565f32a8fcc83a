"""Interrupted compression: whenever it stops, what is resumed ends in the same bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compress_cases import OPTIONS, TARGETS, interrupted, table
from tables import compressed, regression_npz, tree_bytes

from zipml_ooc import (
    CompressOptions,
    DataError,
    SourceOptions,
    UsageError,
    compress,
    dataset_writer,
    open_dataset,
)

# Runs the same compression again and again in a child that kills itself at one of its dealings with
# files in the destination's folder, each time a drawn number of them later, until one gets through.
KILLED = """
import os, signal, sys
import numpy as np
from zipml_ooc import CompressOptions, SourceOptions, compress, dataset_writer
import zipml_ooc.dataset, zarr  # loaded before the first fork
folder, name = sys.argv[1:3]
deaths, seed, force, shard_rows = map(int, sys.argv[3:])
rng = np.random.default_rng(seed)
options = CompressOptions(
    bits=3, chunk_rows=64, weight="w", threads=2, shard_rows=shard_rows
)
killed = 0
while True:
    allowed = int(rng.integers(1, 120)) if killed < deaths else 10**9
    child = os.fork()
    if not child:
        left = [allowed]
        def count(event, arguments):
            if event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir"):
                if folder in str(arguments[0]) and name in str(arguments[0]):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        source_options = SourceOptions(target=("y", "z"))
        compress(f"{folder}/t.csv", f"{folder}/{name}", options, source_options=source_options,
                 resume=True, force=bool(force))
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if not status:
        break
    assert status == -signal.SIGKILL, status
    killed += 1
print(killed)
"""


@pytest.mark.parametrize(("force", "shard_rows"), [(False, 0), (True, 192)])
def test_ten_kills_and_as_many_resumes_end_in_the_same_bytes(
    tmp_path: Path, force: bool, shard_rows: int
) -> None:
    source = table(tmp_path / "t.csv")
    options = replace(OPTIONS, shard_rows=shard_rows)
    compress(source, tmp_path / "whole", options, source_options=TARGETS)
    if force:
        compressed(source, tmp_path / "d", bits=8)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), "d", "10", "0", str(int(force)),
         str(shard_rows)],
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 10
    assert tree_bytes(tmp_path / "d") == tree_bytes(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "t.csv", "whole"]


@pytest.mark.parametrize("last", range(1, 16))
def test_a_kill_at_the_very_end_loses_neither_dataset(tmp_path: Path, last: int) -> None:
    """Publishing takes a few steps; after each of them there is the old dataset or the new one."""
    source = table(tmp_path / "t.csv", rows=100)
    compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    before = tree_bytes(compressed(source, tmp_path / "d", bits=8).path)
    after = tree_bytes(tmp_path / "whole")
    steps = []

    def count(event: str, arguments: Any) -> None:
        if steps and event in ("open", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
            steps.append(event)
            if len(steps) == last + 1:
                steps.clear()
                os._exit(9)

    child = os.fork()
    if not child:  # a child that ends like that runs no handler of ours
        original = dataset_writer.DatasetWriter.write

        def write(self: Any, report: Any) -> None:
            original(self, report)
            steps.append("written")

        dataset_writer.DatasetWriter.write = write  # type: ignore[method-assign]
        sys.addaudithook(count)
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, force=True)
        os._exit(0)
    os.waitpid(child, 0)
    compress(source, tmp_path / "e", OPTIONS, source_options=TARGETS)  # others are not disturbed
    if (tmp_path / "d").exists():
        assert tree_bytes(tmp_path / "d") in (before, after)
    compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True, force=True)
    assert tree_bytes(tmp_path / "d") == after
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "e", "t.csv", "whole"]


def test_what_is_whole_is_kept_and_what_is_damaged_is_written_again(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    partial = interrupted(source, tmp_path / "d")
    data = partial / "dataset"
    flipped = bytearray((data / "X/c/1/0").read_bytes())
    flipped[200] ^= 1
    (data / "X/c/1/0").write_bytes(flipped)
    (data / "y/c/2/0").write_bytes(b"")
    (data / "sample_weight/c/3").unlink()
    (data / "X/c/4/0").write_bytes((data / "X/c/0/0").read_bytes())
    (partial / "scratch" / "half").write_bytes(b"x")
    kept = (data / "X/c/0/0").stat().st_ino
    checked = []

    def report(stage: str, rows: int, total: int | None) -> None:
        checked.append(stage)

    compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True, progress=report)
    assert "check" in checked and "statistics" not in checked  # the first pass is not repeated
    assert (tmp_path / "d/X/c/0/0").stat().st_ino == kept
    assert tree_bytes(tmp_path / "d") == tree_bytes(tmp_path / "whole")


def test_nothing_is_resumed_without_being_asked_for(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    partial = interrupted(source, tmp_path / "d")
    before = tree_bytes(partial)
    with pytest.raises(UsageError, match=r"unfinished, in \.d\.partial: .*--resume.*--force"):
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS)
    assert set(tree_bytes(partial)) == set(before)
    with pytest.raises(UsageError, match="there is no dataset"):
        open_dataset(tmp_path / "d")
    with pytest.raises(DataError, match="no Zarr group"):
        open_dataset(partial / "dataset")
    compress(source, tmp_path / "d", CompressOptions(bits=8), force=True)  # other options
    assert open_dataset(tmp_path / "d").spec.quantizer.bits == 8
    assert not partial.exists()
    with pytest.raises(UsageError, match="exists"):
        compress(source, tmp_path / "d", CompressOptions(bits=8), resume=True)


def test_a_run_without_a_beginning_can_be_resumed(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz")
    compress(source, tmp_path / "d", resume=True)
    assert open_dataset(tmp_path / "d").spec.rows == 2000


def test_other_options_or_sources_are_refused_and_harm_nothing(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    partial = interrupted(source, tmp_path / "d")

    def refused(message: str, path: Path = source, targets: Any = TARGETS, **more: Any) -> None:
        options = CompressOptions(**{"bits": 3, "chunk_rows": 64, "weight": "w", **more})
        with pytest.raises(UsageError, match=message):
            compress(path, tmp_path / "d", options, source_options=targets, resume=True)
        assert partial.exists()

    refused("begun with bits 3, not 4: resume with the same options, or .*--force", bits=4)
    refused("begun with seed 0, not 1", seed=1)
    refused(r"begun with target \['y', 'z'\], not \['y'\]", targets=SourceOptions(target=("y",)))
    refused("begun from another source", path=table(tmp_path / "other.csv"))
    text, status = source.read_text(), source.stat()
    source.write_text(text.replace(".1", ".2", 1))  # as long as before
    refused("its files have changed since")
    source.write_text(text)
    os.utime(source, ns=(status.st_atime_ns, status.st_mtime_ns))
    journal = json.loads((partial / "journal.json").read_text())
    (partial / "journal.json").write_text(json.dumps({**journal, "version": "0.0.1"}))
    refused("begun by version 0.0.1")
    (partial / "journal.json").write_text("{")
    refused("journal.json is damaged: start again with --force")
    (partial / "journal.json").write_text("[" * 200_000)
    refused("journal.json is damaged: start again with --force")
    (partial / "journal.json").write_text(json.dumps({**journal, "plan": {"rows": 3}}))
    refused("the journal of .* is damaged: start again with --force and without --resume")
    (partial / "journal.json").write_text(json.dumps(journal))
    # Threads change nothing.
    again = CompressOptions(bits=3, chunk_rows=64, weight="w", threads=3)
    compress(source, tmp_path / "d", again, source_options=TARGETS, resume=True)
    assert tree_bytes(tmp_path / "d") == tree_bytes(tmp_path / "whole")


def test_data_that_cannot_be_stored_leave_nothing(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")

    def spoil(stage: str, rows: int, total: int | None) -> None:
        if stage == "statistics":
            table(source, rows=900)

    with pytest.raises(DataError, match="changed while it was read"):
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, progress=spoil)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv"]


def test_a_source_that_goes_away_midway_can_be_resumed(tmp_path: Path) -> None:
    """A network that fails is no fault of the data."""
    x = np.random.default_rng(0).standard_normal((1000, 5))
    np.save(tmp_path / "t.npy", x)
    options = CompressOptions(chunk_rows=64)
    compress(tmp_path / "t.npy", tmp_path / "whole", options)

    def lose(stage: str, rows: int, total: int | None) -> None:
        if stage == "statistics":
            (tmp_path / "t.npy").rename(tmp_path / "away.npy")

    with pytest.raises(UsageError, match=r"cannot be opened.*--resume goes on with it"):
        compress(tmp_path / "t.npy", tmp_path / "d", options, progress=lose)
    (tmp_path / "away.npy").rename(tmp_path / "t.npy")
    compress(tmp_path / "t.npy", tmp_path / "d", options, resume=True)
    assert tree_bytes(tmp_path / "d") == tree_bytes(tmp_path / "whole")
