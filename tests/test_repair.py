"""Damage of every kind is found and named, and repair gives back the bytes that there were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
import numpy as np
import pytest
import zarr
from tables import compressed, regression_npz, sharded, tree_bytes, write_csv
from zipml_codecs import EncodedChunk

from zipml_ooc import DataError, SourceOptions, UsageError, open_dataset, repair, verify
from zipml_ooc.chunk_places import ChunkPlaces

ROWS, CHUNK_ROWS = 1000, 128


def table(path: Path, seed: int = 0, rows: int = ROWS, labels: bool = False) -> Path:
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {f"c{j}": rng.integers(1000, 9999, rows) for j in range(4)}
    columns["y"] = rng.choice(["p", "q"], rows) if labels else rng.integers(1000, 9999, rows)
    columns["w"] = rng.integers(100, 999, rows)
    return write_csv(path, columns)


KINDS = {
    "files": {},
    "format 2": {"zarr_format": 2},
    "shards": {"shard_rows": 400},
    "weaved shards": {"shard_rows": 400, "layout": "weaved", "bits": 8},
    "labels, by row": {"scale": "row", "shard_rows": 400},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("made")

    def make(kind: str) -> tuple[Path, Path]:
        """A source, and its dataset."""
        source, dataset = folder / f"{kind}.csv", folder / f"{kind}.zarr"
        if not dataset.exists():
            table(source, labels="labels" in kind)
            compressed(source, dataset, ("y",), chunk_rows=CHUNK_ROWS, weight="w", **KINDS[kind])
        return source, dataset

    return make


def file_of(dataset: Path, array: str, chunk: int) -> tuple[Path, str, int, int]:
    """The object with a chunk, its key, and the first and last byte of the chunk in it."""
    opened = open_dataset(dataset)
    place = ChunkPlaces(opened.store, array, opened._group[array].metadata, "d").find(chunk)
    length = opened.store.size(place.key) if place.length is None else place.length
    return dataset / place.key, place.key, place.start, place.start + length


def positions(dataset: Path) -> dict[str, int]:
    """Bytes of a chunk of X of every kind."""
    path, _, start, stop = file_of(dataset, "X", 2)
    chunk = EncodedChunk.parse(path.read_bytes()[start : stop - 4])
    header = chunk.header
    found = {
        "magic": 0,
        "header": 30,
        "tables": header.tables_offset + 3,
        "variance": header.variance_offset + 1,
        "first plane": header.codes_offset,
        "last plane": header.codes_offset + header.codes_size - 1,
        "checksum": stop - start - 2,
    }
    if header.table_bits:
        found["level table"] = header.places_offset + 5
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_dataset_is_whole(made: Any, kind: str) -> None:
    source, dataset = made(kind)
    before = tree_bytes(dataset)
    result = verify(dataset, threads=2)
    assert result.whole and result.unchecked == ()
    assert result.chunks == {"X": 8, "y": 8, "sample_weight": 8}
    assert result.objects == 3 * (2 if "shard_rows" in KINDS[kind] else 8)
    assert repair(dataset, source).repaired == ()
    assert tree_bytes(dataset) == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_byte_anywhere_is_named_and_repaired(
    made: Any, kind: str, tmp_path: Path
) -> None:
    source, original = made(kind)
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    before = tree_bytes(dataset)
    path, key, start, stop = file_of(dataset, "X", 2)
    whole = path.read_bytes()
    for name, offset in positions(dataset).items():
        damaged = bytearray(whole)
        damaged[start + offset] ^= 0x10
        path.write_bytes(damaged)
        (found,) = verify(dataset).damages
        assert (found.key, found.array, found.chunk) == (key, "X", 2), name
        assert "checksum" in found.reason, name
        result = repair(dataset, source)
        assert result.repaired == (found,) and result.chunks == 1
        assert tree_bytes(dataset) == before, name
    for array in ("y", "sample_weight"):
        path, key, start, stop = file_of(dataset, array, 3)
        whole = path.read_bytes()
        for offset in (1, (stop - start) // 2, stop - start - 1):
            path.write_bytes(whole[: start + offset] + b"\x55\xaa" + whole[start + offset + 2 :])
            (found,) = [d for d in verify(dataset).damages if d.array == array][:1]
            assert found.key == key
            repair(dataset, source)
            assert tree_bytes(dataset) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def extend(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(9))


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, extend, empty, Path.unlink])
@pytest.mark.parametrize("kind", KINDS)
def test_objects_that_are_not_whole_are_named_and_repaired(
    made: Any, kind: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    source, original = made(kind)
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    before = tree_bytes(dataset)
    keys = []
    for array, chunk in (("X", 7), ("y", 0), ("sample_weight", 7)):  # X: the short one
        path, key, *_ = file_of(dataset, array, chunk)
        harm(path)
        keys.append(key)
    found = verify(dataset)
    assert sorted({d.key for d in found.damages}) == sorted(keys)
    repair(dataset, source)
    assert tree_bytes(dataset) == before


@pytest.mark.parametrize("kind", ["shards", "weaved shards"])
def test_a_damaged_index_costs_no_chunk_of_x(made: Any, kind: str, tmp_path: Path) -> None:
    source, original = made(kind)
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    before = tree_bytes(dataset)
    for offset in (-1, -4, -5, -30, -4 * 16 - 4):
        path, key, *_ = file_of(dataset, "X", 0)
        damaged = bytearray(path.read_bytes())
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        (found,) = verify(dataset).damages
        assert (found.key, found.chunk) == (key, None) and "index" in found.reason
        with pytest.raises(DataError, match="index"):
            open_dataset(dataset).read_chunk(0)
        assert repair(dataset).chunks == 0  # without a source
        assert tree_bytes(dataset) == before
    path, key, *_ = file_of(dataset, "y", 0)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UsageError, match=r"chunks of .* are lost.*--source"):
        repair(dataset)
    assert repair(dataset, source).chunks == 4
    assert tree_bytes(dataset) == before


@pytest.mark.parametrize("kind", ["files", "format 2"])
def test_a_chunk_of_another_place_or_dataset_is_named(made: Any, kind: str, tmp_path: Path) -> None:
    source, original = made(kind)
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    before = tree_bytes(dataset)
    options = {"chunk_rows": CHUNK_ROWS, "weight": "w", "seed": 1, **KINDS[kind]}
    other = compressed(source, tmp_path / "other", ("y",), **options).path
    path, key, *_ = file_of(dataset, "X", 3)
    for foreign in (file_of(dataset, "X", 4)[0], file_of(Path(other), "X", 3)[0]):
        path.write_bytes(foreign.read_bytes())
        (found,) = verify(dataset).damages
        assert found.key == key and "belongs to another dataset" in found.reason
        repair(dataset, source)
        assert tree_bytes(dataset) == before


@pytest.mark.parametrize("kind", ["files", "format 2", "shards"])
def test_metadata_of_arrays_are_checked_and_rewritten(made: Any, kind: str, tmp_path: Path) -> None:
    source, original = made(kind)
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    before = tree_bytes(dataset)
    name = ".zarray" if kind == "format 2" else "zarr.json"
    for array in ("X", "y"):
        for content in (b"", before[f"{array}/{name}"].replace(b"1000", b"1001"), None):
            path = dataset / array / name
            path.unlink() if content is None else path.write_bytes(content)
            (found,) = verify(dataset).damages
            assert found.key == f"{array}/{name}"
            repair(dataset)
            assert tree_bytes(dataset) == before
    root = dataset / ("zarr.json" if kind != "format 2" else ".zattrs")
    root.write_bytes(b"{")
    if kind == "format 2":
        (dataset / ".zmetadata").unlink()
    with pytest.raises(DataError, match="metadata"):
        verify(dataset)
    with pytest.raises(DataError, match="metadata"):
        repair(dataset, source)


def test_attributes_that_are_not_those_of_the_chunks_are_noticed(made: Any, tmp_path: Path) -> None:
    source, original = made("files")
    dataset = tmp_path / "d"
    shutil.copytree(original, dataset)
    root = json.loads((dataset / "zarr.json").read_text())
    root["attributes"]["zipml"]["variance"][2] *= 1.001
    (dataset / "zarr.json").write_text(json.dumps(root))
    (found,) = verify(dataset).damages
    assert found.key == "zarr.json" and "rounding variances" in found.reason
    with pytest.raises(DataError, match=r"metadata of .* are damaged .*compress it again"):
        repair(dataset, source)


def test_a_wrong_source_is_refused_and_nothing_is_changed(made: Any, tmp_path: Path) -> None:
    source, original = made("files")
    text = source.read_text()

    def refused(
        message: str,
        other: list[Path],
        lost: tuple[tuple[str, int], ...] = (("X", 3),),
        kind: type[Exception] = UsageError,
        **options: Any,
    ) -> None:
        dataset = tmp_path / uuid4().hex
        shutil.copytree(original, dataset)
        for array, chunk in lost:
            file_of(dataset, array, chunk)[0].unlink()
        before = tree_bytes(dataset)
        with pytest.raises(kind, match=message):
            repair(dataset, other, source_options=SourceOptions(**options))
        assert tree_bytes(dataset) == before

    def changed(name: str, row: int, column: int, value: str | None = None) -> Path:
        lines = text.splitlines()
        fields = lines[row + 1].split(",")
        digits = f"{9999 - int(fields[column])}".zfill(len(fields[column]))[-len(fields[column]) :]
        fields[column] = value or digits
        lines[row + 1] = ",".join(fields)
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    refused("no such file", [tmp_path / "nothing.csv"])
    refused("has .* bytes, what .* was made from had", [table(tmp_path / "few.csv", rows=900)])
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(text.replace("c0", "k0", 1))
    refused("has not the columns", [renamed])
    refused("made from 1 files, not 2", [source, source])
    # As many bytes, other values: in a lost chunk, in one beside it, and further away.
    seeds = table(tmp_path / "seed.csv", seed=1)
    assert seeds.stat().st_size == source.stat().st_size
    refused("is not what .* was made from: .*nothing was changed", [seeds])
    refused("other rounding variances", [changed("a.csv", 3 * 128 + 5, 1)])
    refused("does not give chunk 2, which is whole", [changed("b.csv", 2 * 128 + 5, 1)])
    refused("is not what .* was made from", [changed("big.csv", 3 * 128 + 5, 1, "9999")])
    # Targets and weights: what is beside them tells.
    refused("other statistics", [changed("c.csv", 3 * 128 + 5, 4)], (("y", 3),))
    refused("does not give chunk 3", [changed("d.csv", 3 * 128, 0)], (("sample_weight", 3),))
    refused("is negative|0 or more", [changed("e.csv", 400, 5, "-99")], kind=DataError)
    # Everything is lost: the variances remain.
    everything = tuple(("X", chunk) for chunk in range(8))
    refused("other rounding variances", [changed("f.csv", 77, 2)], everything)
    assert not list(tmp_path.glob(".*"))


def test_everything_can_be_lost_but_the_metadata(made: Any, tmp_path: Path) -> None:
    for kind in KINDS:
        source, original = made(kind)
        dataset = tmp_path / kind
        shutil.copytree(original, dataset)
        before = tree_bytes(dataset)
        for key in before:
            if "json" not in key and not key.rpartition("/")[2].startswith("."):
                (dataset / key).unlink()
        assert len(verify(dataset).damages) == verify(dataset).objects
        assert repair(dataset, source).chunks == 24
        assert tree_bytes(dataset) == before


def test_shards_that_others_wrote_are_verified_and_repaired(tmp_path: Path) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=900)
    plain = compressed(source, tmp_path / "plain", chunk_rows=128)
    for index in ("start", "end"):
        dataset = sharded(plain, tmp_path / index, 3, index=index)
        assert verify(dataset).whole
        path = dataset / "X/c/1/0"
        damaged = bytearray(path.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        path.write_bytes(damaged)
        (found,) = verify(dataset).damages
        assert found.inner is not None and found.place == f"X/c/1/0 (inner chunk {found.inner})"
        if index == "end":
            assert repair(dataset, source).chunks == 1
            assert verify(dataset).whole
            continue
        with pytest.raises(UsageError, match="index"):
            repair(dataset, source)
        assert path.read_bytes() == damaged


def test_datasets_behind_urls_are_verified_and_not_repaired(made: Any) -> None:
    source, dataset = made("shards")
    files, root = fsspec.core.url_to_fs(f"memory://{uuid4().hex}")
    files.put(str(dataset), root, recursive=True)
    assert verify(f"memory:/{root}").whole
    with files.open(f"{root}/X/c/1/0", "r+b") as file:
        file.seek(99)
        file.write(b"\x01\x02\x03")
    (found,) = verify(f"memory:/{root}").damages
    assert (found.key, found.chunk, found.inner) == ("X/c/1/0", 4, 0)
    with pytest.raises(UsageError, match="no folder of this machine"):
        repair(f"memory:/{root}", source)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_targets_without_checksums_are_compared_with_their_statistics(
    tmp_path: Path,
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=900)
    dataset = Path(compressed(source, tmp_path / "d", chunk_rows=128).path)
    group = zarr.open_group(dataset, mode="r+")
    values = group["y"][:]
    shutil.rmtree(dataset / "y")
    group = zarr.open_group(dataset, mode="r+", use_consolidated=False)
    group.create_array("y", data=values, chunks=(128,), compressors=None, filters=None)
    zarr.consolidate_metadata(dataset)
    result = verify(dataset)
    assert result.whole and result.unchecked == ("y",)
    group["y"][500] = 0.0
    (found,) = verify(dataset).damages
    assert "statistics of targets" in found.reason
