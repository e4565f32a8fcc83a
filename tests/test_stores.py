"""Bytes from folders and URLs: the same ones, counted, with clear errors."""

from __future__ import annotations

import asyncio
import sys
import zipfile
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
from tables import compressed, regression_npz, sharded
from zarr.core.buffer import default_buffer_prototype
from zipml_codecs import ChunkError

from zipml_ooc import DataError, TrainOptions, UsageError, evaluate, open_dataset, train
from zipml_ooc.stores import open_store
from zipml_ooc.stores.zarr_store import ReadOnlyStore
from zipml_ooc.value_codec import add_checksum


@pytest.fixture
def memory_url() -> str:
    return f"memory://{uuid4().hex}"


def upload(folder: Path, url: str) -> str:
    files, root = fsspec.core.url_to_fs(url)
    files.put(str(folder), root, recursive=True)
    return url


@pytest.mark.parametrize("kind", ["folder", "file url", "memory"])
def test_ranges_are_fetched_and_counted(tmp_path: Path, memory_url: str, kind: str) -> None:
    folder = tmp_path / "store"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b").write_bytes(bytes(range(200)))
    place = {"folder": str(folder), "file url": f"file://{folder}", "memory": memory_url}[kind]
    if kind == "memory":
        upload(folder, memory_url)
    store = open_store(place)
    assert store.exists() and store.size("a/b") == 200
    assert store.remote == (kind == "memory")
    assert bytes(store.read("a/b")) == bytes(range(200))
    assert (store.traffic.fetched_bytes, store.traffic.requests) == (200, 1)
    assert bytes(store.read("a/b", [(3, 2), (150, 50)])) == bytes([3, 4, *range(150, 200)])
    assert (store.traffic.fetched_bytes, store.traffic.requests) == (252, 3)
    with pytest.raises(FileNotFoundError):
        store.read("a/c")
    with pytest.raises(OSError, match="a/b ends before byte 201"):
        store.read("a/b", [(0, 1), (190, 11)])
    assert not open_store(f"{place}-not").exists()


def test_a_dataset_behind_a_url_is_the_dataset_in_its_folder(
    tmp_path: Path, memory_url: str
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=600)
    local = compressed(source, tmp_path / "d", chunk_rows=128)
    remote = open_dataset(upload(tmp_path / "d", memory_url))
    assert str(remote.path) == memory_url
    assert remote.stored_bytes == local.stored_bytes
    options = TrainOptions(epochs=2)
    here, there = train(local, options), train(remote, options)
    np.testing.assert_array_equal(here.model.coef, there.model.coef)
    # Each chunk was fetched once, and kept.
    assert remote.store.traffic.fetched_bytes == remote.stored_bytes
    assert remote.store.traffic.requests == remote.spec.chunks == 5
    assert evaluate(there.model, remote) == evaluate(here.model, local)


def test_what_a_url_lacks_is_said_in_a_line(
    tmp_path: Path, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=f"there is no dataset at {memory_url}"):
        open_dataset(memory_url)
    with pytest.raises(UsageError, match=r"nowhere://x: .*nowhere"):
        open_dataset("nowhere://x")
    source = regression_npz(tmp_path / "t.npz", rows=200)
    compressed(source, tmp_path / "d")
    dataset = open_dataset(upload(tmp_path / "d", memory_url))
    files, root = fsspec.core.url_to_fs(memory_url)
    files.rm(f"{root}/X/c/0/0")
    with pytest.raises(DataError, match=f"chunk X/c/0/0 of {memory_url} is missing"):
        dataset.read_chunk(0)

    def without_s3fs(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without_s3fs)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(
        UsageError,
        match=r's3fs: pip install "zipml-ooc\[s3\]", or obstore: .*"zipml-ooc\[obstore\]"$',
    ):
        open_store("s3://bucket/never-seen")
    with pytest.raises(UsageError, match=r'x: this kind of URL needs obstore: pip install "zipml'):
        open_store("obstore+s3://bucket/x")


def test_obstore_says_which_urls_it_opens() -> None:
    pytest.importorskip("obstore", reason="obstore is not installed")
    with pytest.raises(UsageError, match=r"obstore\+memory://x: obstore opens s3, .* URLs"):
        open_store("obstore+memory://x")


def zipped(folder: Path, file: Path, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder))
    return file


