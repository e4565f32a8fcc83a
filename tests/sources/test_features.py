"""The feature encoder: one-hot columns, missing and unknown values, its stored form."""

import json

import numpy as np
import pyarrow as pa
import pytest

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.features import FeatureEncoder
from zipml_ooc.sources import Block, SourceOptions, open_source


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("size,colour,price\n1,red,10\n,blue,20\n3,red,30\n")
    return open_source([str(path)])


def block_of(first_row=0, **columns):
    return Block(first_row, pa.record_batch(columns), None)


def text(*values):
    return pa.array(values, pa.large_string())


def test_text_columns_become_one_column_per_category_in_place(source):
    encoder = FeatureEncoder.fit(source, "one-hot", 2)
    assert encoder.names == ("size", "colour=blue", "colour=red", "price")
    (block,) = source.blocks(10)
    matrix = encoder.transform(block)
    np.testing.assert_array_equal(matrix, [[1, 0, 1, 10], [np.nan, 1, 0, 20], [3, 0, 1, 30]])
    assert matrix.dtype == np.float64
    assert matrix.flags.c_contiguous


def test_text_columns_are_an_error_unless_asked_for(tmp_path, source):
    with pytest.raises(DataError, match="'colour'; encode them with --categorical one-hot"):
        FeatureEncoder.fit(source, "error", 2)
    path = tmp_path / "wide.csv"
    path.write_text(",".join(f"t{i}" for i in range(15)) + "\n" + ",".join("x" * 15) + "\n")
    with pytest.raises(DataError, match="'t9' and 5 more"):
        FeatureEncoder.fit(open_source([str(path)]), "error", 2)
    with pytest.raises(UsageError, match="not 'hash'"):
        FeatureEncoder.fit(source, "hash", 2)


def test_numbers_alone_need_no_pass(tmp_path):
    path = tmp_path / "d.npy"
    np.save(path, np.arange(6, dtype=np.uint8).reshape(2, 3))
    source = open_source([str(path)], SourceOptions(target=(0,)))
    source.blocks = None  # would fail
    encoder = FeatureEncoder.fit(source, "error", 2)
    assert encoder.names == ("c1", "c2")


def test_arrays_are_converted_and_checked():
    encoder = FeatureEncoder(("a", "b"))
    out = encoder.transform(Block(0, np.asfortranarray(np.ones((3, 2), np.uint8)), None))
    assert out.dtype == np.float64
    assert out.flags.c_contiguous
    with pytest.raises(DataError, match="3 numeric columns does not fit the encoder of 2"):
        encoder.transform(Block(0, np.ones((3, 3)), None))


def test_too_many_categories_name_the_column(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("id\n" + "".join(f"x{i}\n" for i in range(20)))
    source = open_source([str(path)])
    assert len(FeatureEncoder.fit(source, "one-hot", 3, 20).names) == 20
    with pytest.raises(DataError, match="column 'id' has more than 19 categories"):
        FeatureEncoder.fit(source, "one-hot", 3, 19)


def test_a_missing_category_names_row_and_column(tmp_path):
    path = tmp_path / "d.csv"
    path.write_text("a,t\n1,x\n2,y\n3,\n")
    source = open_source([str(path)])
    with pytest.raises(
        DataError, match=r"row 2 \(counted from 0\), column 't': the category is missing"
    ):
        FeatureEncoder.fit(source, "one-hot", 2)
    encoder = FeatureEncoder(("a", "t"), {"t": ("x", "y")})
    blocks = source.blocks(2)
    encoder.transform(next(blocks))
    with pytest.raises(
        DataError, match=r"row 2 \(counted from 0\), column 't': the category is missing"
    ):
        encoder.transform(next(blocks))


def test_an_unknown_category_names_row_column_and_value():
    encoder = FeatureEncoder(("t",), {"t": ("x", "y")})
    with pytest.raises(
        DataError, match=r"row 101 \(counted from 0\), column 't': the category 'z' is unknown"
    ) as e:
        encoder.transform(block_of(100, t=text("x", "z")))
    assert "known are 'x', 'y'" in str(e.value)


def test_text_where_a_number_belongs_is_refused():
    with pytest.raises(DataError, match=r"row 100 \(counted from 0\), column 'a': 'x' is text"):
        FeatureEncoder(("a",)).transform(block_of(100, a=text("x")))
    with pytest.raises(DataError, match="missing from the block: 'a'"):
        FeatureEncoder(("a",)).transform(block_of(b=text("x")))


def test_categories_that_look_like_numbers_match_a_numeric_column():
    encoder = FeatureEncoder(("t",), {"t": ("1", "2.5", "x")})
    out = encoder.transform(block_of(t=pa.array([1.0, 2.5])))
    np.testing.assert_array_equal(out, [[1, 0, 0], [0, 1, 0]])
    with pytest.raises(DataError, match="'7' is unknown"):
        encoder.transform(block_of(t=pa.array([7.0])))


def test_the_stored_form_survives_json():
    encoder = FeatureEncoder(("a", "t"), {"t": ("x", "y")})
    assert FeatureEncoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder


@pytest.mark.parametrize(
    "data, words",
    [
        ({}, "'columns'"),
        ([], "'columns'"),
        ({"columns": "ab"}, "'columns'"),
        ({"columns": [1]}, "'columns'"),
        ({"columns": ["a"], "categories": []}, "'categories'"),
        ({"columns": ["a"], "categories": {"a": [1]}}, "'categories'"),
        ({"columns": ["a"], "categories": {"b": ["x"]}}, "unknown columns: 'b'"),
        ({"columns": ["a", "a"]}, "occur twice: 'a'"),
        ({"columns": ["a", "a=x"], "categories": {"a": ["x"]}}, "occur twice: 'a=x'"),
    ],
)
def test_a_damaged_stored_form_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        FeatureEncoder.from_dict(data)
