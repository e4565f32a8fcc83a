"""The contract that every codec of numcodecs is put through."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import numcodecs
import numpy as np
import pytest
from codec_samples import DTYPES
from zipml_codecs import ChunkError
from zipml_codecs.numcodecs_codec import Quantize

CODECS = [
    Quantize(),
    Quantize(bits=1),
    Quantize(bits=8, samples=2, seed=2**64 - 1),
    Quantize(bits=3, scale="row", nan="mean"),
    Quantize(bits=7, samples=2, scale="row-l2", seed=5),
]
ids = [repr(codec) for codec in CODECS]


def arrays():
    rng = np.random.default_rng(0)
    for dtype in DTYPES:
        for shape in [(100,), (20, 5), (4, 5, 5), (2, 5, 2, 5), (130, 3)]:
            values = rng.uniform(-1, 1, shape).astype(dtype)
            yield values
            yield np.asfortranarray(values)
            yield values.astype(values.dtype.newbyteorder(">"))
            yield values[::2]
            yield values[::-1]
        yield np.float64(0.25).astype(dtype)
        yield np.empty((0, 4), dtype)


@pytest.mark.parametrize("codec", CODECS, ids=ids)
def test_what_is_decoded_has_shape_dtype_and_order_and_is_close(codec):
    steps = 2**codec.quantizer.bits - 1
    for values in arrays():
        before = values.copy()
        encoded = codec.encode(values)
        assert values.tobytes() == before.tobytes()
        decoded = codec.decode(encoded)
        assert decoded.shape == values.shape and decoded.dtype == values.dtype
        width = 2 * np.sqrt(values.shape[-1] if values.ndim > 1 else 1) + 0.01
        assert abs(decoded.astype("f8") - values.astype("f8")).max(initial=0) <= width / steps
        if values.flags.c_contiguous or values.flags.f_contiguous:
            assert decoded.flags.c_contiguous == values.flags.c_contiguous


@pytest.mark.parametrize("codec", CODECS, ids=ids)
def test_decoding_into_a_buffer(codec):
    for values in arrays():
        encoded = codec.encode(values)
        expected = codec.decode(encoded)
        out = np.empty_like(values)
        codec.decode(encoded, out=out)
        assert np.array_equal(out, expected)
        if values.flags.c_contiguous and values.size and values.dtype.isnative:
            flat = np.empty(values.nbytes, "u1")
            codec.decode(encoded, out=flat)
            assert flat.tobytes() == expected.tobytes()
            raw = bytearray(values.nbytes)
            codec.decode(encoded, out=raw)
            assert raw == expected.tobytes()


def test_decoding_into_a_buffer_of_another_size_is_refused():
    codec = CODECS[0]
    encoded = codec.encode(np.ones((4, 4), "f4"))
    for out in (np.empty((3, 4), "f4"), bytearray(63)):
        with pytest.raises(ValueError):
            codec.decode(encoded, out=out)


def test_encoded_bytes_are_taken_from_any_buffer():
    codec = CODECS[0]
    encoded = codec.encode(np.linspace(0, 1, 50, dtype="f4"))
    expected = codec.decode(bytes(encoded))
    for buffer in (encoded, memoryview(encoded), np.frombuffer(encoded, "u1"),
                   np.frombuffer(encoded, "i1"), bytearray(encoded)):  # fmt: skip
        assert np.array_equal(codec.decode(buffer), expected)
    unaligned = np.frombuffer(b"x" + bytes(encoded), "u1")[1:]
    assert np.array_equal(codec.decode(unaligned), expected)


@pytest.mark.parametrize("codec", CODECS, ids=ids)
def test_the_configuration_survives_json(codec):
    config = json.loads(json.dumps(codec.get_config()))
    assert config["id"] == "zipml.quantize"
    assert numcodecs.get_codec(config) == codec


@pytest.mark.parametrize("codec", CODECS, ids=ids)
def test_the_representation_evaluates_and_pickles_are_equal(codec):
    assert eval(repr(codec), {"Quantize": Quantize}) == codec
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert codec != Quantize(bits=6) and codec != object()


def test_decoding_does_not_depend_on_the_codec_s_options():
    values = np.linspace(0, 1, 50, dtype="f4")
    encoded = Quantize(bits=8, samples=2).encode(values)
    assert np.array_equal(Quantize(bits=1).decode(encoded), Quantize(bits=8).decode(encoded))


def test_options_are_checked_when_the_codec_is_made_and_when_it_is_read():
    with pytest.raises(ValueError, match=r"bits must lie in 1\.\.8, got 0"):
        Quantize(bits=0)
    with pytest.raises(ValueError, match="no option 'level'; known: bits"):
        numcodecs.get_codec({"id": "zipml.quantize", "level": 3})


def test_what_is_not_float_is_refused():
    for wrong in (np.arange(5), b"bytes", np.array(["a"])):
        with pytest.raises(TypeError, match="float16, float32 and float64"):
            CODECS[0].encode(wrong)


def test_damaged_bytes_raise_chunk_errors():
    with pytest.raises(ChunkError):
        CODECS[0].decode(b"not a chunk")


def test_the_codec_is_found_by_its_id_without_importing_it():
    code = """
import sys, numcodecs, numpy as np
codec = numcodecs.get_codec({"id": "zipml.quantize", "bits": 3, "samples": 2})
assert "zipml_codecs" in sys.modules
values = np.linspace(0, 1, 99, dtype="f4")
assert abs(codec.decode(codec.encode(values)) - values).max() < 1 / 7
for heavy in ("zarr", "dask", "zipml_ooc", "pyarrow", "typer"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_loads_neither_zarr_nor_numcodecs():
    code = """
import sys, zipml_codecs
for heavy in ("zarr", "numcodecs", "dask", "zipml_ooc", "asyncio"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
