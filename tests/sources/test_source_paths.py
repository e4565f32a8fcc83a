"""From what the user typed to files: paths that fail and formats that cannot be told."""

import os
from pathlib import Path

import fsspec
import pytest

from zipml_ooc.errors import UsageError
from zipml_ooc.sources import SourceOptions, open_source


def refuse(*paths, **options):
    with pytest.raises(UsageError) as caught:
        open_source(list(paths), SourceOptions(**options))
    return str(caught.value)


def test_what_does_not_exist_is_named(tmp_path):
    assert "missing.csv: no such file" in refuse(str(tmp_path / "missing.csv"))
    assert "no file matches this pattern" in refuse(str(tmp_path / "*.csv"))
    assert "memory://no/such.csv: no such file" in refuse("memory://no/such.csv")
    assert "no file matches this pattern" in refuse("memory://no/*.csv")
    assert "no such file" in refuse(f"file://{tmp_path}/missing.csv")
    assert "no source given" in refuse()


def test_directories_without_readable_files_are_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "holds no parquet file (.parquet, .pq)" in refuse(str(tmp_path))
    fsspec.filesystem("memory").pipe("/dir-without/notes.txt", b"x")
    assert "holds no parquet file" in refuse("memory://dir-without")


def test_a_directory_of_another_format_is_read_with_its_name(tmp_path):
    (tmp_path / "b.csv").write_text("a\n2\n")
    (tmp_path / "a.tsv").write_text("a\n1\n")
    source = open_source([str(tmp_path)], SourceOptions(format="csv"))
    assert [Path(path).name for path in source.paths] == ["a.tsv", "b.csv"]
    fsspec.filesystem("memory").put(str(tmp_path), "/dir-with/", recursive=True)
    remote = open_source(["memory://dir-with"], SourceOptions(format="csv"))
    assert len(remote.paths) == 2
    assert all(path.startswith("memory://") for path in remote.paths)


def test_unknown_and_mixed_formats_are_refused(tmp_path):
    for name in ("a.csv", "b.npy", "c.xyz"):
        (tmp_path / name).write_text("a\n1\n")
    message = refuse(str(tmp_path / "c.xyz"))
    assert "c.xyz: the format cannot be told from the name" in message
    assert "format=" in message
    assert ".parquet" in message
    message = refuse(str(tmp_path / "a.csv"), str(tmp_path / "b.npy"))
    assert "csv (" in message
    assert "npy (" in message
    assert "unknown format 'xls'; choose one of csv, parquet" in refuse("x", format="xls")


def test_a_format_by_name_overrides_the_suffix(tmp_path):
    (tmp_path / "c.xyz").write_text("a\n1\n")
    assert open_source([str(tmp_path / "c.xyz")], SourceOptions(format="csv")).columns == ("a",)


def test_compressed_binary_formats_are_refused(tmp_path):
    (tmp_path / "a.npy.gz").write_bytes(b"")
    assert "decompress it first" in refuse(str(tmp_path / "a.npy.gz"))


def test_urls_that_cannot_be_used_are_refused():
    assert "nope://x.csv" in refuse("nope://x.csv")


def test_a_missing_package_for_a_url_is_named(monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    assert "a package is missing for this kind of URL: Install s3fs" in refuse("s3://b/x.csv")


def test_names_with_glob_characters_are_files_first(tmp_path):
    path = tmp_path / "a[1].csv"
    path.write_text("a\n1\n")
    assert open_source([str(path)]).paths == (str(path),)


def test_one_path_may_stand_alone(tmp_path):
    (tmp_path / "a.csv").write_text("a\n1\n")
    assert open_source(str(tmp_path / "a.csv")).columns == ("a",)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission_are_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    path.chmod(0)
    assert "cannot be opened" in refuse(str(path))
