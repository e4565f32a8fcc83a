"""CSV: types, ragged rows, targets and what a user may get wrong."""

import gzip

import numpy as np
import pytest
from source_helpers import read_all

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources import SourceOptions, delimited, open_source


@pytest.fixture
def csv(tmp_path):
    def write(text, name="data.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 64)


def drain(source, rows=7):
    return list(source.blocks(rows))


def refuse(error, path, **options):
    with pytest.raises(error) as caught:
        drain(open_source([path] if isinstance(path, str) else path, SourceOptions(**options)))
    return str(caught.value)


def test_integers_may_turn_into_fractions_and_huge_numbers_later(csv, small_blocks):
    path = csv("a,b\n" + "1,2\n" * 100 + "1.5,2\n" + f"{10**25},true\n".replace("true", "3"))
    features, _ = read_all(open_source([path]), 13)
    assert features[100].tolist() == [1.5, 2.0]
    assert features[101].tolist() == [1e25, 3.0]


def test_empty_fields_are_nan_also_in_columns_that_start_empty(csv, small_blocks):
    path = csv("a,b,c\n" + ",1,true\n" * 50 + "2,,false\n" + "NA,3,\n")
    features, _ = read_all(open_source([path]), 13)
    assert np.isnan(features[:50, 0]).all()
    np.testing.assert_array_equal(
        features[49:], [[np.nan, 1, 1], [2, np.nan, 0], [np.nan, 3, np.nan]]
    )


def test_text_columns_keep_their_spelling_and_empty_text_is_null(csv):
    source = open_source([csv('a,t\n1,x\n2,\n3,NA\n4,"p,\nq"\n5,007\n')])
    assert source.text_columns == ("t",)
    (block,) = source.blocks(10)
    assert block.features.column("t").to_pylist() == ["x", None, "NA", "p,\nq", "007"]


def test_columns_can_be_forced_to_text(csv):
    source = open_source([csv("a,zip\n1,007\n2,008\n")], SourceOptions(text=("zip", "other")))
    (block,) = source.blocks(10)
    assert source.text_columns == ("zip",)
    assert block.features.column("zip").to_pylist() == ["007", "008"]


def test_byte_order_mark_crlf_and_quotes(csv):
    source = open_source([csv(b'\xef\xbb\xbf"a","b"\r\n1,"2.5"\r\n3,4\r\n')])
    assert source.columns == ("a", "b")
    np.testing.assert_array_equal(read_all(source, 1)[0], [[1, 2.5], [3, 4]])


def test_tab_and_other_delimiters(csv):
    for path, options in [
        (csv("a\tb\n1\t2\n", "d.tsv"), SourceOptions()),
        (csv("a;b\n1;2\n"), SourceOptions(delimiter=";")),
        (csv(gzip.compress(b"a\tb\n1\t2\n"), "d.tsv.gz"), SourceOptions()),
    ]:
        np.testing.assert_array_equal(read_all(open_source([path], options), 1)[0], [[1, 2]])
    for delimiter in ("ab", "", "é", "\n", '"'):
        message = refuse(UsageError, csv("a,b\n1,2\n"), delimiter=delimiter)
        assert f"must be one ASCII character, not {delimiter!r}" in message


def test_without_header_the_columns_are_numbered(csv):
    paths = [csv("1,2,3\n4,5,6\n", "one.csv"), csv("7,8,9\n", "two.csv")]
    source = open_source(paths, SourceOptions(header=False, target=(0,)))
    assert (source.columns, source.targets) == (("c1", "c2"), ("c0",))
    features, target = read_all(source, 2)
    np.testing.assert_array_equal(features, [[2, 3], [5, 6], [8, 9]])
    np.testing.assert_array_equal(target, [1, 4, 7])


def test_a_row_longer_than_a_block_is_read(csv, small_blocks):
    wide = ",".join(f"column{i}" for i in range(60))
    path = csv(wide + "\n" + ",".join(["1"] * 60) + "\n" + ",".join(["1.123456789"] * 60) + "\n")
    features, _ = read_all(open_source([path]), 1)
    assert features.tolist() == [[1.0] * 60, [1.123456789] * 60]


def test_a_long_row_late_in_the_file_repeats_and_loses_nothing(csv, small_blocks):
    path = csv("a,t\n" + "".join(f"{i},x\n" for i in range(200)) + f"200,{'y' * 500}\n201,z\n")
    got = [v for b in open_source([path]).blocks(9) for v in b.features.column("a").to_pylist()]
    assert got == [float(i) for i in range(202)]


@pytest.mark.parametrize("row, count", [("1,2,3", 3), ("1", 1)])
def test_ragged_rows_name_file_row_and_counts(csv, small_blocks, row, count):
    path = csv("a,b\n" + "1,2\n" * 100 + row + "\n" + "1,2\n" * 100)
    message = refuse(DataError, path)
    assert f"data.csv: row 102 (the header is row 1) has {count} fields where 2" in message
    assert f"'{row}'" in message


def test_a_ragged_row_in_the_first_block_is_found_at_once(csv):
    with pytest.raises(
        DataError, match=r"row \d+ \(the header is row 1\) has 3 fields where 2 are expected"
    ):
        open_source([csv("a,b\n1,2\n1,2,3\n")])


def test_late_text_in_a_numeric_column_names_row_column_and_value(csv, small_blocks):
    message = refuse(DataError, csv("a,b\n" + "1,2\n" * 100 + "1,oops\n"))
    assert "data.csv: row 102 (the header is row 1), column 'b': 'oops' is not a number" in message
    message = refuse(DataError, csv("1,2\n" * 100 + "1,oops\n"), header=False)
    assert "row 101, column 'c1': 'oops'" in message
    message = refuse(DataError, csv("a,b\n" + "1,true\n" * 100 + "1,2\n"))
    assert "'2' is not true or false" in message


def test_text_in_a_later_file_names_that_file(csv):
    paths = [csv("a,b\n1,2\n", "one.csv"), csv("a,b\n1,2\n3,x\n", "two.csv")]
    assert "two.csv: row 3 (the header is row 1), column 'b': 'x'" in refuse(DataError, paths)


def test_bytes_that_are_not_utf8_are_refused(csv, small_blocks):
    assert "'b' (binary)" in refuse(DataError, csv(b"a,b\n1,\xff\xfe\n"))
    late = refuse(DataError, csv(b"a,b\n" + b"1,x\n" * 100 + b"1,\xff\xfe\n"))
    assert "row 102 (the header is row 1), column 'b': the text is not UTF-8" in late


def test_other_encodings_are_recognised(csv):
    message = refuse(DataError, csv("größe,b\n1,2\n".encode("latin-1")))
    assert "not UTF-8" in message
    message = refuse(DataError, csv("a,b\n1,2\n".encode("utf-16")))
    assert "looks like UTF-16" in message


def test_memory_does_not_grow_with_the_file(csv, monkeypatch):
    import pyarrow as pa

    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 16)
    source = open_source([csv("a,b\n" + "1.25,2.5\n" * 1_000_000)])
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() for _ in source.blocks(1000))
    assert peak - before < 6 << 20  # all columns take 16 MB


