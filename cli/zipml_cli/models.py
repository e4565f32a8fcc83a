"""The commands that make and use models: train, evaluate, predict."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options as opt
from . import train_options as fit
from .executor_options import ExecutorOptions, pairs
from .render import (
    epoch_progress,
    executed,
    number,
    print_facts,
    print_json,
    refetched,
    row_progress,
    say,
)

if TYPE_CHECKING:
    from zipml_ooc import Checkpoints
    from zipml_ooc.training import EpochRecord, TrainingError

# Damaged chunks that are told one by one.
_REASONS = 3


def train(
    dataset: opt.DatasetPath,
    out: fit.ModelOut = None,
    loss: fit.LossName = fit.Loss.AUTO,
    multiclass: fit.MulticlassName = fit.Multiclass.AUTO,
    huber_delta: fit.HuberDelta = 1.345,
    class_weight: fit.ClassWeightName = fit.ClassWeight.NONE,
    l1: fit.L1 = 0.0,
    l2: fit.L2 = 0.0,
    sampling: fit.SamplingName = fit.Sampling.AUTO,
    double_form: fit.DoubleFormName = fit.DoubleForm.MEAN,
    arithmetic: fit.ArithmeticName = fit.Arithmetic.AUTO,
    bits: fit.ReadBits = None,
    solver: fit.SolverName = fit.Solver.SGD,
    full_gradient_bits: fit.FullGradientBits = None,
    l2_path: fit.L2Path = None,
    epochs: fit.Epochs = None,
    batch_rows: fit.BatchRows = 64,
    step_size: fit.StepSize = None,
    shrinkage: fit.Shrinkage = None,
    schedule: fit.ScheduleName = fit.Schedule.AUTO,
    momentum: fit.Momentum = 0.0,
    average: fit.Average = True,
    validation: fit.Validation = 0.0,
    patience: fit.Patience = None,
    intercept: fit.Intercept = True,
    model_bits: fit.ModelBits = None,
    gradient_bits: fit.GradientBits = 32,
    gradient_norm: fit.GradientNormName = fit.GradientNorm.MAX,
    replicas: fit.Replicas = None,
    seed: opt.Seed = 0,
    executor: fit.ExecutorName = "native",
    executor_option: ExecutorOptions = None,
    fallback: fit.FallbackName = None,
    threads: opt.Threads = None,
    workers: fit.Workers = None,
    scheduler: fit.Scheduler = None,
    scheduler_file: fit.SchedulerFile = None,
    memory: fit.Memory = None,
    on_error: fit.OnErrorName = fit.OnError.RAISE,
    checkpoint: fit.Checkpoint = None,
    checkpoint_every: fit.CheckpointEvery = None,
    checkpoint_keep: fit.CheckpointKeep = None,
    resume: fit.Resume = False,
    force: opt.Force = False,
    json: opt.Json = False,
) -> None:
    """Train a linear model on a compressed dataset.

    The model is the same on any number of threads, workers or machines. A run
    that diverges ends with exit code 1; with --out FILE.zipml its last good
    model is kept in FILE.last-good.zipml.

    With --checkpoint, Ctrl-C and kill (SIGTERM) save the run before it ends with
    exit code 130 or 143; the same command with --resume goes on.

    \b
    Examples:
      zipml train houses.zarr --out houses.zipml
      zipml train houses.zarr --out houses.zipml --l2 1e-3 --force
      zipml train houses.zarr --out sparse.zipml --l1 0.01
      zipml train houses.zarr --solver gram --l2-path 0,1e-4,1e-2 --validation 0.1
      zipml train houses.zarr --out houses.zipml --loss huber --huber-delta 1
      zipml train digits.zarr --out digits.zipml --loss squared-hinge
      zipml train houses.zarr --validation 0.1 --patience 3 --json
      zipml train big.zarr --out big.zipml --memory 512MB
      zipml train labels.zarr --gradient chebyshev
      zipml train labels.zarr --loss hinge --gradient chebyshev
      zipml train weaved.zarr --bits 2
      zipml train weaved.zarr --bits 2:4:8
      zipml train weaved.zarr --loss hinge --bits 4 --gradient refetch
      zipml train s3://bucket/weaved.zarr --bits 4 --out houses.zipml
      zipml train houses.zarr --out houses.zipml --arithmetic int8 --batch-rows 256
      zipml train big.zarr --out big.zipml --checkpoint big.run --checkpoint-every 5m
      zipml train big.zarr --out big.zipml --checkpoint big.run --resume
      zipml train /shared/big.zarr --out big.zipml --scheduler tcp://10.0.0.5:8786 --gradient-bits 8
      zipml train s3://bucket/big.zarr --out big.zipml --scheduler-file /shared/scheduler.json
      zipml train uniform.zarr --executor fpga-rtl --executor-option exponent=14 --epochs 2
      zipml train uniform.zarr --executor fpga-emulator --executor-option profile=harp
    """
    from zipml_ooc import TrainOptions
    from zipml_ooc import train as run
    from zipml_ooc.training import TrainingError

    train_options = TrainOptions(
        loss=loss.value,
        multiclass=multiclass.value,
        huber_delta=huber_delta,
        class_weight=class_weight.value,
        l1=l1,
        l2=l2,
        sampling=sampling.value,
        double_form=double_form.value,
        arithmetic=arithmetic.value,
        bits=bits,
        solver=solver.value,
        full_gradient_bits=full_gradient_bits,
        l2_path=opt.listed("--l2-path", l2_path, float, "0,1e-4,1e-2"),
        epochs=epochs,
        batch_rows=batch_rows,
        step_size=step_size,
        shrinkage=shrinkage,
        schedule=schedule.value,
        momentum=momentum,
        average=average,
        validation=validation,
        patience=patience,
        fit_intercept=intercept,
        on_error=on_error.value,
        model_bits=model_bits,
        gradient_bits=gradient_bits,
        gradient_norm=gradient_norm.value,
        replicas=replicas,
        seed=seed,
        executor=executor,
        executor_options=pairs(executor_option),
        fallback=None if fallback is None else fallback.value,
    )
    if out is not None:
        _check_model_file(out, force=force)
    checkpoints = _checkpoints(
        checkpoint, every=checkpoint_every, keep=checkpoint_keep, resume=resume, force=force
    )
    # Said of the port of a dashboard that nobody asked for.
    warnings.filterwarnings("ignore", r"\s*Port \d+ is already in use", UserWarning)
    with epoch_progress(json_wanted=json) as progress:
        try:
            result = run(
                dataset,
                train_options,
                threads=threads,
                workers=workers,
                scheduler=scheduler,
                memory=memory,
                scheduler_file=scheduler_file,
                checkpoints=checkpoints,
                progress=progress,
                notice=say,
            )
        except TrainingError as error:
            raise _with_last_good(error, out, force=force) from None
    model, record = result.model, result.model.record
    if out is not None:
        model.save(out)
    if json:
        print_json(
            {
                "epochs": [_epoch(epoch) for epoch in result.epochs],
                "loss": result.loss,
                "validation_loss": result.validation_loss,
                "seconds": result.seconds,
                "model": None if out is None else str(out),
                "rows": record["rows"],
                "columns": len(model.columns),
                "step_size": record["step_size"],
                "shrinkage": record["shrinkage"],
                "sampling": record["sampling"],
                "arithmetic": record["arithmetic"],
                "solver": record["solver"],
                "skipped": result.skipped.to_dict(),
                "l2_path": [asdict(point) for point in result.l2_path],
            }
            | {key: record[key] for key in ("polynomial", "executor") if key in record}
            | ({} if result.counters is None else {"counters": result.counters.to_dict()})
        )
        return
    facts = [
        ("data", f"{record['rows']:,} rows x {len(model.columns):,} columns"),
        (
            "method",
            f"{model.loss} loss, {record['sampling']} sampling, "
            + (
                "solved from second moments"
                if record["solver"] == "gram"
                else f"{record['solver']}, {record['arithmetic']} arithmetic"
            ),
        ),
        ("step size", "none" if record["solver"] == "gram" else number(record["step_size"])),
        ("shrinkage", number(record["shrinkage"])),
        *_polynomial(record),
        *executed(record, result),
        ("epochs", f"{len(result.epochs)} in {result.seconds:.1f} s"),
        ("loss", number(result.loss)),
    ]
    if result.epochs and result.epochs[0].refetch_rate is not None:
        facts.append(("refetched", refetched(result.epochs)))
    if result.skipped.chunks:
        count, rows = len(result.skipped.chunks), result.skipped.rows
        facts.append(("skipped", f"{count:,} damaged chunk(s) with {rows:,} rows"))
        facts.extend(("", reason) for reason in result.skipped.reasons[:_REASONS])
    if result.validation_loss is not None:
        facts.append(("validation", number(result.validation_loss)))
    for point in result.l2_path:
        there = number(point.validation_loss)
        facts.append((f"l2 {point.l2:g}", f"loss {number(point.loss)}, validation {there}"))
    facts.append(("model", "not saved (--out FILE saves it)" if out is None else str(out)))
    print_facts(facts)


def _epoch(record: EpochRecord) -> dict[str, Any]:
    """An epoch, with counters where there are any."""
    plain = asdict(record)
    counters = plain.pop("counters")
    return plain if counters is None else plain | {"counters": counters}


def _polynomial(record: dict[str, Any]) -> list[tuple[str, str]]:
    """How near the derivative of the loss the polynomial in its place is."""
    if "polynomial" not in record:
        return []
    found = record["polynomial"]
    middle = f"{number(found['centre'])} " if found.get("centre") else ""
    text = f"degree {found['degree']} on margins of {middle}+-{number(found['range'])}"
    text += f", off by at most {number(found['error'])}"
    if "band" in found:
        text += f" beyond {number(found['band'])} of the kink"
    if found.get("pull") is not None:
        text += f"; rows {number(found['pull'])} where it matters, {number(found['deviation'])} of"
        text += f" noise, {found['outside']:.1%} outside"
        if not found["suits"]:
            text += "; none suits margins that rounding moves so far: use more bits or --samples 8"
    elif found["rms_error"] is not None:
        text += f"; rows {number(found['rms_error'])} in the rms, {found['outside']:.1%} outside"
    return [("polynomial", text)]


def evaluate(
    model: opt.ModelPath,
    data: opt.Data,
    target: opt.Target = None,
    format_name: opt.FormatName = None,
    x_name: opt.XName = "X",
    y_name: opt.YName = "y",
    header: opt.Header = True,
    delimiter: opt.Delimiter = None,
    json: opt.Json = False,
) -> None:
    """Score a model on data whose target is known.

    Numbers get R2, RMSE and MAE, classes accuracy, log loss and AUC. A
    compressed dataset is scored as it is stored, rounding noise included: for
    the quality of the model, score raw data.

    \b
    Examples:
      zipml evaluate houses.zipml houses-test.csv
      zipml evaluate houses.zipml houses.zarr --json
    """
    from zipml_ooc import evaluate as run

    source_options = opt.source_options(
        target=target,
        format_name=format_name,
        x_name=x_name,
        y_name=y_name,
        header=header,
        delimiter=delimiter,
    )
    with row_progress(json_wanted=json) as progress:
        scores = run(
            model,
            data,
            source_options=source_options,
            progress=lambda done, total: progress("evaluate", done, total),
        )
    if json:
        print_json(scores)
        return
    labels = {
        "r2": "R2",
        "rmse": "RMSE",
        "mae": "MAE",
        "accuracy": "accuracy",
        "log_loss": "log loss",
        "auc": "AUC",
    }
    print_facts(
        [
            ("rows", f"{scores['rows']:,}"),
            *((labels[key], number(value)) for key, value in scores.items() if key in labels),
        ]
    )


def predict(
    model: opt.ModelPath,
    data: opt.Data,
    out: opt.PredictionsOut,
    target: opt.Target = None,
    format_name: opt.FormatName = None,
    x_name: opt.XName = "X",
    y_name: opt.YName = "y",
    header: opt.Header = True,
    delimiter: opt.Delimiter = None,
    force: opt.Force = False,
    json: opt.Json = False,
) -> None:
    """Write a model's predictions for data.

    The data need no target. Tables get a column for each target, and where the
    loss knows probabilities that of the second of two classes, or of all.

    \b
    Examples:
      zipml predict houses.zipml new-houses.csv --out prices.csv
      zipml predict houses.zipml 'new-*.parquet' --out prices.parquet --force
    """
    from zipml_ooc import predict as run

    source_options = opt.source_options(
        target=target,
        format_name=format_name,
        x_name=x_name,
        y_name=y_name,
        header=header,
        delimiter=delimiter,
    )
    with row_progress(json_wanted=json) as progress:
        result = run(
            model,
            data,
            out,
            source_options=source_options,
            force=force,
            progress=lambda done, total: progress("predict", done, total),
        )
    if json:
        print_json(result)
    else:
        print_facts([("wrote", result["path"]), ("rows", f"{result['rows']:,}")])


def _with_last_good(error: TrainingError, out: Path | None, *, force: bool) -> TrainingError:
    """Save the last good model beside where the model would have gone, and say so."""
    if error.model is None or out is None:
        return error
    place = out.with_name(f"{out.stem}.last-good{out.suffix}")
    if place.exists() and not force:
        return type(error)(f"{error}; the last good model is not saved, for {place} exists")
    error.model.save(place)
    return type(error)(f"{error}; the last good model is in {place}", error.model)


def _checkpoints(
    folder: str | None, *, every: str | None, keep: int | None, resume: bool, force: bool
) -> Checkpoints | None:
    from zipml_ooc import Checkpoints, UsageError

    if folder is None:
        given = {
            "--checkpoint-every": every is not None,
            "--checkpoint-keep": keep is not None,
            "--resume": resume,
        }
        names = [name for name, there in given.items() if there]
        if names:
            raise UsageError(f"{names[0]} needs the folder of the run: add --checkpoint DIR")
        return None
    return Checkpoints(
        folder,
        "60s" if every is None else every,
        2 if keep is None else keep,
        resume=resume,
        overwrite=force,
    )


def _check_model_file(path: Path, *, force: bool) -> None:
    """Refuse, before an hour of training, a place where the model cannot go."""
    from zipml_ooc import UsageError

    if path.is_dir():
        raise UsageError(f"{path} is a folder: give the name of a file in it")
    if path.exists() and not force:
        raise UsageError(f"{path} exists: choose another name or use --force")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"the folder {path.absolute().parent} does not exist")
