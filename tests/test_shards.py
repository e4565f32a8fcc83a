"""Shards: a chunk is one range of bytes behind an index that is read once, and damage is named."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import zarr
from tables import compressed, regression_npz, sharded
from zipml_codecs import EncodedChunk

from zipml_ooc import DataError, Dataset, TrainOptions, evaluate, open_dataset, train
from zipml_ooc.chunk_places import ChunkPlaces
from zipml_ooc.stores import open_store


@pytest.fixture
def plain(tmp_path: Path) -> Dataset:
    source = regression_npz(tmp_path / "t.npz", rows=900)
    return compressed(source, tmp_path / "plain", chunk_rows=128)  # eight chunks, the last is short


def in_memory(folder: Path) -> Dataset:
    files, root = fsspec.core.url_to_fs(f"memory://{uuid4().hex}")
    files.put(str(folder), root, recursive=True)
    return open_dataset(f"memory:/{root}")


@pytest.mark.parametrize("index", ["start", "end"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_sharded_dataset_is_the_plain_one(
    tmp_path: Path, plain: Dataset, index: str, remote: bool
) -> None:
    folder = sharded(plain, tmp_path / "s", 3, index=index)
    values = zarr.open_group(plain.path, mode="r")["X"][:]
    np.testing.assert_array_equal(zarr.open_group(folder, mode="r")["X"][:], values)
    dataset = in_memory(folder) if remote else open_dataset(folder)
    assert plain.chunks_per_shard is None and dataset.chunks_per_shard == 3
    assert [dataset.chunk_key(i) for i in (0, 2, 3, 7)] == [
        "X/c/0/0", "X/c/0/0", "X/c/1/0", "X/c/2/0"
    ]  # fmt: skip
    for number in range(8):
        mine, theirs = dataset.read_chunk(number), plain.read_chunk(number)
        assert mine.header == theirs.header
        assert mine.codes.tobytes() == theirs.codes.tobytes()
    # Each index once, then a request for each chunk.
    assert dataset.store.traffic.requests == 3 + 8
    for number in range(8):
        dataset.read_chunk(number)
    assert dataset.store.traffic.requests == 3 + 8 + 8
    assert dataset.stored_bytes == plain.stored_bytes + 3 * (3 * 16 + 4)
    options = TrainOptions(epochs=2)
    here, there = train(plain, options).model, train(dataset, options).model
    np.testing.assert_array_equal(here.coef, there.coef)
    assert evaluate(there, dataset) == evaluate(here, plain)


@pytest.mark.parametrize("bits", [2, 8])
def test_planes_are_ranges_of_their_shard(tmp_path: Path, bits: int) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=900)
    plain = compressed(source, tmp_path / "plain", chunk_rows=256, bits=8, layout="weaved")
    dataset = in_memory(sharded(plain, tmp_path / "s", 2))
    chunks = [dataset.read_chunk(i, bits) for i in range(4)]
    for number, chunk in enumerate(chunks):
        assert chunk.codes.tobytes() == plain.read_chunk(number, bits).codes.tobytes()
    traffic, indexes = dataset.store.traffic, 2 * (2 * 16 + 4)
    assert traffic.fetched_bytes == dataset.bytes_at(bits) + indexes
    assert traffic.requests == 2 + 4 * (1 if bits == 8 else 2)


def test_shards_that_zarr_writes_are_found_in(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "g")
    array = group.create_array(
        "X", shape=(1000, 10), chunks=(128, 10), shards=(512, 10), dtype="f4", fill_value=np.nan,
        serializer={"name": "zipml.quantize", "configuration": {"bits": 4}},
        compressors=[{"name": "crc32c"}],
    )  # fmt: skip
    array[:] = np.random.default_rng(0).standard_normal((1000, 10), np.float32)
    store = open_store(tmp_path / "g")
    places = ChunkPlaces(store, "X", array.metadata, "g")
    assert places.shape == (128, 10)
    for number in range(8):
        place = places.find(number)
        data = store.read(place.key, place.ranges(None))
        np.testing.assert_array_equal(
            EncodedChunk.parse(data[:-4]).decode()[: 1000 - 128 * number],
            array[128 * number : 128 * (number + 1)],
        )


def test_what_a_shard_lacks_is_named_by_shard_and_chunk(tmp_path: Path, plain: Dataset) -> None:
    folder = sharded(plain, tmp_path / "s", 3, left_out=(4,))
    dataset = open_dataset(folder)
    dataset.read_chunk(3)
    with pytest.raises(DataError, match=r"X/c/1/0 \(inner chunk 1\) of .*s is missing"):
        dataset.read_chunk(4)
    (folder / "X" / "c" / "0" / "0").unlink()
    with pytest.raises(DataError, match=r"X/c/0/0 \(inner chunk 2\) of .*s is missing"):
        dataset.read_chunk(2)


@pytest.mark.parametrize("index", ["start", "end"])
def test_a_flip_anywhere_in_a_shard_is_never_silent(
    tmp_path: Path, plain: Dataset, index: str
) -> None:
    folder = sharded(plain, tmp_path / "s", 3, index=index)
    path = folder / "X" / "c" / "1" / "0"
    whole = path.read_bytes()
    right = [open_dataset(folder).read_chunk(i).codes.tobytes() for i in (3, 4, 5)]
    size = 3 * 16 + 4
    places = range(size) if index == "start" else range(len(whole) - size, len(whole))
    for at in places:  # every byte of the index: all three chunks are refused
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        for number in (3, 4, 5):
            with pytest.raises(
                DataError, match=r"X/c/1/0 \(inner chunk \d\) of .*the index of shard X/c/1/0"
            ):
                open_dataset(folder).read_chunk(number)
    body = range(size, len(whole)) if index == "start" else range(len(whole) - size)
    for at in body[::97]:  # anywhere else: just the chunk that has the byte
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        dataset, refused = open_dataset(folder), 0
        for number, codes in zip((3, 4, 5), right, strict=True):
            try:
                assert dataset.read_chunk(number).codes.tobytes() == codes
            except DataError as error:
                refused += 1
                assert f"(inner chunk {number - 3})" in str(error)
        assert refused == 1
    for cut in (0, 20, size, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused = 0
        for number, codes in zip((3, 4, 5), right, strict=True):
            try:
                assert open_dataset(folder).read_chunk(number).codes.tobytes() == codes
            except DataError as error:
                refused += 1
                assert f"(inner chunk {number - 3})" in str(error)
        assert refused == 3 if index == "end" or cut < size else refused >= 1


def test_an_index_that_leads_astray_is_refused(tmp_path: Path, plain: Dataset) -> None:
    """Checksums right, places wrong: another chunk, beyond the end, or more than there is."""
    import google_crc32c

    folder = sharded(plain, tmp_path / "s", 3)
    path = folder / "X" / "c" / "0" / "0"
    whole = path.read_bytes()
    table = np.frombuffer(whole[-52:-4], "<u8").reshape(3, 2).copy()
    for entry in (table[1], (0, 10), (len(whole), 5), (2**63, 2**62), (0, 2**40), (0, 0)):
        changed = table.copy()
        changed[0] = entry
        head = changed.tobytes()
        path.write_bytes(whole[:-52] + head + google_crc32c.value(head).to_bytes(4, "little"))
        dataset = open_dataset(folder)
        with pytest.raises(DataError, match=r"X/c/0/0 \(inner chunk 0\)"):
            dataset.read_chunk(0)
        dataset.read_chunk(1)


def test_shards_of_a_kind_that_is_not_read_are_refused_when_opened(
    tmp_path: Path, plain: Dataset
) -> None:
    folder = sharded(plain, tmp_path / "s", 3)
    root = folder / "zarr.json"
    whole = root.read_text()
    for name, value in (("endian", "big"), ("chunk_shape", [128, 5]), ("chunk_shape", [192, 10])):
        metadata = json.loads(whole)
        inside = metadata["consolidated_metadata"]["metadata"]["X"]["codecs"][0]["configuration"]
        place = inside["index_codecs"][0]["configuration"] if name == "endian" else inside
        assert place[name] != value
        place[name] = value
        root.write_text(json.dumps(metadata))
        with pytest.raises(DataError, match=r"shards of a kind|lacks its array X"):
            open_dataset(folder)
    root.write_text(whole)
    open_dataset(folder)
