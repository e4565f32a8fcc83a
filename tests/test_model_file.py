"""The file of a model is whole, checked or refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import assert_same, make

from zipml_ooc import model_file
from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.model import LinearModel, load_model


def rewrite(path: Path, **members: bytes | None) -> None:
    """Replace or drop (None) members of the file, with valid checksums."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    for name, data in members.items():
        name = name.replace("_", ".")
        if data is None:
            del parts[name]
        else:
            parts[name] = data
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def header_with(path: Path, **changes: object) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return json.dumps(json.loads(archive.read("model.json")) | changes).encode()


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
label_pairs = st.lists(
    st.text() | st.integers() | finite | st.booleans(),
    min_size=2,
    max_size=2,
    unique_by=lambda label: (type(label), label),
)


@st.composite
def models(draw):
    outputs, d = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    classes = draw(st.none() | label_pairs) if outputs == 1 else None

    def vector(size, elements=finite):
        return draw(st.lists(elements, min_size=size, max_size=size))

    return LinearModel(
        loss="squared" if classes is None else draw(st.sampled_from(["squared", "logistic"])),
        coef=np.array(vector(outputs * d)).reshape(outputs, d),
        intercept=vector(outputs),
        columns=tuple(vector(d, st.text())),
        mean=vector(d),
        scale=vector(d, st.floats(min_value=5e-324, allow_infinity=False)),
        targets=tuple(vector(outputs, st.text())),
        classes=None if classes is None else tuple(classes),
        encoder=draw(st.dictionaries(st.text(), json_values, max_size=3)),
        record=draw(st.dictionaries(st.text(), json_values, max_size=3)),
    )


@given(models())
@settings(max_examples=40, deadline=None)
def test_any_model_comes_back_equal_and_with_equal_bytes(model):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "m.zipml")
        model.save(path)
        loaded = load_model(path)
        assert_same(model, loaded)
        first = path.read_bytes()
        loaded.save(path)
        assert path.read_bytes() == first
        assert [p.name for p in Path(directory).iterdir()] == ["m.zipml"]


def test_any_npy_and_zip_reader_can_open_the_file(tmp_path):
    model = make(2, 3)
    model.save(str(tmp_path / "m.zipml"))
    with np.load(tmp_path / "m.zipml", allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["coef"], model.coef)
    with zipfile.ZipFile(tmp_path / "m.zipml") as archive:
        header = json.loads(archive.read("model.json"))
    assert (header["format"], header["version"]) == ("zipml-model", "1.0")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "m.zipml"
    make(1, 3, loss="logistic", classes=("a", "b")).save(path)
    return path


def test_every_truncation_is_refused_with_the_path(saved):
    data = saved.read_bytes()
    for length in range(len(data)):
        saved.write_bytes(data[:length])
        with pytest.raises(DataError) as caught:
            load_model(saved)
        assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("mask", [0x01, 0xFF])
def test_a_flipped_byte_is_refused_or_harmless(saved, mask):
    data, model = saved.read_bytes(), load_model(saved)
    refused = 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= mask
        saved.write_bytes(damaged)
        try:
            assert_same(load_model(saved), model)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0.8 * len(data)  # what remains are dates, attributes and the like


@pytest.mark.parametrize("data", [b"", b"not a zip", pickle.dumps({"coef": 1}), b"PK\x05\x06"])
def test_another_kind_of_file_is_refused(tmp_path, data):
    (tmp_path / "m.zipml").write_bytes(data)
    with pytest.raises(DataError, match="not a model file"):
        load_model(tmp_path / "m.zipml")


@pytest.mark.parametrize("member", ["model_json", "coef_npy", "scale_npy"])
def test_a_missing_member_is_named(saved, member):
    rewrite(saved, **{member: None})
    with pytest.raises(DataError, match=f"0 members '{member.replace('_', '.')}'"):
        load_model(saved)


