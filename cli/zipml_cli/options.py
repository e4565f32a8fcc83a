"""Every option and argument that a command takes, declared once; those of training: train_options.

The allowed names repeat those of the library, so that help and completion need not import it; a
test compares them. Numbers are the library's to judge.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from zipml_ooc import SourceOptions


class Task(StrEnum):
    """What the target is."""

    AUTO = "auto"
    REGRESSION = "regression"
    CLASSIFICATION = "classification"


class Scale(StrEnum):
    """What the outer levels span."""

    COLUMN = "column"
    ROW = "row"
    ROW_L2 = "row-l2"


class Levels(StrEnum):
    """How levels are spaced."""

    AUTO = "auto"
    UNIFORM = "uniform"
    OPTIMAL = "optimal"


class Layout(StrEnum):
    """How the bits of codes lie."""

    PACKED = "packed"
    WEAVED = "weaved"


class Nan(StrEnum):
    """What to do with missing values."""

    ERROR = "error"
    MEAN = "mean"


class Categorical(StrEnum):
    """What to do with text columns."""

    ERROR = "error"
    ONE_HOT = "one-hot"


class Format(StrEnum):
    """Formats of sources."""

    CSV = "csv"
    PARQUET = "parquet"
    NPY = "npy"
    NPZ = "npz"
    SVMLIGHT = "svmlight"
    HDF5 = "hdf5"
    ZARR = "zarr"


class Kind(StrEnum):
    """Synthetic sets."""

    REGRESSION = "regression"
    CLASSIFICATION = "classification"


# Shared by several commands.

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
Seed = Annotated[
    int,
    typer.Option("--seed", metavar="N", help="Random seed; the same seed gives the same bytes."),
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", help="Threads.", show_default="one for each core"),
]
Bits = Annotated[
    int, typer.Option("--bits", metavar="N", help="Bits of a value, 1 to 8: 2**bits levels.")
]
DatasetPath = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="A dataset made by zipml compress: a folder, a Zip file of one, or a URL.",
    ),
]
DatasetFolder = Annotated[
    str, typer.Argument(metavar="DATASET", help="A dataset made by zipml compress: a folder.")
]
ModelPath = Annotated[str, typer.Argument(metavar="MODEL", help="A model made by zipml train.")]
Data = Annotated[
    list[str],
    typer.Argument(metavar="DATA", help="A compressed dataset, or sources as for zipml compress."),
]

# How to read a source.

Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME|INDEX",
        help="Target column by name or number (-1: the last one); repeat it for several.",
    ),
]
FormatName = Annotated[
    Format | None,
    typer.Option("--format", help="Format of the source.", show_default="from the file name"),
]
XName = Annotated[
    str, typer.Option("--x-name", metavar="NAME", help="Array of features (npz, HDF5, Zarr).")
]
YName = Annotated[
    str, typer.Option("--y-name", metavar="NAME", help="Array of targets (npz, HDF5, Zarr).")
]
Header = Annotated[
    bool, typer.Option("--header/--no-header", help="CSV: the first line holds the names.")
]
Delimiter = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        metavar="CHARACTER",
        help="CSV: what separates fields; 'tab' is a tab.",
        show_default="a comma; in .tsv a tab",
    ),
]


def source_options(
    *,
    target: list[str] | None,
    format_name: Format | None,
    x_name: str,
    y_name: str,
    header: bool,
    delimiter: str | None,
) -> SourceOptions:
    """The library's form of the options of a source."""
    from zipml_ooc import SourceOptions

    return SourceOptions(
        target=tuple(target or ()),
        format=format_name and format_name.value,
        x_name=x_name,
        y_name=y_name,
        header=header,
        delimiter="\t" if delimiter in ("tab", "\\t") else delimiter,
    )


_Number = TypeVar("_Number", int, float)


def listed(
    name: str, text: str | None, kind: Callable[[str], _Number], example: str
) -> tuple[_Number, ...]:
    """Numbers of a kind, separated by commas."""
    from zipml_ooc import UsageError

    try:
        return tuple(kind(part) for part in text.split(",")) if text else ()
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise UsageError(
            f"{name} takes {what} separated by commas, such as {example}; got {text!r}"
        ) from None


