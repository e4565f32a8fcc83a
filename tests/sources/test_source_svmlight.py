"""svmlight: index base, width, bad lines and the missing extra."""

import sys

import numpy as np
import pytest
from source_helpers import read_all

from zipml_ooc.errors import DataError, UsageError
from zipml_ooc.sources import SourceOptions, open_source, svmlight


@pytest.fixture
def svm(tmp_path):
    def write(text, name="data.svm"):
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def refuse(error, path, **options):
    with pytest.raises(error) as caught:
        list(open_source([path], SourceOptions(**options)).blocks(3))
    return str(caught.value)


def test_indices_count_from_one_where_zero_never_occurs(svm):
    source = open_source([svm("1 1:5 3:6\n-1 2:7 # comment\n\n# only a comment\n0\n")])
    assert (source.columns, source.targets) == (("c0", "c1", "c2"), ("label",))
    features, target = read_all(source, 2)
    np.testing.assert_array_equal(features, [[5, 0, 6], [0, 7, 0], [0, 0, 0]])
    np.testing.assert_array_equal(target, [1, -1, 0])


def test_one_zero_index_in_any_file_makes_all_count_from_zero(svm):
    paths = [svm("1 1:5\n", "a.svm"), svm("1 0:4 2:6\n", "b.svm")]
    np.testing.assert_array_equal(read_all(open_source(paths), 5)[0], [[0, 5, 0], [4, 0, 6]])


def test_the_width_is_that_of_the_widest_row_of_all_files(svm):
    paths = [svm("1 0:5\n", "a.svm"), svm("1 9:6\n", "b.svm")]
    assert open_source(paths).columns == tuple(f"c{i}" for i in range(10))


def test_a_model_pads_narrow_data_and_refuses_wide_data(svm):
    path = svm("1 0:5 2:6\n")
    source = open_source([path], SourceOptions(select=tuple(f"c{i}" for i in range(5))))
    np.testing.assert_array_equal(read_all(source, 1)[0], [[5, 0, 6, 0, 0]])
    source = open_source([path], SourceOptions(select=("c3", "c2")))
    np.testing.assert_array_equal(read_all(source, 1)[0], [[0, 6]])
    message = refuse(UsageError, path, select=("c0", "c1"))
    assert "3 features where 2 are expected" in message
    assert "'price' are missing" in refuse(UsageError, path, select=("c0", "price"))


def test_the_label_is_the_only_target(svm):
    path = svm("1 0:5\n")
    assert open_source([path], SourceOptions(target=("label",))).targets == ("label",)
    assert "the target of svmlight data is 'label', so 0" in refuse(UsageError, path, target=(0,))
    options = SourceOptions(target=("price",), target_optional=True)
    source = open_source([path], options)
    assert source.targets == ()
    assert read_all(source, 1)[1] is None


@pytest.mark.parametrize(
    "line", ["1 a:2", "x 1:2", "1 3:1 2:1", "1,2 1:3", "1 -1:3", "1 1:2 foo", "1 1:x"]
)
def test_a_bad_line_is_named_with_its_number(svm, monkeypatch, line):
    monkeypatch.setattr(svmlight, "CHUNK_BYTES", 16)
    message = refuse(DataError, svm("1 0:1 # c\n\n" * 20 + f"{line}\n" + "1 0:1\n" * 20))
    assert "data.svm: line 41 is not svmlight" in message
    assert repr(line) in message


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_files_without_rows_are_refused(svm, text):
    assert "data.svm'" in refuse(DataError, svm(text))


def test_rows_without_any_feature_are_refused(svm):
    assert "no feature occurs in any row" in refuse(DataError, svm("1\n0\n"))


def test_txt_needs_the_format_by_name(svm):
    path = svm("1 0:5\n", "data.txt")
    assert "format=" in refuse(UsageError, path)
    assert open_source([path], SourceOptions(format="svmlight")).columns == ("c0",)


def test_without_scikit_learn_it_says_what_to_install(svm, monkeypatch):
    path = svm("1 0:5\n")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert 'pip install "zipml-ooc[svmlight]"' in refuse(UsageError, path)