def test_a_header_of_numbers_suggests_header_false(csv):
    message = refuse(UsageError, csv("1.5,2,0\n3,4,1\n"))
    assert "1.5, 2, 0" in message
    assert "header=False" in message


def test_duplicate_names_are_refused(csv):
    assert "occur twice: 'a'; rename" in refuse(DataError, csv("a,b,a\n1,2,3\n"))


@pytest.mark.parametrize("text", ["", "\n\n", "a,b\n", "a,b"])
def test_files_without_rows_are_refused(csv, text):
    message = refuse(DataError, csv(text))
    assert "data.csv" in message
    assert "empty" in message


def test_an_empty_part_among_others_is_fine(csv):
    paths = [csv("a,t\n", "one.csv"), csv("a,t\n1,x\n", "two.csv")]
    (block,) = open_source(paths).blocks(5)
    assert block.features.to_pylist() == [{"a": 1.0, "t": "x"}]


def test_dates_and_times_are_named_with_their_type(csv):
    message = refuse(DataError, csv("a,when,d\n1,2024-01-01 10:00:00,2024-01-01\n"))
    assert "'when' (timestamp[" in message
    assert "'d' (date32" in message
    path = csv("a,d\n1,2024-01-01\n")
    assert open_source([path], SourceOptions(select=("a",))).columns == ("a",)


@pytest.mark.parametrize(
    "header, words",
    [
        ("a,c", "lacks 'b' and adds 'c'"),
        ("b,a", "has 'b' as column 0 instead of 'a'"),
        ("a,b,c", "adds 'c'"),
    ],
)
def test_files_with_other_columns_are_named_with_the_difference(csv, header, words):
    row = ",".join("1" * len(header.split(",")))
    paths = [csv("a,b\n1,2\n", "one.csv"), csv(f"{header}\n{row}\n", "two.csv")]
    message = refuse(UsageError, paths)
    assert f"two.csv: {words}" in message
    assert "one.csv" in message


