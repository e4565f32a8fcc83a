"""The options of `zipml train`, declared as those of the other commands in `options`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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
    REFETCH = "refetch"
    CHEBYSHEV = "chebyshev"


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


class Fallback(StrEnum):
    """What a run may go on with."""

    NATIVE = "native"


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


class OnError(StrEnum):
    """What to do about damaged chunks."""

    RAISE = "raise"
    SKIP = "skip"


class GradientNorm(StrEnum):
    """What the codes of what replicas send refer to."""

    MAX = "max"
    L2 = "l2"


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
        "--gradient",
        help="Gradient estimator; auto: double on two samples and more, corrected on one. naive "
        "ignores the rounding and is biased. chebyshev takes a polynomial for the derivative of "
        "the logistic loss or of the hinge and needs compress --samples 4 or 8. refetch, for the "
        "hinge and fewer --bits than a weaved dataset has: rows whose slope these cannot tell are "
        "read again at all bits.",
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
        "optimum of the stored data; or, for squared or ls-svm up to 4096 columns, one pass and "
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
Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="DIR", help="Save the run there on its way, and when it is stopped."
    ),
]
CheckpointEvery = Annotated[
    str | None,
    typer.Option(
        "--checkpoint-every",
        metavar="30s|5m|1h|N",
        help="How often: by the clock, also within an epoch, or every N epochs.",
        show_default="60s",
    ),
]
CheckpointKeep = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-keep",
        metavar="N",
        help="How many of the newest checkpoints are kept.",
        show_default="2",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on from the newest checkpoint in DIR, or begin if there is none: the model is "
        "that of a run that was never stopped.",
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
SchedulerFile = Annotated[
    Path | None,
    typer.Option(
        "--scheduler-file",
        metavar="FILE",
        help="Likewise, by the file that `dask scheduler --scheduler-file FILE` wrote.",
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="What encoded chunks may take of the memory, such as 512MB; local workers divide it.",
        show_default="a quarter of it",
    ),
]
OnErrorName = Annotated[
    OnError,
    typer.Option(
        "--on-error",
        help="Chunks that are missing or damaged: raise ends with an error; skip reads all chunks "
        "once before the run, and leaves out the rows of these.",
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="What computes the steps; `zipml executors` lists what there is.",
    ),
]
FallbackName = Annotated[
    Fallback | None,
    typer.Option(
        "--fallback",
        help="What goes on where the executor's device is lost on the way.",
        show_default="nothing: that is an error",
    ),
]
