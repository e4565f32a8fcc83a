"""Compression to stores behind URLs: the same objects as in a folder, and never half a dataset."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from tables import regression_npz, tree_bytes

from zipml_ooc import (
    CompressOptions,
    DataError,
    UsageError,
    ZipmlError,
    compress,
    open_dataset,
    outputs,
    train,
    verify,
)
from zipml_ooc.partial import partial_of
from zipml_ooc.stores import retries

OPTIONS = CompressOptions(bits=3, chunk_rows=128)


@pytest.fixture
def url() -> str:
    return f"memory://{uuid4().hex}/d.zarr"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return regression_npz(tmp_path / "t.npz", rows=1500)


def objects(url: str) -> dict[str, bytes]:
    files, root = fsspec.core.url_to_fs(url)
    if not files.exists(root):
        return {}
    return {path[len(root) :].strip("/"): files.cat_file(path) for path in files.find(root)}


@pytest.mark.parametrize("more", [{}, {"shard_rows": 300}, {"zarr_format": 2}])
def test_what_is_behind_the_url_is_what_a_folder_would_hold(
    source: Path, tmp_path: Path, url: str, more: dict[str, Any]
) -> None:
    options = replace(OPTIONS, **more)
    local = compress(source, tmp_path / "d", options)
    dataset = compress(source, url, options)
    assert str(dataset.path) == url
    assert objects(url) == tree_bytes(tmp_path / "d")
    assert verify(url).whole
    np.testing.assert_array_equal(train(url).model.coef, train(local).model.coef)


def test_metadata_come_last_and_a_failure_is_resumed(
    source: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(source, tmp_path / "d", OPTIONS)
    sent: list[str] = []
    left = [7]
    put, upload = outputs.WritableStore.put, outputs.WritableStore.upload

    def count(key: str) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError("the bucket is gone")
        sent.append(key)

    def counted_put(self: Any, key: str, data: bytes) -> None:
        count(key)
        put(self, key, data)

    def counted_upload(self: Any, key: str, path: Path) -> None:
        count(key)
        upload(self, key, path)

    monkeypatch.setattr(outputs.WritableStore, "put", counted_put)
    monkeypatch.setattr(outputs.WritableStore, "upload", counted_upload)
    with pytest.raises(DataError, match=r"writing .* failed: the bucket is gone; .*--resume goes"):
        compress(source, url, OPTIONS)
    with pytest.raises((DataError, UsageError)):
        open_dataset(url)
    with pytest.raises(UsageError, match=f"left {url} unfinished: go on with --resume"):
        compress(source, url, OPTIONS)
    with pytest.raises(UsageError, match="begun with bits 3, not 4"):
        compress(source, url, replace(OPTIONS, bits=4), resume=True)
    before = set(objects(url))
    left[0], sent[:] = 1000, []
    compress(source, url, OPTIONS, resume=True)
    assert objects(url) == tree_bytes(tmp_path / "d")
    assert not before & {key for key in sent if key.startswith("X/c")}  # nothing is sent again
    assert sent[-1] == "zarr.json" and all("/c/" in key or "json" in key for key in sent)


def test_an_interrupted_run_is_resumed(source: Path, tmp_path: Path, url: str) -> None:
    compress(source, tmp_path / "d", OPTIONS)

    def stop(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, url, OPTIONS, progress=stop)
    compress(source, url, OPTIONS, resume=True)
    assert objects(url) == tree_bytes(tmp_path / "d")


def test_what_is_there_is_replaced_only_by_force(source: Path, tmp_path: Path, url: str) -> None:
    compress(source, url, replace(OPTIONS, bits=8, chunk_rows=64))
    before = objects(url)
    with pytest.raises(UsageError, match=f"{url} exists: choose another destination or use --for"):
        compress(source, url, OPTIONS)
    with pytest.raises(UsageError, match="both source and destination"):
        compress(url, url, OPTIONS, force=True)
    np.savez(tmp_path / "bad.npz", X=np.full((10, 2), np.inf))
    with pytest.raises(DataError, match="infinite"):  # in the first pass: nothing was removed
        compress(tmp_path / "bad.npz", url, OPTIONS, force=True)
    assert objects(url) == before
    compress(source, url, OPTIONS, force=True)
    compress(source, tmp_path / "d", OPTIONS)
    assert objects(url) == tree_bytes(tmp_path / "d")


def test_a_run_that_died_while_it_cleaned_up_is_whole(
    source: Path, tmp_path: Path, url: str
) -> None:
    compress(source, url, OPTIONS)
    before = objects(url)
    store = outputs.UrlOutput(url).store()
    store.put(".zipml-journal.json", b"{}")
    compress(source, url, OPTIONS, resume=True)
    assert objects(url) == before


def test_data_that_cannot_be_stored_leave_nothing(tmp_path: Path, url: str) -> None:
    np.savez(tmp_path / "bad.npz", X=np.full((10, 2), np.nan))
    with pytest.raises(DataError, match="NaN"):
        compress(tmp_path / "bad.npz", url, OPTIONS)
    assert objects(url) == {}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("key", ["notes.txt", "X2/c/0", "sub/zarr.json"])
def test_nothing_is_removed_that_is_no_dataset(
    key: str, force: bool, source: Path, url: str
) -> None:
    store = outputs.UrlOutput(url).store()
    store.put(key, b"mine")
    with pytest.raises(UsageError, match=rf"holds other objects \({key}\): choose a place"):
        compress(source, url, OPTIONS, force=force)
    assert objects(url) == {key: b"mine"}
    whole = f"{url}-whole"
    compress(source, whole, OPTIONS)
    outputs.UrlOutput(whole).store().put(key, b"mine")
    before = objects(whole)
    with pytest.raises(UsageError, match="holds other objects"):
        compress(source, whole, OPTIONS, force=force)
    assert objects(whole) == before


def test_a_source_below_the_destination_is_refused(source: Path, url: str) -> None:
    files, root = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{root}/X/t.npz", source.read_bytes())
    for force in (False, True):
        with pytest.raises(UsageError, match=r"both source and destination|exists"):
            compress(f"{url}/X/t.npz", url, OPTIONS, force=force)
    assert set(objects(url)) == {"X/t.npz"}


def test_a_store_that_fails_in_passing_does_not_seem_empty(
    source: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress(source, url, OPTIONS)
    before, files = objects(url), fsspec.filesystem("memory")
    info, left = type(files).info, [3]

    def failing(self: Any, path: str, **kwargs: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise TimeoutError("no answer")
        return info(self, path, **kwargs)

    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(first_seconds=0.001))
    monkeypatch.setattr(type(files), "info", failing)
    assert outputs.UrlOutput(url).store().has("zarr.json")
    left[0] = 3
    with pytest.raises(UsageError, match="exists: choose another destination or use --force"):
        compress(source, url, OPTIONS)
    assert objects(url) == before


@pytest.mark.parametrize("answers", [0, 3, 10, 20, 30])
def test_a_store_that_no_longer_answers_is_one_error(
    answers: int, source: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even what becomes of the dataset can be asked for then."""
    left, memory = [answers], type(fsspec.filesystem("memory"))

    def failing(call: Any) -> Any:
        def answer(self: Any, *arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise ConnectionResetError("gone")
            return call(self, *arguments, **named)

        return answer

    options = replace(OPTIONS, threads=1)
    with monkeypatch.context() as patch:
        patch.setattr(retries, "PATIENCE", retries.Patience(first_seconds=0.001))
        for name in ("info", "find", "cat_file", "pipe_file", "put_file", "rm", "rm_file"):
            patch.setattr(memory, name, failing(getattr(memory, name)))
        with pytest.raises(ZipmlError, match="gone") as caught:
            compress(source, url, options, resume=True)
        assert answers < 10 or "--resume goes on with it" in str(caught.value)
        assert partial_of(url) is None  # nor where it lies
    compress(source, url, options, resume=True)
    compress(source, tmp_path / "d", options)
    assert objects(url) == tree_bytes(tmp_path / "d")


def test_a_package_that_is_missing_is_named(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UsageError, match=r"gs://bucket/d: this kind of URL needs .*gcsfs"):
        compress(source, "gs://bucket/d", OPTIONS)


def test_urls_that_cannot_be_written_are_refused(source: Path, tmp_path: Path) -> None:
    for url, message in (
        ("nowhere://x/d.zarr", "nowhere"),
        ("zip://d.zip", "into a folder"),
        ("obstore+s3://bucket/d.zarr", "by fsspec"),
    ):
        with pytest.raises(UsageError, match=message):
            compress(source, url, OPTIONS)
    dataset = compress(source, f"file://{tmp_path}/d.zarr", OPTIONS)
    assert dataset.path == tmp_path / "d.zarr"
