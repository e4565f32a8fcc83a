"""What more workers bring: speed, the cost of a round, and the work of the scheduler.

Three parts. `speed`: the same training on one thread and on 1, 2 and 4 worker processes, with the
model's bytes compared. `round`: windows of one tile, so that a round is nearly all overhead. And
`scheduler`: a scheduler in a process of its own and 64 workers in one other, tiny windows; what
counts is the processor time of the scheduler. docs/scaling.md draws the conclusions.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from zipml_ooc import CompressOptions, Dataset, TrainOptions, compress, train
from zipml_ooc.training import laps
from zipml_ooc.training.passes import Passes
from zipml_ooc.training.plan import Plan, make_plan
from zipml_ooc.training.problem import make_problem
from zipml_ooc.training.reading import Reading
from zipml_ooc.training.replicas import initial_state
from zipml_ooc.training.run import Run
from zipml_ooc.training.runner import Runner, open_runner
from zipml_ooc.training.tasks import Job, advance

from .machine import about_machine, machine

REPLICAS, MANY = 8, 64
EPOCHS = 6  # the first one fills caches and is left out


def table(folder: Path, *, rows: int, columns: int, classes: int = 0) -> Dataset:
    """Independent columns; a linear target, or the class of the largest of some."""
    random = np.random.default_rng(0)
    x = random.standard_normal((rows, columns), np.float32)
    scores = x @ random.standard_normal((columns, max(classes, 1)), np.float32)
    y: Any = scores[:, 0]
    if classes:
        y = np.array([f"class {c}" for c in range(classes)])[scores.argmax(1)]
    source = folder / f"{rows}x{columns}.npz"
    np.savez(source, X=x, y=y)
    dataset = compress(source, folder / f"{rows}x{columns}.zarr", CompressOptions(bits=4))
    source.unlink()
    return dataset


def speed(folder: Path, workers: list[int], rows: int) -> dict[str, Any]:
    """Seconds of an epoch, and whether all models are the same file."""
    dataset = table(folder, rows=rows, columns=100, classes=10)
    options = TrainOptions(
        epochs=EPOCHS, replicas=REPLICAS, arithmetic="float", double_form="split",
        step_size=0.05, shrinkage=0.5,
    )  # fmt: skip
    out: dict[str, Any] = {"rows": rows, "columns": 100, "outputs": 10}
    models = set()
    ways: list[tuple[str, dict[str, int]]] = [("1 thread", {"threads": 1})]
    ways += [(f"{n} worker" + "s" * (n > 1), {"workers": n}) for n in workers]
    for name, where in ways:
        result = train(dataset, options, **where)  # type: ignore[arg-type]
        result.model.save(folder / "m.zipml")
        models.add((folder / "m.zipml").read_bytes())
        out[name] = statistics.median(e.seconds for e in result.epochs[1:])
    out["same model"] = len(models) == 1
    return out


def tiny_job(dataset: Dataset, replicas: int, runner: Runner) -> tuple[Job, Plan, Any]:
    """Windows of one tile."""
    options = TrainOptions(epochs=EPOCHS, replicas=replicas, step_size=0.01, shrinkage=0.5)
    problem = make_problem(dataset.spec, options)
    plan = replace(make_plan(dataset.spec, options), window_tiles=1)
    run = Run(dataset, options, [problem], plan, runner, Reading.of(None))
    return replace(run._job, schedule=run._steps(step=0.01, kept=0.5)), plan, initial_state(problem)


def rounds_of(job: Job, plan: Plan, state: Any, runner: Runner) -> float:
    """Milliseconds of a round: the median epoch."""
    times = []
    for epoch in range(EPOCHS):
        rounds = list(enumerate(plan.rounds(epoch)))
        began = time.perf_counter()
        state = Passes(runner, plan).rounds(job, rounds, state)
        times.append((time.perf_counter() - began) / len(rounds) * 1e3)
    return statistics.median(times[1:])


def round_cost(folder: Path, workers: list[int]) -> list[dict[str, Any]]:
    """Milliseconds of a round of 8 replicas, less what its windows take."""
    out = []
    for columns in (10, 1000):
        dataset = table(folder, rows=64 * REPLICAS * 50, columns=columns)
        for count in (0, *workers):
            where = {"workers": count} if count else {"threads": 2}
            with open_runner(**where) as runner:  # type: ignore[arg-type]
                job, plan, state = tiny_job(dataset, REPLICAS, runner)
                whole = rounds_of(job, plan, state, runner)
                steps = next(iter(plan.rounds(0)))
                for _ in range(2):  # the first time reads the data
                    began = time.perf_counter()
                    for step in steps:
                        advance(job, step, state)
                    alone = (time.perf_counter() - began) * 1e3
            cores = min(count or 2, os.cpu_count() or 1)
            out.append({
                "columns": columns, "workers": count, "round ms": whole,
                "windows ms": alone / cores, "overhead ms": whole - alone / cores,
            })  # fmt: skip
    return out


@contextmanager
def in_process_workers(folder: Path, count: int) -> Iterator[tuple[str, int]]:
    """A scheduler in a process of its own and workers in this one; its address and process."""
    from distributed import Client, Worker

    from zipml_ooc.training.cluster import address_in

    file = folder / "scheduler.json"
    command = ["scheduler", "--scheduler-file", str(file), "--port", "0", "--no-dashboard"]
    command += ["--host", "127.0.0.1"]
    with (folder / "scheduler.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", "dask", *command], stderr=log)
    loop, stopped = asyncio.new_event_loop(), asyncio.Event()

    async def work(address: str) -> None:
        workers = [Worker(address, nthreads=1, memory_limit=0) for _ in range(count)]
        await asyncio.gather(*workers)
        await stopped.wait()
        await asyncio.gather(*(worker.close(nanny=False) for worker in workers))

    try:
        address = address_in(file)
        thread = threading.Thread(target=loop.run_until_complete, args=(work(address),))
        thread.start()
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(count, timeout=120)
        yield address, process.pid
        loop.call_soon_threadsafe(stopped.set)
        thread.join(60)
    finally:
        process.kill()
        process.wait()


def processor_seconds(process: int) -> float:
    """Of all threads of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scheduler_work(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Processor time of the scheduler for a round, for 8 and 64 replicas on 64 workers.

    Either every group of replicas merges the round before by itself, or one task does.
    """
    out = []
    with in_process_workers(folder, MANY) as (address, process):
        for replicas, most in ((REPLICAS, MANY), (REPLICAS, 0), (MANY, MANY), (MANY, 0)):
            dataset = table(folder, rows=64 * replicas * rounds, columns=10 + (most == 0))
            laps.PARTS = most
            with open_runner(scheduler=address) as runner:
                job, plan, state = tiny_job(dataset, replicas, runner)
                passes, numbered = Passes(runner, plan), list(enumerate(plan.rounds(0)))
                passes.rounds(job, numbered, state)
                before, began = processor_seconds(process), time.perf_counter()
                for epoch in (1, 2):
                    numbered = list(enumerate(plan.rounds(epoch)))
                    passes.rounds(job, numbered, state)
                done = 2 * len(numbered)
                out.append({
                    "workers": MANY, "replicas": replicas,
                    "merging tasks": int(most == 0),
                    "scheduler ms": (processor_seconds(process) - before) / done * 1e3,
                    "round ms": (time.perf_counter() - began) / done * 1e3,
                })  # fmt: skip
    return out


def shown(report: dict[str, Any]) -> str:
    """The report as text."""
    lines = [about_machine(report["machine"])]
    if "speed" in report:
        one = report["speed"]
        lines.append(
            f"speed: {one['rows']:,} rows x {one['columns']} columns, softmax of "
            f"{one['outputs']}, {REPLICAS} replicas; all models the same file: {one['same model']}"
        )
        alone = one["1 worker"]
        lines += [
            f"  {name:<10} {seconds:7.3f} s an epoch, {alone / seconds:.2f} x one worker"
            for name, seconds in one.items()
            if "worker" in name or "thread" in name
        ]
    for name in ("round", "scheduler"):
        for one in report.get(name, ()):
            facts = ", ".join(
                f"{key} {value:.2f}" if isinstance(value, float) else f"{value:,} {key}"
                for key, value in one.items()
            )
            lines.append(f"{name}: {facts}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workers", default="1,2,4", help="numbers of processes to try")
    parser.add_argument("--rows", type=int, default=524_288, help="of the part `speed`")
    parser.add_argument("--rounds", type=int, default=20, help="of the part `scheduler`")
    parser.add_argument("--only", default="speed,round,scheduler", metavar="PARTS")
    arguments = parser.parse_args()
    workers = [int(n) for n in arguments.workers.split(",")]
    report: dict[str, Any] = {"machine": machine()}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part in arguments.only.split(","):
            (folder / part).mkdir()
        if "speed" in arguments.only:
            report["speed"] = speed(folder / "speed", workers, arguments.rows)
        if "round" in arguments.only:
            report["round"] = round_cost(folder / "round", workers)
        if "scheduler" in arguments.only:
            report["scheduler"] = scheduler_work(folder / "scheduler", arguments.rounds)
    print(json.dumps(report, indent=1) if arguments.json else shown(report))


if __name__ == "__main__":
    main()
