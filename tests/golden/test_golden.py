"""Bytes written by earlier versions decode for ever, and the same input gives the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from zipml_codecs import EncodedChunk, Quantizer, encode_chunk
from zipml_codecs.numcodecs_codec import Quantize

HERE = Path(__file__).parent
CASES = json.loads((HERE / "cases.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_golden_chunks_decode_to_the_same_array(name):
    data = (HERE / f"{name}.zipml-chunk").read_bytes()
    expected = np.load(HERE / f"{name}.decoded.npy")
    chunk = EncodedChunk.parse(data)
    assert chunk.header.quantizer == Quantizer(**CASES[name]["quantizer"])
    for decoded in (chunk.decode(), Quantize().decode(data)):
        assert decoded.dtype == expected.dtype and decoded.shape == expected.shape
        assert decoded.tobytes("A") == expected.tobytes("A")
        assert decoded.flags.f_contiguous == expected.flags.f_contiguous


@pytest.mark.parametrize("name", CASES)
def test_golden_inputs_encode_to_the_same_bytes(name):
    options = dict(CASES[name]["options"])
    if "chunk_shape" in options:
        options["chunk_shape"] = tuple(options["chunk_shape"])
        options["lower"], options["upper"] = map(np.float32, (options["lower"], options["upper"]))
    values = np.load(HERE / f"{name}.input.npy")
    encoded = encode_chunk(values, Quantizer(**CASES[name]["quantizer"]), **options)
    assert encoded == (HERE / f"{name}.zipml-chunk").read_bytes()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_golden_zarr_groups_are_read(zarr_format):
    group = zarr.open_group(HERE / f"plain-v{zarr_format}", mode="r")
    decoded = np.load(HERE / f"plain-v{zarr_format}.decoded.npy")
    assert group["X"].metadata.zarr_format == zarr_format
    assert group["X"][:].tobytes() == decoded.tobytes()
    assert group["y"].shape == (150,)
    assert (HERE / "plain-v2.decoded.npy").read_bytes() == (
        HERE / "plain-v3.decoded.npy"
    ).read_bytes()


def test_golden_files_stay_small():
    def size(place):
        return sum(file.stat().st_size for file in place.rglob("*") if file.is_file())

    assert size(HERE) - size(HERE / "__pycache__") < 200_000
    assert size(HERE / "plain-v2") < 20_000 and size(HERE / "plain-v3") < 20_000


def test_making_golden_files_again_leaves_them_alone():
    before = {file: file.stat().st_mtime_ns for file in HERE.rglob("*.zipml-chunk")}
    done = subprocess.run(
        [sys.executable, HERE / "make.py"], capture_output=True, text=True, check=True
    )
    assert "wrote" not in done.stdout
    assert before == {file: file.stat().st_mtime_ns for file in HERE.rglob("*.zipml-chunk")}
