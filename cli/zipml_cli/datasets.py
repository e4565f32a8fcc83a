"""The commands that make and describe data: compress, info, synth, demo."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from . import options as opt
from .render import (
    number,
    one_line,
    print_facts,
    print_json,
    print_table,
    row_progress,
    size,
    step_progress,
)

if TYPE_CHECKING:
    from zipml_ooc.demo import DemoResult


def compress(
    sources: opt.Sources,
    dest: opt.Destination,
    target: opt.Target = None,
    task: opt.TaskName = opt.Task.AUTO,
    bits: opt.Bits = 4,
    samples: opt.Samples = 2,
    scale: opt.ScaleName = opt.Scale.COLUMN,
    levels: opt.LevelsName = opt.Levels.AUTO,
    layout: opt.LayoutName = opt.Layout.PACKED,
    precisions: opt.Precisions = None,
    standardize: opt.Standardize = True,
    nan: opt.NanPolicy = opt.Nan.ERROR,
    categorical: opt.CategoricalPolicy = opt.Categorical.ERROR,
    weight: opt.Weight = None,
    chunk_rows: opt.ChunkRows = None,
    shard_rows: opt.ShardRows = None,
    seed: opt.Seed = 0,
    zarr_format: opt.ZarrFormat = 3,
    threads: opt.Threads = None,
    workers: opt.CompressWorkers = None,
    scheduler: opt.CompressScheduler = None,
    format_name: opt.FormatName = None,
    x_name: opt.XName = "X",
    y_name: opt.YName = "y",
    header: opt.Header = True,
    delimiter: opt.Delimiter = None,
    force: opt.Force = False,
    resume: opt.Resume = False,
    json: opt.Json = False,
) -> None:
    """Compress a data set to low-precision Zarr.

    The source is streamed twice, so it may be larger than memory. DEST appears when it is whole. A
    run that was interrupted leaves what it wrote beside DEST; the same command with --resume goes
    on there, and with --force starts again.

    \b
    Examples:
      zipml compress houses.csv.gz houses.zarr --target price
      zipml compress 'part-*.parquet' all.zarr --target -1 --bits 3 --workers 4
      zipml compress train.npz s3://bucket/train.zarr --nan mean
      zipml compress train.npz any.zarr --layout weaved --bits 8 --precisions 2,4,8
      zipml compress survey.csv survey.zarr --target income --weight households
      zipml compress houses.csv.gz houses.zarr --target price --resume
    """
    from zipml_ooc import CompressOptions
    from zipml_ooc import compress as run

    began = time.perf_counter()
    compress_options = CompressOptions(
        task=task.value,
        bits=bits,
        samples=samples,
        scale=scale.value,
        levels=levels.value,
        layout=layout.value,
        precisions=opt.listed("--precisions", precisions, int, "1,2,4,8"),
        seed=seed,
        standardize=standardize,
        nan=nan.value,
        categorical=categorical.value,
        weight=weight,
        chunk_rows=chunk_rows,
        shard_rows=shard_rows,
        zarr_format=zarr_format,
        threads=threads,
    )
    source_options = opt.source_options(
        target=target,
        format_name=format_name,
        x_name=x_name,
        y_name=y_name,
        header=header,
        delimiter=delimiter,
    )
    with _saying_how_to_resume(dest), row_progress(json_wanted=json) as progress:
        dataset = run(
            sources,
            dest,
            compress_options,
            source_options=source_options,
            force=force,
            resume=resume,
            workers=workers,
            scheduler=scheduler,
            progress=progress,
        )
    facts = _describe(dataset)
    del facts["per_column"]
    facts["seconds"] = time.perf_counter() - began
    if json:
        print_json(facts)
        return
    print_facts(
        [
            ("wrote", facts["path"]),
            ("data", _shape(facts)),
            ("target", _target(facts)),
            *_weight(facts),
            ("precision", _precision(facts)),
            *_levels(facts),
            ("size", _size(facts)),
            *_readings(facts),
            ("time", f"{facts['seconds']:.1f} s"),
        ]
    )


@contextmanager
def _saying_how_to_resume(dest: str) -> Iterator[None]:
    """Tell of what a run leaves behind that is stopped; errors tell of it themselves."""
    from zipml_ooc import ZipmlError
    from zipml_ooc.partial import partial_of

    try:
        yield
    except ZipmlError:
        raise
    except BaseException:
        if (folder := partial_of(dest)) is not None:
            print(
                one_line(
                    f"zipml: what is written is kept in {folder}; the same command with --resume "
                    "goes on with it"
                ),
                file=sys.stderr,
            )
        raise


def info(
    dataset: opt.DatasetPath,
    columns: opt.ColumnsShown = 20,
    plot: opt.Plot = None,
    plot_columns: opt.PlotColumns = None,
    json: opt.Json = False,
) -> None:
    """Describe a compressed dataset.

    Step (distance of two levels) and variance (of one rounding) are those of the stored values;
    for standardised columns they are relative to the column's own deviation and variance. Fitted
    levels have no step; saved is the part of the variance that equally spaced ones would add.

    \b
    Examples:
      zipml info houses.zarr
      zipml info houses.zarr --columns 5
      zipml info houses.zarr --plot levels.png --plot-columns rooms,income
      zipml info houses.zarr --json
    """
    facts = _describe(dataset)
    drawn: tuple[str, ...] = ()
    if plot is not None:
        from zipml_ooc.level_plot import plot_levels

        names = plot_columns.split(",") if plot_columns is not None else None
        drawn = plot_levels(dataset, plot, names)
    elif plot_columns is not None:
        from zipml_ooc import UsageError

        raise UsageError("--plot-columns goes with --plot FILE: say where the plot goes")
    if json:
        print_json(facts)
        return
    source = facts["source"]
    lines = [
        ("dataset", f"{facts['path']} (Zarr format {facts['zarr_format']})"),
        ("data", _shape(facts)),
        ("target", _target(facts)),
        *_weight(facts),
        ("precision", _precision(facts)),
        *_levels(facts),
        ("size", _size(facts)),
        *_readings(facts),
        ("per value", f"{facts['bytes_per_value']:.4g} bytes"),
        ("chunks", f"{facts['chunks']:,} of up to {facts['chunk_rows']:,} rows"),
        ("seed", str(facts["seed"])),
    ]
    for path, count in zip(source.get("paths", []), source.get("bytes", []), strict=False):
        lines.append(("source", path if count is None else f"{path} ({size(count)})"))
    if drawn:
        lines.append(("plot", f"{plot} ({', '.join(drawn)})"))
    print_facts(lines)
    shown = facts["per_column"][:columns]
    if not shown:
        return
    print()
    fitted = facts["levels"] == "optimal"
    keys = ("min", "max", "mean", "std", *(() if fitted else ("step",)), "variance")
    print_table(
        ["column", *keys, *(["saved"] if fitted else []), "missing"],
        [
            [
                c["name"],
                *(number(c[key]) for key in keys),
                *([_percent(c["saved"])] if fitted else []),
                f"{c['missing']:,}",
            ]
            for c in shown
        ],
    )
    more = facts["columns"] - len(shown)
    if more:
        print(f"and {more:,} more columns (--columns {facts['columns']} shows all)")


def synth(
    dest: opt.SynthDestination,
    kind: opt.KindName = opt.Kind.REGRESSION,
    rows: opt.Rows = 10_000,
    columns: opt.Columns = 100,
    noise: opt.Noise = 0.1,
    condition: opt.Condition = 1.0,
    seed: opt.Seed = 0,
    test_rows: opt.TestRows = 0,
    force: opt.Force = False,
    json: opt.Json = False,
) -> None:
    """Write a synthetic data set of any size.

    \b
    Examples:
      zipml synth train.npz
      zipml synth big.parquet --rows 10000000 --columns 1000
      zipml synth two.csv --kind classification --test-rows 2000
    """
    from zipml_ooc import synth as run

    with row_progress(json_wanted=json) as progress:
        facts = run(
            dest,
            kind=kind.value,
            rows=rows,
            columns=columns,
            seed=seed,
            noise=noise,
            condition=condition,
            test_rows=test_rows,
            force=force,
            progress=lambda done, total: progress("synth", done, total),
        )
    if json:
        print_json(facts)
        return
    lines = [
        ("wrote", f"{facts['path']} ({size(facts['bytes'])})"),
        ("data", f"{_shape(facts)}, {facts['kind']}"),
        ("target", facts["target"]),
    ]
    if test_rows:
        lines.append(("test", f"{facts['test_path']} ({facts['test_rows']:,} rows)"))
    print_facts(lines)


def demo(
    bits: opt.Bits = 4,
    folder: opt.DemoFolder = None,
    seed: opt.Seed = 0,
    threads: opt.Threads = None,
    force: opt.Force = False,
    json: opt.Json = False,
) -> None:
    """Compress and train on a small set, beside the exact answer.

    Makes 20,000 x 100 values and 5,000 test rows, trains on the codes, and compares with least
    squares at full precision. Takes seconds and leaves nothing behind.

    \b
    Examples:
      zipml demo
      zipml demo --bits 2
      zipml demo --dir demo
    """
    from zipml_ooc.demo import DemoOptions, run_demo

    with step_progress(json_wanted=json) as progress:
        result = run_demo(
            folder, DemoOptions(bits=bits, seed=seed), force=force, threads=threads,
            progress=progress,
        )  # fmt: skip
    if json:
        print_json(asdict(result))
    else:
        _print_demo(result)


def _print_demo(result: DemoResult) -> None:
    facts = asdict(result)
    print_facts(
        [
            ("data", f"{_shape(facts)}, and {result.test_rows:,} rows held out for the test"),
            ("precision", _precision(facts)),
            (
                "size",
                f"{size(result.stored_bytes)}, {result.ratio:.2f} times smaller than float32 "
                f"({size(result.float32_bytes)})",
            ),
            (
                "time",
                f"compress {result.compress_seconds:.1f} s, train {result.train_seconds:.1f} s "
                f"({result.epochs} epochs), all {result.seconds:.1f} s",
            ),
        ]
    )
    if result.folder is not None:
        print_facts([("files", result.folder)])
    print()
    models = (
        (f"{result.bits} bits, double sampling", result.low_precision),
        (f"{result.bits} bits, naive", result.naive),
        ("full precision, least squares", result.full_precision),
    )
    print_table(
        ["model", "training loss", "test R2"],
        [[name, number(s.train_loss), number(s.test_r2)] for name, s in models],
    )


def _describe(dataset: Any) -> dict[str, Any]:
    from zipml_ooc import describe

    return describe(dataset)


def _shape(facts: dict[str, Any]) -> str:
    return f"{facts['rows']:,} rows x {facts['columns']:,} columns"


def _target(facts: dict[str, Any]) -> str:
    if not facts["targets"]:
        return "none (to train, compress with --target)"
    names = ", ".join(facts["targets"])
    if facts["classes"] is None:
        return f"{names} ({facts['task']})"
    classes = [repr(c) for c in facts["classes"][:5]]
    more = len(facts["classes"]) - len(classes)
    return f"{names} (classes {', '.join(classes)}{f' and {more} more' if more else ''})"


def _weight(facts: dict[str, Any]) -> list[tuple[str, str]]:
    return [] if facts["weight"] is None else [("weights", facts["weight"])]


def _precision(facts: dict[str, Any]) -> str:
    samples = facts["samples"]
    text = f"{facts['bits']} bits"
    if facts.get("layout") == "weaved":
        text += f" x {samples} samples" if samples > 1 else ""
        text += f", weaved, {facts['stored_bits']} stored"
    elif samples > 1:
        text += f" x {samples} samples, {facts['bits'] + samples.bit_length() - 1} stored"
    if "scale" not in facts:
        return text
    form = "standardised" if facts["standardized"] else "as they are"
    return f"{text}, levels by {facts['scale']}, columns {form}"


def _levels(facts: dict[str, Any]) -> list[tuple[str, str]]:
    if facts["levels"] != "optimal":
        return []
    saved = _percent(facts["variance_saved"])
    text = f"fitted to the columns, tables of {facts['table_bits']} bits"
    best = ", ".join(f"{c['name']} {_percent(c['saved'])}" for c in facts["most_saved"])
    return [("levels", f"{text}; rounding variance {saved} below equal spacing (most: {best})")]


def _readings(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Bytes that training reads at each precision."""
    return [
        (
            f"at {reading['bits']} bit{'s' if reading['bits'] > 1 else ''}",
            f"reads {size(reading['bytes'])}, {_percent(reading['bytes'] / facts['bytes'])}",
        )
        for reading in facts["precisions"]
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _size(facts: dict[str, Any]) -> str:
    return (
        f"{size(facts['bytes'])}, {facts['ratio']:.2f} times smaller than float32 "
        f"({size(facts['float32_bytes'])})"
    )