def test_damaged_compression_is_a_data_error(csv):
    packed = gzip.compress(b"a,b\n" + b"1,2\n" * 5000)
    assert "data.csv.gz" in refuse(DataError, csv(packed[: len(packed) // 2], "data.csv.gz"))
    assert "bad.csv.gz" in refuse(DataError, csv("a,b\n1,2\n", "bad.csv.gz"))


def test_targets_by_name_index_and_digits(csv):
    path = csv("a,b,1\n10,20,30\n")
    for target, name in [("b", "b"), (1, "b"), (-3, "a"), ("-3", "a"), ("1", "1"), ("0", "a")]:
        source = open_source([path], SourceOptions(target=(target,)))
        assert source.targets == (name,)
        assert source.columns == tuple(c for c in ("a", "b", "1") if c != name)
    source = open_source([path], SourceOptions(target=("1", "a")))
    (block,) = source.blocks(1)
    assert (source.targets, block.target.tolist()) == (("1", "a"), [[30.0, 10.0]])


def test_text_targets_are_objects_with_none_for_missing(csv):
    source = open_source([csv("a,y\n1,cat\n2,\n3,dog\n")], SourceOptions(target=("y",)))
    (block,) = source.blocks(5)
    assert block.target.dtype == object
    assert block.target.tolist() == ["cat", None, "dog"]
    assert source.text_columns == ()


def test_labels_that_start_as_integers_are_text_throughout(csv, small_blocks):
    path = csv("a,y\n" + "1,7\n" * 100 + "1,cat\n")
    source = open_source([path], SourceOptions(target=("y",)))
    _, target = read_all(source, 9)
    assert target.tolist() == ["7"] * 100 + ["cat"]
    paths = [csv("a,y\n1,7\n", "one.csv"), csv("a,y\n1,cat\n", "two.csv")]
    _, target = read_all(open_source(paths, SourceOptions(target=("y",))), 1)
    assert target.tolist() == ["7", "cat"]


def test_integer_targets_may_turn_into_fractions(csv, small_blocks):
    path = csv("a,y\n" + "1,7\n" * 100 + "1,7.5\n")
    _, target = read_all(open_source([path], SourceOptions(target=("y",))), 9)
    assert target.tolist() == [7.0] * 100 + [7.5]


def test_late_text_in_a_fractional_target_is_an_error(csv, small_blocks):
    message = refuse(DataError, csv("a,y\n" + "1,0.5\n" * 100 + "1,x\n"), target=("y",))
    assert "row 102 (the header is row 1), column 'y': 'x'" in message


def test_unknown_targets_suggest_what_was_meant(csv):
    path = csv("price,size\n1,2\n")
    assert "no target column 'prize'; did you mean 'price'" in refuse(
        UsageError, path, target=("prize",)
    )
    assert "its columns are 'price', 'size'" in refuse(UsageError, path, target=("zzz",))
    assert "index 2 is out of range; the 2 columns have the indices 0 to 1" in refuse(
        UsageError, path, target=(2,)
    )
    assert "index -3" in refuse(UsageError, path, target=("-3",))
    assert "'size' is named twice" in refuse(UsageError, path, target=("size", -1))


@pytest.mark.parametrize("target", ["y", 9, "-9"])
def test_an_optional_target_may_be_missing(csv, target):
    options = SourceOptions(target=(target,), target_optional=True)
    source = open_source([csv("a,b\n1,2\n")], options)
    assert (source.targets, source.columns) == ((), ("a", "b"))


def test_no_feature_besides_the_target_is_an_error(csv):
    assert "no feature column is left besides the target" in refuse(
        DataError, csv("y\n1\n"), target=("y",)
    )


def test_selected_columns_come_in_the_order_asked_for(csv):
    path = csv("a,b,c,y\n1,2,3,4\n")
    source = open_source([path], SourceOptions(select=("c", "a"), target=("y",)))
    assert source.columns == ("c", "a")
    np.testing.assert_array_equal(read_all(source, 1)[0], [[3, 1]])


def test_missing_selected_columns_are_all_named(csv):
    message = refuse(UsageError, csv("a,b\n1,2\n"), select=("a", "u", "v"))
    assert "2 of the 3 feature columns needed are missing: 'u', 'v'" in message
    many = refuse(UsageError, csv("a,b\n1,2\n"), select=tuple(f"n{i}" for i in range(25)))
    assert "and 15 more" in many


def test_a_headerless_file_without_the_target_fits_a_model_by_position(csv):
    options = SourceOptions(header=False, select=("c1", "c2"), target=("c0",), target_optional=True)
    source = open_source([csv("5,6\n")], options)
    assert (source.columns, source.targets) == (("c1", "c2"), ())
    np.testing.assert_array_equal(read_all(source, 1)[0], [[5, 6]])
    features, target = read_all(open_source([csv("4,5,6\n")], options), 1)
    assert (features.tolist(), target.tolist()) == ([[5.0, 6.0]], [4.0])


def test_block_sizes_below_one_are_refused(csv):
    with pytest.raises(UsageError, match="at least 1 row, not 0"):
        open_source([csv("a\n1\n")]).blocks(0)
