"""Plain zarr, xarray and dask read and write the codec in both formats, by entry point alone."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap

import numcodecs
import numpy as np
import pytest
import zarr
from zipml_codecs import ChunkError, EncodedChunk, Quantizer
from zipml_codecs.zarr_codec import QuantizeCodec

CONFIGURATION = {"bits": 8, "samples": 1, "scale": "column", "seed": 3, "nan": "error"}
STEP = 2 / 255 * 1.01 + 1e-3


def create(store, shape, chunks, *, zarr_format=3, dtype="f4", configuration=None, **options):
    configuration = {**CONFIGURATION, **(configuration or {})}
    if zarr_format == 3:
        codec = {
            "serializer": {"name": "zipml.quantize", "configuration": configuration},
            "compressors": [{"name": "crc32c"}],
        }
    else:
        codec = {
            "filters": [numcodecs.get_codec({"id": "zipml.quantize", **configuration})],
            "compressors": None,
        }
    return zarr.create_array(
        store, shape=shape, chunks=chunks, dtype=dtype, zarr_format=zarr_format, **codec, **options
    )


def uniform(shape, dtype="f4", seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def test_the_codec_entry_survives_json_and_pickling():
    codec = QuantizeCodec(Quantizer(**CONFIGURATION))
    entry = json.loads(json.dumps(codec.to_dict()))
    assert entry == {"name": "zipml.quantize", "configuration": CONFIGURATION}
    assert QuantizeCodec.from_dict(entry) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert QuantizeCodec.from_dict({"name": "zipml.quantize"}) == QuantizeCodec()
    with pytest.raises(ValueError, match=r"expected the codec 'zipml\.quantize', got 'bytes'"):
        QuantizeCodec.from_dict({"name": "bytes"})


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((100,), (32,)), ((100, 7), (64, 7)), ((30, 5, 6), (16, 3, 6)), ((9, 4, 5, 3), (4, 4, 2, 3))],
)
def test_arrays_of_one_to_four_axes_with_edge_chunks(zarr_format, shape, chunks, dtype):
    array = create({}, shape, chunks, zarr_format=zarr_format, dtype=dtype, fill_value=0)
    values = uniform(shape, dtype)
    array[:] = values
    read = array[:]
    assert read.dtype == values.dtype
    assert abs(read.astype("f8") - values).max() <= STEP
    assert np.array_equal(zarr.open_array(array.store, mode="r")[:], read)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_memory_orders(zarr_format, order):
    options = {"order": order} if zarr_format == 2 else {"config": {"order": order}}
    array = create({}, (50, 8), (20, 8), zarr_format=zarr_format, **options)
    values = uniform((50, 8))
    array[:] = np.asarray(values, order=order)
    assert abs(array[:] - values).max() <= STEP
    assert abs(array[3:44:2, 5] - values[3:44:2, 5]).max() <= STEP


def test_a_big_endian_array_of_format_2():
    array = create({}, (50, 3), (20, 3), zarr_format=2, dtype=">f4")
    values = uniform((50, 3), ">f4")
    array[:] = values
    assert array[:].dtype == np.dtype(">f4") and abs(array[:] - values).max() <= STEP


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [0.0, float("nan"), 5.0])
def test_fill_values_of_unwritten_chunks_and_edges(zarr_format, fill):
    array = create({}, (100, 3), (64, 3), zarr_format=zarr_format, fill_value=fill)
    values = uniform((100, 3)) + np.float32(3)
    array[64:] = values[64:]  # an edge chunk, padded with the fill value
    read = array[:]
    assert np.array_equal(read[:64], np.full((64, 3), fill, "f4"), equal_nan=True)
    assert abs(read[64:] - values[64:]).max() <= STEP
    array.resize((128, 3))
    if fill != 5.0 or values[64:].max() < 5:
        assert np.array_equal(array[100:], np.full((28, 3), fill, "f4"), equal_nan=True)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_partial_writes_do_not_move_what_they_do_not_touch(zarr_format):
    array = create({}, (64, 4), (64, 4), zarr_format=zarr_format)
    values = uniform((64, 4))
    values[0], values[1] = -1, 1  # the bounds, which the later writes do not widen
    array[:] = values
    before = array[:]
    array[20:30, 1:3] = 0.5
    after = array[:]
    assert abs(after[20:30, 1:3] - 0.5).max() <= STEP
    after[20:30, 1:3] = before[20:30, 1:3]
    assert np.array_equal(after, before)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_rewriting_what_was_read_changes_nothing(zarr_format):
    array = create({}, (100, 4), (64, 4), zarr_format=zarr_format, configuration={"bits": 2})
    array[:] = uniform((100, 4)) + 2
    read = array[:]
    array[:] = read
    assert np.array_equal(array[:], read)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_append_and_resize(zarr_format):
    array = create({}, (70, 3), (64, 3), zarr_format=zarr_format)
    values = uniform((200, 3))
    array[:] = values[:70]
    array.append(values[70:])
    assert array.shape == (200, 3) and abs(array[:] - values).max() <= 2 * STEP
    array.resize((10, 3))
    assert abs(array[:] - values[:10]).max() <= 2 * STEP


@pytest.mark.parametrize("write_empty_chunks", [True, False])
@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [0.0, float("nan"), 5.0])
def test_chunks_of_nothing_but_the_fill_value(zarr_format, write_empty_chunks, fill):
    store = {}
    array = create(
        store, (64, 2), (32, 2), zarr_format=zarr_format, fill_value=fill,
        config={"write_empty_chunks": write_empty_chunks},
    )  # fmt: skip
    array[:] = np.full((64, 2), fill)
    chunks = [key for key in store if "zarr.json" not in key and not key.startswith(".z")]
    assert len(chunks) == (2 if write_empty_chunks else 0)
    assert np.array_equal(array[:], np.full((64, 2), fill, "f4"), equal_nan=True)


@pytest.mark.parametrize("compressors", [None, [{"name": "crc32c"}]])
def test_as_the_inner_codec_of_shards(compressors):
    array = zarr.create_array(
        {}, shape=(300, 6), chunks=(32, 6), shards=(128, 6), dtype="f4",
        serializer={"name": "zipml.quantize", "configuration": CONFIGURATION},
        compressors=compressors,
    )  # fmt: skip
    values = uniform((300, 6))
    array[:] = values
    assert abs(array[:] - values).max() <= STEP
    assert abs(array[100:140, 2] - values[100:140, 2]).max() <= STEP
    array[10:20] = 0.25
    assert abs(array[10:20] - 0.25).max() <= STEP


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_integers_are_refused_when_the_array_is_made_or_written(zarr_format):
    with pytest.raises(TypeError, match="float16, float32 and float64"):
        create({}, (10,), (10,), zarr_format=zarr_format, dtype="i4")[:] = 1


def test_wrong_options_in_the_metadata_are_named():
    with pytest.raises(ValueError, match=r"bits must lie in 1\.\.8, got 12"):
        create({}, (10,), (10,), configuration={"bits": 12})
    with pytest.raises(ValueError, match="no option 'level'"):
        create({}, (10,), (10,), configuration={"level": 1})


def test_a_chunk_of_another_shape_is_refused():
    store = {}
    create(store, (8, 4), (8, 4), overwrite=True)[:] = uniform((8, 4))
    chunk = store["c/0/0"]
    create(store, (8, 5), (8, 5), overwrite=True)[:] = uniform((8, 5))
    store["c/0/0"] = chunk
    with pytest.raises(ChunkError, match=r"holds \(8, 4\) of float32, its array declares \(8, 5\)"):
        zarr.open_array(store)[:]


def test_a_chunk_with_a_flipped_bit_is_refused_by_its_checksum():
    store = {}
    create(store, (8, 4), (8, 4))[:] = uniform((8, 4))
    damaged = bytearray(store["c/0/0"].to_bytes())
    damaged[-20] ^= 1
    store["c/0/0"] = zarr.core.buffer.cpu.Buffer.from_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_array(store)[:]


def test_a_stored_chunk_is_the_encoded_chunk_and_its_checksum():
    import google_crc32c

    store = {}
    create(store, (8, 4), (8, 4))[:] = uniform((8, 4))
    data = store["c/0/0"].to_bytes()
    assert google_crc32c.value(data[:-4]) == int.from_bytes(data[-4:], "little")
    assert EncodedChunk.parse(data[:-4]).header.shape == (8, 4)


def run(code, folder):
    """Run in a fresh process, then assert there that none of our larger packages was imported."""
    check = """
