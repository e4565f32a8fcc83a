"""Where a dataset is written: links, names, locks, and what refuses to be written."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from compress_cases import OPTIONS, TARGETS, interrupted, table
from tables import tree_bytes

from zipml_ooc import DataError, UsageError, compress


@pytest.mark.parametrize("relative", [False, True])
def test_a_link_to_a_dataset_stays_one(relative: bool, tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    (tmp_path / "disk").mkdir()
    link = tmp_path / "link"
    link.symlink_to("disk/d" if relative else tmp_path / "disk" / "d")
    for force in (False, True):
        compress(source, link, OPTIONS, source_options=TARGETS, force=force)
        assert link.is_symlink() and (tmp_path / "disk" / "d" / "zarr.json").exists()
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []
    compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    assert tree_bytes(tmp_path / "disk" / "d") == tree_bytes(tmp_path / "whole")


@pytest.mark.parametrize("dest", ["/", "memory://", "memory:///", "s3://", "://"])
def test_a_destination_without_a_name_is_refused(tmp_path: Path, dest: str) -> None:
    with pytest.raises(UsageError, match=f"^{dest} cannot be a dataset"):
        compress(table(tmp_path / "t.csv"), dest, OPTIONS, source_options=TARGETS)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="loop is a link that leads nowhere"):
        compress(table(tmp_path / "t.csv"), tmp_path / "loop", OPTIONS, source_options=TARGETS)


def test_a_file_in_the_way_of_the_unfinished_dataset_is_named(tmp_path: Path) -> None:
    (tmp_path / ".d.partial").write_text("mine")
    with pytest.raises(DataError, match=r"\.d\.partial is in the way .*: remove it"):
        compress(table(tmp_path / "t.csv"), tmp_path / "d", OPTIONS, source_options=TARGETS)
    assert (tmp_path / ".d.partial").read_text() == "mine"


def test_two_processes_do_not_write_one_dataset(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    partial = interrupted(source, tmp_path / "d")
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import fcntl, sys, time; f = open(sys.argv[1], 'r+'); fcntl.flock(f, fcntl.LOCK_EX); "
         "print('held', flush=True); time.sleep(60)", str(partial / "lock")],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match=r"is being written by process \d+ on \S+: wait"):
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True)
    holder.kill()
    holder.wait()
    # The lock of a process that died is no lock.
    compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True)
    assert not partial.exists()


def test_without_locks_of_the_file_system_the_named_process_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(tmp_path / "t.csv")
    partial = interrupted(source, tmp_path / "d")

    def unsupported(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    # Its process, this one, is alive.
    with pytest.raises(UsageError, match=f"written by process {os.getpid()} on"):
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    _, host = (partial / "lock").read_text().split()
    (partial / "lock").write_text(f"{gone.pid} {host}")
    compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, resume=True)
    assert not partial.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_destination_is_one_clear_error(tmp_path: Path) -> None:
    source = table(tmp_path / "t.csv")
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    with pytest.raises(DataError, match=f"cannot write in {folder}: Permission denied"):
        compress(source, folder / "d", OPTIONS, source_options=TARGETS)


def test_a_destination_that_refuses_to_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(tmp_path / "t.csv")

    def refuse(self: Path, *_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DataError, match=f"cannot write in {tmp_path}: Read-only file system"):
        compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS)
