"""Space on the disk: asked for before anything is written, and gone in the middle."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path
from typing import Any

import pytest
from compress_cases import OPTIONS, TARGETS, table
from tables import compressed, regression_npz, tree_bytes

from zipml_ooc import CompressOptions, DataError, compress, durable, partial, shard_file


def full_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """A disk that takes so many more files."""
    original, count = durable.write_all, [writes]

    def write(descriptor: int, data: Any) -> None:
        count[0] -= 1
        if count[0] < 0:
            original(descriptor, memoryview(data)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor, data)

    for module in (durable, shard_file):
        monkeypatch.setattr(module, "write_all", write)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("writes", [0, 1, 2, 20, 49])
def test_a_full_disk_is_an_error_that_can_be_resumed(
    tmp_path: Path, force: bool, writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(tmp_path / "t.csv")
    compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    before: dict[str, bytes] = {}
    if force:
        before = tree_bytes(compressed(source, tmp_path / "d", bits=8).path)
    with monkeypatch.context() as patch:
        full_after(patch, writes)
        outcome = "--resume goes on" if writes else "nothing was left behind"
        with pytest.raises(DataError, match=f"No space left on device.*{outcome}"):
            compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, force=force)
    assert not force or tree_bytes(tmp_path / "d") == before
    assert (tmp_path / ".d.partial").exists() == bool(writes)
    compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, force=force, resume=True)
    assert tree_bytes(tmp_path / "d") == tree_bytes(tmp_path / "whole")


def test_space_is_asked_for_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(tmp_path / "t.csv")
    whole = compress(source, tmp_path / "whole", OPTIONS, source_options=TARGETS)
    taken = sum(len(data) for data in tree_bytes(Path(whole.path)).values())

    def little(_: Any) -> Any:
        return type("Usage", (), {"free": taken})()

    monkeypatch.setattr(partial.shutil, "disk_usage", little)
    for force in (False, True):
        with pytest.raises(DataError, match=rf"up to [\d,]+ bytes and its disk has {taken:,} left"):
            compress(source, tmp_path / "d", OPTIONS, source_options=TARGETS, force=force)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "whole"]


def test_the_estimate_of_space_is_an_upper_bound_and_close(tmp_path: Path) -> None:
    from zipml_ooc.dataset_layout import DatasetLayout

    source = regression_npz(tmp_path / "t.npz", rows=20_000, columns=40)
    for number, options in enumerate(
        ({}, {"zarr_format": 2}, {"scale": "row"}, {"layout": "weaved", "bits": 8})
    ):
        dataset = compressed(source, tmp_path / str(number), chunk_rows=3200, **options)
        taken = sum(len(data) for data in tree_bytes(Path(dataset.path)).values())
        layout = DatasetLayout(dataset.spec, dataset.zarr_format)
        assert sum(map(layout.chunk_bytes, range(dataset.spec.chunks))) == dataset.stored_bytes
        assert taken <= layout.most_bytes < 1.3 * taken + 200_000


def test_a_file_system_that_fills_up_is_refused_at_once_or_resumed(tmp_path: Path) -> None:
    """A real one, of 2 MB, where this process may mount it."""
    source = regression_npz(tmp_path / "t.npz", rows=50_000, columns=60)
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(small)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("this process may not mount a file system")
    try:
        options = CompressOptions(chunk_rows=3200)
        with pytest.raises(DataError, match=r"will take up to .* and its disk has .* left"):
            compress(source, small / "d", CompressOptions(bits=8, chunk_rows=3200))
        assert list(small.iterdir()) == []

        def fill(stage: str, rows: int, total: int | None) -> None:
            if stage == "compress" and rows < 20_000:
                (small / "other").write_bytes(bytes(1_500_000))

        options = CompressOptions(bits=1, chunk_rows=3200)
        with pytest.raises(DataError, match="No space left on device; what is written is kept"):
            compress(source, small / "d", options, progress=fill)
        with pytest.raises(DataError, match="will take up to"):
            compress(source, small / "d", options, resume=True)
        (small / "other").unlink()
        compress(source, small / "d", options, resume=True)
        compress(source, tmp_path / "whole", options)
        assert tree_bytes(small / "d") == tree_bytes(tmp_path / "whole")
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
