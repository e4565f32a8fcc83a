"""Read any source as a stream of row blocks, with memory for a few blocks only.

`open_source` takes files, globs, directories and URLs in CSV, Parquet, npy, npz, svmlight, HDF5
or Zarr and returns a `Source`. What a reader cannot use is refused with the place and a remedy;
what to do about missing values or text columns is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from zipml_ooc.sources.base import Block, Source, SourceOptions

__all__ = ["Block", "Source", "SourceOptions", "open_source"]

_DEFAULTS = SourceOptions()


def open_source(paths: Sequence[str], options: SourceOptions = _DEFAULTS) -> Source:
    """Open a data set without reading it.

    Only what tells the columns is read: a first block, a footer, a header. svmlight data are the
    exception: finding the number of features takes a pass over them.

    Parameters
    ----------
    paths
        Files, local globs, directories of Parquet files, Zarr directories or fsspec URLs; several
        are read one after the other.
    options
        Which columns to read and how.

    Raises
    ------
    UsageError
        The request does not fit the source: a missing file or column, an unknown format.
    DataError
        The source cannot be used: it is empty, damaged or of a type that is not numbers or text.

    Examples
    --------
    >>> source = open_source(["flights-*.csv"], SourceOptions(target=("delay",)))  # doctest: +SKIP
    >>> for block in source.blocks(10_000):  # doctest: +SKIP
    ...     print(block.first_row, block.features.num_rows)
    """
    # The formats bring in heavy packages; only the one that is needed is imported.
    from zipml_ooc.sources.files import resolve_files

    files, kind = resolve_files([paths] if isinstance(paths, str) else paths, options.format)
    if kind == "svmlight":
        from zipml_ooc.sources.svmlight import SvmlightSource

        return SvmlightSource(files, options)
    if kind in ("csv", "parquet"):
        from zipml_ooc.sources.tables import TableReader, TableSource

        reader: TableReader
        if kind == "csv":
            from zipml_ooc.sources.delimited import CsvReader

            reader = CsvReader(files, options)
        else:
            from zipml_ooc.sources.parquet import ParquetReader

            reader = ParquetReader(files)
        return TableSource(reader, options)

    from zipml_ooc.sources.arrays import ArraySource

    if kind == "hdf5":
        from zipml_ooc.sources.hdf5 import describe_hdf5 as describe
    elif kind == "zarr":
        from zipml_ooc.sources.zarr_arrays import describe_zarr as describe
    elif kind == "npz":
        from zipml_ooc.sources.npy import describe_npz as describe
    else:
        from zipml_ooc.sources.npy import describe_npy as describe
    return ArraySource([describe(file, options) for file in files], options)