# zipml compress

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files, globs, folders or URLs of one format: CSV, Parquet, npy, npz, svmlight, "
        "HDF5, Zarr.",
    ),
]
Destination = Annotated[
    str, typer.Argument(metavar="DEST", help="Where the Zarr group goes: a folder or a URL.")
]
TaskName = Annotated[
    Task,
    typer.Option(
        "--task", help="What the target is; auto takes text and two different values as classes."
    ),
]
Samples = Annotated[
    int,
    typer.Option(
        "--samples",
        metavar="N",
        help="Roundings of a value, 1, 2, 4 or 8; 2 is double sampling and takes one bit more, "
        "4 and 8 take two and three.",
    ),
]
ScaleName = Annotated[
    Scale, typer.Option("--scale", help="Spread the levels over each column or each row.")
]
LevelsName = Annotated[
    Levels,
    typer.Option(
        "--levels",
        help="Space the levels equally, or fit them to each column for the least rounding "
        "variance; auto: fitted from 2 to 4 bits with --scale column.",
    ),
]
LayoutName = Annotated[
    Layout,
    typer.Option(
        "--layout",
        help="packed: read at --bits. weaved: each bit in a plane of its own, so that training "
        "reads any of --precisions from one copy, and fetches no more.",
    ),
]
Precisions = Annotated[
    str | None,
    typer.Option(
        "--precisions",
        metavar="LIST",
        help="With --layout weaved: numbers of bits to train at, separated by commas.",
        show_default="1,2,4,8, as far as --bits goes",
    ),
]
Standardize = Annotated[
    bool,
    typer.Option(
        "--standardize/--no-standardize",
        help="Store columns with mean 0 and standard deviation 1.",
    ),
]
NanPolicy = Annotated[
    Nan, typer.Option("--nan", help="Refuse missing values, or take the column's mean.")
]
CategoricalPolicy = Annotated[
    Categorical,
    typer.Option("--categorical", help="Refuse text columns, or make one column a value."),
]
Weight = Annotated[
    str | None,
    typer.Option(
        "--weight",
        metavar="NAME",
        help="Numeric column that says how often each row counts in training.",
        show_default="every row counts once",
    ),
]
ChunkRows = Annotated[
    int | None,
    typer.Option(
        "--chunk-rows",
        metavar="N",
        help="Rows of a chunk.",
        show_default="about four million values",
    ),
]
CompressWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        help="Read and encode in so many local processes instead of threads (npy, HDF5, Zarr, "
        "Parquet).",
    ),
]
CompressScheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Read and encode on a running Dask cluster (tcp://...).",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on where an interrupted run with the same source and options stopped.",
    ),
]
ShardRows = Annotated[
    int | None,
    typer.Option(
        "--shard-rows",
        metavar="N",
        help="Rows of a shard, a file that holds several chunks; 0: a file for each chunk.",
        show_default="shards of about 128 MB above 64 chunks",
    ),
]
ZarrFormat = Annotated[
    int, typer.Option("--zarr-format", metavar="N", help="Zarr format to write, 2 or 3.")
]

# zipml info

ColumnsShown = Annotated[
    int, typer.Option("--columns", metavar="N", min=0, help="Columns in the table; 0 shows none.")
]
Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        metavar="FILE",
        help="Draw levels over the stored values, to a PNG, SVG or PDF file. Needs matplotlib.",
        show_default="not drawn",
    ),
]
PlotColumns = Annotated[
    str | None,
    typer.Option(
        "--plot-columns",
        metavar="NAMES",
        help="Columns to draw, separated by commas.",
        show_default="the three whose fitted levels save most",
    ),
]

# zipml repair

RepairSources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="SOURCE",
        help="What the dataset was compressed from; repeat it for several files.",
    ),
]

# zipml predict

PredictionsOut = Annotated[
    Path,
    typer.Option("--out", metavar="FILE", help="A .csv, .parquet or .npy file to write."),
]

# zipml synth

SynthDestination = Annotated[
    str,
    typer.Argument(
        metavar="DEST", help="A .npz, .npy, .csv, .csv.gz or .parquet file, or a .zarr group."
    ),
]
KindName = Annotated[Kind, typer.Option("--kind", help="What the target is.")]
Rows = Annotated[int, typer.Option("--rows", metavar="N", help="Rows.")]
Columns = Annotated[int, typer.Option("--columns", metavar="N", help="Feature columns.")]
Noise = Annotated[
    float, typer.Option("--noise", metavar="NUMBER", help="Noise of the target beside the signal.")
]
Condition = Annotated[
    float,
    typer.Option(
        "--condition", metavar="NUMBER", help="Largest variance of a column over the smallest."
    ),
]
TestRows = Annotated[
    int,
    typer.Option("--test-rows", metavar="N", help="Further rows for a second file, DEST-test."),
]

# zipml demo

DemoFolder = Annotated[
    Path | None,
    typer.Option(
        "--dir", metavar="FOLDER", help="Keep the files here.", show_default="remove them"
    ),
]