import sys
assert not [m for m in sys.modules if m.startswith(("zipml_ooc", "zipml_cli"))]
assert "zipml_codecs" in sys.modules
"""
    head = f"import numpy as np\nfolder = {str(folder)!r}\n"
    values = "values = np.random.default_rng(0).uniform(-1, 1, (200, 6)).astype('f4')\n"
    script = head + values + textwrap.dedent(code) + check
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


CODEC = {
    3: """
        codec = dict(
            serializer={"name": "zipml.quantize", "configuration": {"bits": 8}}, compressors=None
        )
        """,
    2: """
        import numcodecs
        codec = dict(
            filters=[numcodecs.get_codec({"id": "zipml.quantize", "bits": 8})], compressors=None
        )
        """,
}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_and_dask_write_and_read_without_our_import(zarr_format, tmp_path):
    run(
        textwrap.dedent(CODEC[zarr_format])
        + textwrap.dedent(f"""
        import dask.array, zarr
        array = zarr.create_array(
            folder + "/zarr", shape=values.shape, chunks=(64, 6), dtype="f4",
            zarr_format={zarr_format}, **codec
        )
        lazy = dask.array.from_array(values, chunks=(64, 6))
        lazy.store(array, lock=False, scheduler="threads")
        read = zarr.open_array(folder + "/zarr", mode="r")[:]
        assert abs(read - values).max() <= 2 / 255
        again = dask.array.from_zarr(folder + "/zarr").compute(scheduler="threads")
        assert np.array_equal(again, read)
        """),
        tmp_path,
    )


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_writes_and_reads_without_our_import(zarr_format, tmp_path):
    pytest.importorskip("xarray")
    run(
        textwrap.dedent(CODEC[zarr_format])
        + textwrap.dedent(f"""
        import xarray
        data = xarray.Dataset({{"X": (("row", "column"), values)}})
        encoding = {{"X": dict(codec, chunks=(64, 6))}}
        data.to_zarr(folder + "/x", zarr_format={zarr_format}, encoding=encoding)
        back = xarray.open_zarr(folder + "/x")
        assert back["X"].dims == ("row", "column") and back["X"].dtype == "f4"
        assert abs(back["X"].values - values).max() <= 2 / 255
        """),
        tmp_path,
    )