@pytest.mark.parametrize("kind", ["folder", "zip", "packed zip", "memory"])
def test_what_is_expected_of_an_object_changes_nothing_about_it(
    tmp_path: Path, memory_url: str, kind: str
) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    body = bytes(range(200))
    good = add_checksum(body)
    contents = {
        "good": good,
        "flipped": good[:50] + b"x" + good[51:],
        "short": good[:-1],
        "tiny": b"abc",
        "several": b"12" + good + b"3",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    method = zipfile.ZIP_DEFLATED if kind == "packed zip" else zipfile.ZIP_STORED
    place = str(folder)
    if kind == "memory":
        place = upload(folder, memory_url)
    elif kind != "folder":
        place = str(zipped(folder, tmp_path / "store.zip", method))
    store = open_store(place)
    for _ in range(2):  # a Zip file knows after the first time where its members are
        for expected in (0, 3, 204, 205):
            before = store.traffic.fetched_bytes
            assert bytes(store.read_checked("good", None, expected)) == body
            assert bytes(store.read_checked("several", (2, 204), expected)) == body
            assert store.traffic.fetched_bytes == before + 2 * 204
            for name in ("flipped", "short", "tiny"):
                with pytest.raises(ChunkError, match=r"checksum.*truncated"):
                    store.read_checked(name, None, expected)
            with pytest.raises(OSError, match="several ends before byte 208: truncated"):
                store.read_checked("several", (4, 204), expected)
            with pytest.raises(FileNotFoundError):
                store.read_checked("none", None, expected)


@pytest.mark.parametrize("layout", ["packed", "weaved", "sharded"])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_dataset_in_a_zip_file_is_the_dataset_in_its_folder(
    tmp_path: Path, layout: str, method: int
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=900)
    options = {"layout": "weaved", "bits": 8} if layout == "weaved" else {}
    local = compressed(source, tmp_path / "d", chunk_rows=128, **options)
    folder = sharded(local, tmp_path / "s", 3) if layout == "sharded" else tmp_path / "d"
    file = zipped(folder, tmp_path / "d.zip", method)
    packed = open_dataset(file)
    assert packed.stored_bytes == open_dataset(folder).stored_bytes
    bits = 4 if layout == "weaved" else None
    before = packed.store.traffic.fetched_bytes
    for number in range(8):
        mine, theirs = packed.read_chunk(number, bits), local.read_chunk(number, bits)
        assert mine.codes.tobytes() == theirs.codes.tobytes()
    if layout == "weaved":
        assert packed.store.traffic.fetched_bytes - before == packed.bytes_at(4)
    for workers in (None, 1) if layout == "sharded" and method == zipfile.ZIP_STORED else (None,):
        here = train(local, TrainOptions(epochs=2, bits=bits))
        there = train(f"zip://{file}", TrainOptions(epochs=2, bits=bits), workers=workers)
        np.testing.assert_array_equal(here.model.coef, there.model.coef)
    assert evaluate(there.model, str(file)) == evaluate(there.model, local)


def test_what_a_zip_file_lacks_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no dataset at"):
        open_dataset(tmp_path / "none.zip")
    (tmp_path / "torn.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match=r"torn.zip is no whole Zip file"):
        open_dataset(tmp_path / "torn.zip")
    source = regression_npz(tmp_path / "t.npz", rows=200)
    compressed(source, tmp_path / "d")
    chunk = (tmp_path / "d" / "X" / "c" / "0" / "0").read_bytes()
    file = zipped(tmp_path / "d", tmp_path / "d.zip")
    whole = file.read_bytes()
    at = whole.index(chunk) + len(chunk) // 2
    file.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
    with pytest.raises(DataError, match=r"chunk X/c/0/0 of .*d\.zip cannot be used: its checksum"):
        open_dataset(file).read_chunk(0)
    (tmp_path / "d" / "X" / "c" / "0" / "0").unlink()
    other = zipped(tmp_path / "d", tmp_path / "e.zip")
    with pytest.raises(DataError, match=r"chunk X/c/0/0 of .*e\.zip is missing"):
        open_dataset(other).read_chunk(0)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("top", "more"),
    [
        ("table.zarr/", []),
        ("./", ["./"]),
        ("data/table.zarr/", ["data/", "data/table.zarr/", "data/notes.txt"]),
        ("table.zarr/", ["__MACOSX/", "__MACOSX/table.zarr/._zarr.json", ".DS_Store"]),
        ("../table.zarr/", []),
        ("/data/table.zarr/", []),
        ("", ["inner/zarr.json", "X/notes.txt"]),
    ],
)
def test_a_folder_may_be_zipped_by_its_name(
    tmp_path: Path, top: str, more: list[str], zarr_format: int
) -> None:
    folder = tmp_path / "table.zarr"
    source = regression_npz(tmp_path / "t.npz", rows=300)
    compressed(source, folder, zarr_format=zarr_format)
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        for name in more:
            archive.writestr(name, b"")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = f"{top}{path.relative_to(folder).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes())
    options = TrainOptions(epochs=2)
    model = train(tmp_path / "table.zip", options).model
    np.testing.assert_array_equal(model.coef, train(folder, options).model.coef)


@pytest.mark.parametrize("tops", [(), ("one.zarr/", "two.zarr/")])
def test_a_zip_file_of_no_dataset_or_of_two_is_refused(
    tmp_path: Path, tops: tuple[str, ...]
) -> None:
    compressed(regression_npz(tmp_path / "t.npz", rows=300), tmp_path / "d")
    with zipfile.ZipFile(tmp_path / "table.zip", "w") as archive:
        for top in tops:
            for path in (p for p in (tmp_path / "d").rglob("*") if p.is_file()):
                archive.write(path, f"{top}{path.relative_to(tmp_path / 'd')}")
    with pytest.raises(DataError, match=r"table\.zip is no Zarr group"):
        open_dataset(tmp_path / "table.zip")


def test_a_key_below_a_file_is_missing_to_zarr(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("1,2\n")
    store = ReadOnlyStore(open_store(str(tmp_path / "table.csv")))

    async def look() -> tuple[object, bool]:
        return await store.get("zarr.json", default_buffer_prototype()), await store.exists("a")

    assert asyncio.run(look()) == (None, False)
