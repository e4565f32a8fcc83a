"""Parquet: types, directories and damage."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_helpers import read_all

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources import SourceOptions, open_source


def write(path, **columns):
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_numbers_of_every_type_become_float64(tmp_path):
    path = write(
        tmp_path / "t.parquet",
        i=pa.array([1, None], pa.int8()),
        u=pa.array([2**63, 1], pa.uint64()),
        h=pa.array(np.array([0.5, 2], np.float16)),
        b=pa.array([True, False]),
        d=pa.array([decimal.Decimal("1.25"), None]),
        n=pa.nulls(2),
        k=pa.array([7, 8]).dictionary_encode(),
    )
    source = open_source([path])
    assert source.text_columns == ()
    (block,) = source.blocks(5)
    assert {str(c.type) for c in block.features.columns} == {"double"}
    nan = np.nan
    np.testing.assert_array_equal(
        read_all(source, 1)[0], [[1, 2.0**63, 0.5, 1, 1.25, nan, 7], [nan, 1, 2, 0, nan, nan, 8]]
    )


def test_text_and_dictionaries_are_text_columns(tmp_path):
    path = write(
        tmp_path / "t.parquet",
        s=["a", "b", None],
        k=pa.array(["x", "", "x"]).dictionary_encode(),
        large=pa.array(["p", "q", "r"], pa.large_string()),
        v=[1, 2, 3],
    )
    source = open_source([path])
    assert source.text_columns == ("s", "k", "large")
    (block,) = source.blocks(5)
    assert block.features.column("s").to_pylist() == ["a", "b", None]
    assert block.features.column("k").to_pylist() == ["x", "", "x"]


def test_other_types_are_named(tmp_path):
    path = write(
        tmp_path / "t.parquet",
        when=[datetime.date(2024, 1, 1)],
        many=[[1, 2]],
        both=[{"a": 1}],
        raw=[b"x"],
        ok=[1.0],
    )
    with pytest.raises(DataError) as caught:
        open_source([path])
    for words in ("'when' (date32", "'many' (list", "'both' (struct", "'raw' (binary)"):
        assert words in str(caught.value)
    assert "'ok'" not in str(caught.value)
    assert open_source([path], SourceOptions(select=("ok",))).columns == ("ok",)


def test_names_with_dots_are_plain_names(tmp_path):
    path = write(tmp_path / "t.parquet", **{"a.b": [1.0], "a": [2.0]})
    features, _ = read_all(open_source([path], SourceOptions(select=("a", "a.b"))), 1)
    assert features.tolist() == [[2.0, 1.0]]


def test_a_directory_is_read_in_order_without_hidden_files(tmp_path):
    data = tmp_path / "set"
    (data / "sub").mkdir(parents=True)
    write(data / "b.parquet", x=[2.0])
    write(data / "a.parquet", x=[1.0])
    write(data / "sub" / "c.parquet", x=[3.0])
    write(data / "_tmp.parquet", z=[9.0])
    (data / "_SUCCESS").touch()
    assert read_all(open_source([str(data)]), 2)[0].tolist() == [[1.0], [2.0], [3.0]]


def test_unlike_files_are_refused(tmp_path):
    first = write(tmp_path / "a.parquet", x=[1], y=[2])
    with pytest.raises(UsageError, match=r"b\.parquet: lacks 'y'"):
        open_source([first, write(tmp_path / "b.parquet", x=[1])])
    with pytest.raises(DataError, match=r"c\.parquet: column 'y' holds text, but number in"):
        open_source([first, write(tmp_path / "c.parquet", x=[1], y=["t"])])
    wider = write(tmp_path / "d.parquet", x=[1.5], y=[2])
    assert read_all(open_source([first, wider]), 5)[0].tolist() == [[1, 2], [1.5, 2]]


def test_empty_duplicate_and_damaged_files_are_refused(tmp_path):
    empty = write(tmp_path / "empty.parquet", x=pa.array([], pa.float64()))
    with pytest.raises(DataError, match=r"empty\.parquet.*no rows"):
        open_source([empty])
    bad = tmp_path / "bad.parquet"
    for data in (b"", b"nothing like it at all"):
        bad.write_bytes(data)
        with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as Parquet"):
            open_source([str(bad)])
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["x", "x"]), bad)
    with pytest.raises(DataError, match="occur twice: 'x'"):
        open_source([str(bad)])
    no_columns = tmp_path / "none.parquet"
    pq.write_table(pa.table({"y": [1]}), no_columns)
    with pytest.raises(DataError, match="no feature column is left besides the target"):
        open_source([str(no_columns)], SourceOptions(target=("y",)))


def test_damage_in_the_middle_is_a_data_error(tmp_path):
    path = tmp_path / "t.parquet"
    write(path, x=np.random.default_rng(0).normal(size=20000))
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"t\.parquet"):
        list(open_source([str(path)]).blocks(100))