def test_a_doubled_member_is_refused(saved):
    with (
        zipfile.ZipFile(saved, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("coef.npy", npy(np.zeros((1, 3))))
    with pytest.raises(DataError, match="2 members 'coef"):
        load_model(saved)


@pytest.mark.parametrize(
    ("member", "data", "message"),
    [
        ("coef_npy", npy(np.zeros((1, 4))), "coef has shape (1, 4)"),
        ("coef_npy", npy(np.zeros(3)), "coef has shape (3,)"),
        ("coef_npy", npy(np.zeros((1, 0))), "coef.npy declares shape (1, 0)"),
        ("coef_npy", npy(np.zeros((1, 3), "f4")), "coef.npy has dtype float32"),
        ("coef_npy", npy(np.full((1, 3), np.nan)), "coef has nan at (0, 0)"),
        ("coef_npy", npy(np.array([[{}]]), allow_pickle=True), "coef.npy has dtype object"),
        ("coef_npy", npy(np.zeros((1, 3))) + b"x", "declares shape (1, 3), but holds 25 bytes"),
        ("coef_npy", npy(np.zeros((1, 3))).replace(b"(1, 3)", b"(-1,-3)"), "coef.npy"),
        ("coef_npy", npy(np.zeros((1, 3))).replace(b"(1, 3)", b"(9**9)"), "not an .npy array"),
        ("coef_npy", b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, "not an .npy array"),
        ("mean_npy", b"", "mean.npy is not an .npy array"),
        ("model_json", b"{", "model.json is not valid JSON"),
        ("model_json", b"\xff", "model.json is not valid JSON"),
        ("model_json", b"[" * 100_000, "model.json is not valid JSON"),
        ("model_json", b"[]", "another kind of file"),
    ],
)
def test_a_bad_member_with_a_good_checksum_is_refused(saved, member, data, message):
    rewrite(saved, **{member: data})
    with pytest.raises(DataError) as caught:
        load_model(saved)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_huge_declared_shape_allocates_nothing(saved):
    header = npy(np.zeros((1, 3))).replace(b"(1, 3), }" + b" " * 12, b"(999999999999, 3), } ")
    rewrite(saved, coef_npy=header)
    with pytest.raises(DataError, match="declares shape"):
        load_model(saved)


def test_a_member_declaring_more_than_the_file_is_refused_before_it_is_read(saved):
    data = bytearray(saved.read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + 20 : entry + 28] = (2**31).to_bytes(4, "little") * 2
    saved.write_bytes(data)
    with pytest.raises(DataError, match="declares 2147483648 bytes"):
        load_model(saved)


def test_a_compressed_member_is_refused(saved):
    with zipfile.ZipFile(saved) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(DataError, match="compressed"):
        load_model(saved)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "another kind of file"),
        ({"version": "2.0"}, "format version 2.0, but this program reads version 1.x"),
        ({"version": 1}, "version 1, not a version like '1.0'"),
        ({"version": "one"}, "version 'one'"),
        ({"loss": "cubic"}, "unknown loss"),
        ({"columns": "abc"}, "'columns' in model.json is missing or not a list"),
        ({"columns": [1, 2, 3]}, "columns must be one or more strings"),
        ({"encoder": None}, "'encoder'"),
        ({"record": {"loss": float("nan")}}, "record cannot be written as JSON"),
        ({"classes": ["a", "b"]}, "not a label and its type"),
        ({"classes": [{"type": "int", "value": True}, {"type": "int", "value": 1}]}, "not a label"),
        ({"classes": "ab"}, "not a label and its type"),
    ],
)
def test_a_bad_header_is_refused(saved, changes, message):
    rewrite(saved, model_json=header_with(saved, **changes))
    with pytest.raises(DataError) as caught:
        load_model(saved)
    assert message in str(caught.value) and str(saved) in str(caught.value)


def test_a_newer_minor_version_with_unknown_keys_still_loads(saved):
    model = load_model(saved)
    rewrite(saved, model_json=header_with(saved, version="1.7", novelty=[1]), extra_npy=b"x")
    assert_same(load_model(saved), model)


def test_missing_file_and_directory_are_wrong_requests(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        load_model(tmp_path / "none.zipml")
    with pytest.raises(UsageError, match="cannot open"):
        load_model(tmp_path)


def test_unwritable_places_are_wrong_requests(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "none" / "m.zipml", tmp_path / "file" / "m.zipml", tmp_path):
        with pytest.raises(UsageError, match="directory"):
            make().save(path)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(model_file, "open", refuse, raising=False)
    with pytest.raises(UsageError, match="Permission denied; give a path"):
        make().save(tmp_path / "m.zipml")


@pytest.mark.parametrize(
    ("failure", "expected"),
    [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
@pytest.mark.parametrize("step", ["fsync", "write"])
def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch, failure, expected, step):
    before = saved.read_bytes()

    def fail(*args, **kwargs):
        raise failure

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(expected):
        make(1, 5).save(saved)
    assert saved.read_bytes() == before
    assert list(saved.parent.iterdir()) == [saved]


def test_saving_replaces_an_older_file_and_follows_the_umask(saved):
    model = make(2, 2)
    old = os.umask(0o027)
    try:
        model.save(saved)
    finally:
        os.umask(old)
    assert_same(load_model(saved), model)
    assert saved.stat().st_mode & 0o777 == 0o640
