"""Every option and argument that a command takes, declared once.

The allowed names repeat those of the library, so that help and completion need not import it; a
test compares them. Numbers are the library's to judge.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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


class Loss(StrEnum):
    """Losses."""

    AUTO = "auto"
    SQUARED = "squared"
    HUBER = "huber"
    LOGISTIC = "logistic"
    HINGE = "hinge"
    SQUARED_HINGE = "squared-hinge"
    LS_SVM = "ls-svm"
    SOFTMAX = "softmax"


class ClassWeight(StrEnum):
    """Weights of classes."""

    NONE = "none"
    BALANCED = "balanced"


class Multiclass(StrEnum):
    """What to do with three and more classes."""

    AUTO = "auto"
    OVR = "ovr"
    SOFTMAX = "softmax"


class Sampling(StrEnum):
    """Gradient estimators."""

    AUTO = "auto"
    DOUBLE = "double"
    CORRECTED = "corrected"
    NAIVE = "naive"


class DoubleForm(StrEnum):
    """Forms of double sampling."""

    MEAN = "mean"
    SPLIT = "split"


class Arithmetic(StrEnum):
    """What codes are multiplied by."""

    AUTO = "auto"
    FLOAT = "float"
    INT16 = "int16"
    INT8 = "int8"


class Solver(StrEnum):
    """Ways to the model."""

    SGD = "sgd"
    SVRG = "svrg"
    GRAM = "gram"


class Schedule(StrEnum):
    """How the step size changes."""

    AUTO = "auto"
    CONSTANT = "constant"
    INVERSE = "inverse"
    COSINE = "cosine"
    ONE_CYCLE = "1cycle"
    LINEAR = "linear"


class GradientNorm(StrEnum):
    """What the codes of what replicas send refer to."""

    MAX = "max"
    L2 = "l2"


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
    str, typer.Argument(metavar="DATASET", help="A dataset made by zipml compress.")
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


# zipml compress

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="Files, globs, folders or URLs of one format: CSV, Parquet, npy, npz, svmlight, "
        "HDF5, Zarr.",
    ),
]
Destination = Annotated[str, typer.Argument(metavar="DEST", help="Where the Zarr group goes.")]
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
        help="Roundings of a value, 1 or 2; 2 is double sampling and takes one bit more.",
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

# zipml train

ModelOut = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="Where the model goes; not saved without it."),
]
LossName = Annotated[
    Loss,
    typer.Option(
        "--loss",
        help="squared and huber take numbers, the others classes; auto: logistic for classes, "
        "squared for numbers.",
    ),
]
MulticlassName = Annotated[
    Multiclass,
    typer.Option(
        "--multiclass",
        help="Three and more classes: each against the rest, or all together; auto: softmax for "
        "the logistic loss, else ovr.",
    ),
]
ClassWeightName = Annotated[
    ClassWeight,
    typer.Option(
        "--class-weight",
        help="balanced: rows of rare classes count more, rows / (classes * rows of the class).",
    ),
]
HuberDelta = Annotated[
    float,
    typer.Option(
        "--huber-delta",
        metavar="NUMBER",
        help="Where Huber's loss becomes linear, in standard deviations of the target.",
    ),
]
L1 = Annotated[
    float,
    typer.Option(
        "--l1",
        metavar="NUMBER",
        help="Strength of the penalty l1 * |coefficients|: some become zero. With --l2 the "
        "elastic net.",
    ),
]
L2 = Annotated[
    float,
    typer.Option(
        "--l2", metavar="NUMBER", help="Strength of the penalty l2 / 2 * |coefficients|**2."
    ),
]
SamplingName = Annotated[
    Sampling,
    typer.Option(
        "--sampling",
        help="Gradient estimator; auto: double on two samples, corrected on one. naive ignores "
        "the rounding and is biased.",
    ),
]
DoubleFormName = Annotated[
    DoubleForm,
    typer.Option("--double-form", help="split is the paper's form, mean has less noise."),
]
ReadBits = Annotated[
    str | None,
    typer.Option(
        "--bits",
        metavar="N|N:N:...|auto",
        help="Bits to read of a dataset with --layout weaved: only their planes are fetched. "
        "2:4:8 reads each for an equal part of the run; auto goes on from the lowest where the "
        "loss stalls.",
        show_default="all",
    ),
]
ArithmeticName = Annotated[
    Arithmetic,
    typer.Option(
        "--arithmetic",
        help="What codes are multiplied by. int16 and int8 round model and residuals "
        "stochastically: faster on wide tables, and noisier. auto: int16 from 32 columns on.",
    ),
]
SolverName = Annotated[
    Solver,
    typer.Option(
        "--solver",
        help="Mini-batch SGD; SGD with a full gradient in each epoch, which converges to the "
        "optimum of the stored data; or, for the squared loss up to 4096 columns, one pass and "
        "the solution itself.",
    ),
]
FullGradientBits = Annotated[
    int | None,
    typer.Option(
        "--full-gradient-bits",
        metavar="N",
        help="With --solver svrg and a dataset of the weaved layout: read the full gradients at "
        "so many bits, and the steps at --bits.",
        show_default="as --bits",
    ),
]
L2Path = Annotated[
    str | None,
    typer.Option(
        "--l2-path",
        metavar="LIST",
        help="With --solver gram and --validation: strengths of the L2 penalty, separated by "
        "commas, of which the best is kept.",
    ),
]


def numbers(name: str, text: str | None) -> tuple[float, ...]:
    """Numbers separated by commas."""
    from zipml_ooc import UsageError

    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(
            f"{name} takes numbers separated by commas, such as 0,1e-4,1e-2; got {text!r}"
        ) from None


def whole_numbers(name: str, text: str | None) -> tuple[int, ...]:
    """Whole numbers separated by commas."""
    from zipml_ooc import UsageError

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(
            f"{name} takes whole numbers separated by commas, such as 1,2,4; got {text!r}"
        ) from None


Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs",
        metavar="N",
        help="Passes over the data.",
        show_default="5 to 200, by the rows",
    ),
]
BatchRows = Annotated[int, typer.Option("--batch-rows", metavar="N", help="Rows of a mini-batch.")]
StepSize = Annotated[
    float | None,
    typer.Option("--step-size", metavar="NUMBER", help="Step size.", show_default="from the data"),
]
Shrinkage = Annotated[
    float | None,
    typer.Option(
        "--shrinkage",
        metavar="NUMBER",
        help="Part of the correction to apply, 0 to 1.",
        show_default="from the data",
    ),
]
ScheduleName = Annotated[
    Schedule,
    typer.Option(
        "--schedule",
        help="How the step changes over the run; auto: linear, which is constant over the first "
        "half and then falls, and constant for svrg.",
    ),
]
Momentum = Annotated[
    float,
    typer.Option(
        "--momentum",
        metavar="NUMBER",
        help="Weight of the gradients before in a step, 0 up to 1.",
    ),
]
Average = Annotated[
    bool, typer.Option("--average/--no-average", help="Average the models of the second half.")
]
Validation = Annotated[
    float,
    typer.Option("--validation", metavar="NUMBER", help="Part of the rows to hold out, 0 up to 1."),
]
Patience = Annotated[
    int | None,
    typer.Option(
        "--patience",
        metavar="N",
        help="Stop after so many epochs without a better validation loss.",
        show_default="never",
    ),
]
Intercept = Annotated[bool, typer.Option("--intercept/--no-intercept", help="Fit an intercept.")]
ModelBits = Annotated[
    int | None,
    typer.Option(
        "--model-bits",
        metavar="N",
        help="Bits of the model inside the kernels, 8, 16 or 32: as --arithmetic int8, int16, "
        "float.",
        show_default="as --arithmetic",
    ),
]
GradientBits = Annotated[
    int,
    typer.Option(
        "--gradient-bits",
        metavar="N",
        help="Bits of a number that replicas send after a round, 2 to 8; 32: no rounding.",
    ),
]
GradientNormName = Annotated[
    GradientNorm,
    typer.Option(
        "--gradient-norm",
        help="What the largest code of 512 such numbers stands for: the largest of them, or "
        "their Euclidean norm.",
    ),
]
Replicas = Annotated[
    int | None,
    typer.Option(
        "--replicas",
        metavar="N",
        help="Copies of the model that advance side by side.",
        show_default="1 to 8, by the size of the data",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers", metavar="N", help="Train on so many local processes instead of threads."
    ),
]


Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        metavar="ADDRESS",
        help="Train on a running Dask cluster (tcp://...).",
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
