"""What only a process shows: signals, full disks, pipes, terminals, workers and start-up."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tables import tree_bytes

ZIPML = (sys.executable, "-m", "zipml_cli")


def test_the_module_runs_and_its_exit_code_is_the_process_s(zipml_process, samples, tmp_path):
    facts = json.loads(zipml_process("info", samples.dataset, "--json").must_succeed().out)
    assert facts["rows"] == 400
    zipml_process("info", tmp_path / "nothing").must_refuse(2, "nothing")
    zipml_process("info", samples.table).must_refuse(1, "numbers.csv")


def test_the_console_script_is_installed(samples):
    script = Path(sys.executable).with_name("zipml")
    if not script.exists():
        pytest.skip("the package's scripts are not installed beside this Python")
    done = subprocess.run([script, "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["compress", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    heavy = {"numpy", "zarr", "dask", "distributed", "pyarrow", "numcodecs", "zipml_codecs"}
    program = (
        "import sys; from zipml_cli.main import main\n"
        f"main({arguments!r}); print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == "[]\n"


def test_an_instruction_set_can_be_forced_and_a_wrong_one_is_refused(zipml_process, samples):
    facts = json.loads(
        zipml_process("executors", "--json", env=os.environ | {"ZIPML_SIMD": "scalar"})
        .must_succeed()
        .out
    )
    assert facts["executors"][0]["simd"] == "scalar"
    for command in (("executors",), ("train", samples.dataset)):
        wrong = zipml_process(*command, env=os.environ | {"ZIPML_SIMD": "sse9"})
        wrong.must_refuse(2, "ZIPML_SIMD", "scalar", "sse9")


def limited(count: int):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))

    return {"preexec_fn": limit}


def test_a_full_disk_leaves_nothing(zipml_process, zipml, samples, tmp_path, keep):
    """A limit on the size of files stands for the disk: writing fails half way."""
    with keep(tmp_path):
        for name in ("t.npz", "t.csv", "t.csv.gz", "t.parquet", "t.zarr"):
            zipml_process(
                "synth", tmp_path / name, "--columns", 200, **limited(100_000)
            ).must_refuse(1, name)
        zipml_process(
            "train", samples.dataset, "--epochs", 1, "--out", tmp_path / "m.zipml", **limited(500)
        ).must_refuse(1, "m.zipml")
        for name in ("p.csv", "p.npy", "p.parquet"):
            zipml_process(
                "predict", samples.model, samples.table, "--out", tmp_path / name, **limited(500)
            ).must_refuse(1, name)


def test_compress_goes_on_after_a_full_disk(zipml_process, zipml, tmp_path):
    source, dest = tmp_path / "s.npz", tmp_path / "d.zarr"
    zipml("synth", source, "--rows", 5000, "--columns", 100).must_succeed()
    zipml("compress", source, tmp_path / "whole.zarr", "--bits", 6).must_succeed()
    zipml("compress", source, dest, "--bits", 2).must_succeed()
    before = tree_bytes(dest)
    arguments = ("compress", source, dest, "--bits", 6, "--force")
    zipml_process(*arguments, **limited(100_000)).must_refuse(
        1, "d.zarr", "File too large", "kept", "--resume"
    )
    assert tree_bytes(dest) == before
    zipml(*arguments, "--resume").must_succeed()
    assert tree_bytes(dest) == tree_bytes(tmp_path / "whole.zarr")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.zarr", "s.npz", "whole.zarr"]


@pytest.mark.parametrize(
    ("number", "code", "line"),
    [(signal.SIGINT, 130, "zipml: interrupted"), (signal.SIGTERM, 143, "zipml: terminated")],
)
def test_a_stopped_compress_says_how_to_go_on(zipml, tmp_path, number, code, line):
    source, dest = tmp_path / "s.npz", tmp_path / "d.zarr"
    zipml("synth", source, "--rows", 100_000, "--columns", 100).must_succeed()
    arguments = ("compress", source, dest, "--chunk-rows", "64", "--shard-rows", "640")
    process = subprocess.Popen(
        [*ZIPML, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob(".d.zarr.partial/dataset/X/*")):  # it writes
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    partial = tmp_path / ".d.zarr.partial"
    kept = f"zipml: what is written is kept in {partial}; the same command with --resume goes on"
    first, second = sorted(err.splitlines())
    assert first == line and second.startswith(kept)
    zipml(*arguments).must_refuse(2, "d.zarr", "--resume", "--force")
    zipml("info", dest).must_refuse(2, "no dataset")
    zipml("info", partial / "dataset").must_refuse(1, "no Zarr group")
    zipml(*arguments, "--resume").must_succeed()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.zarr", "s.npz"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_compress_that_is_stopped_in_its_first_pass_leaves_nothing(zipml, tmp_path, keep, number):
    source = tmp_path / "s.npz"
    zipml("synth", source, "--rows", 200_000, "--columns", 100).must_succeed()
    with keep(tmp_path):
        process = subprocess.Popen(
            [*ZIPML, "compress", source, tmp_path / "d.zarr"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not (tmp_path / ".d.zarr.partial" / "lock").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(number)
        assert len(process.communicate(timeout=60)[1].splitlines()) == 1


def test_a_reader_that_leaves_is_no_error(samples):
    """`zipml info | head -1` ends quietly, however much was still to come."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*ZIPML, "info", samples.dataset], stdout=write, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_output_that_cannot_be_written_is_one_line(samples):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ZIPML, "info", samples.dataset, "--json"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "zipml: error: No space left on device\n"


def on_a_terminal(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output (a pipe) and standard error (a terminal)."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"} | {"TERM": "xterm"}
    process = subprocess.Popen(
        [*ZIPML, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL, env=environment,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.stdout is not None
    out = process.stdout.read().decode()
    return process.wait(60), out, shown.decode()


def test_a_terminal_sees_progress_and_a_pipe_does_not(samples, tmp_path):
    code, out, shown = on_a_terminal("compress", samples.table, tmp_path / "d.zarr")
    assert code == 0
    assert "statistics" in shown
    assert "compress" in shown
    assert "400 of 400 rows" in shown
    assert "\x1b" not in out
    assert "400 rows x 4 columns" in out

    code, out, shown = on_a_terminal("train", samples.dataset, "--epochs", 3)
    assert code == 0
    assert "3 of 3 epochs  loss" in shown
    assert "\x1b" not in out


def test_json_turns_progress_off(samples, tmp_path):
    code, out, shown = on_a_terminal("compress", samples.table, tmp_path / "d.zarr", "--json")
    assert (code, shown) == (0, "")
    assert json.loads(out)["rows"] == 400


def test_an_error_on_a_terminal_is_whole(tmp_path):
    long = tmp_path / ("very-long-name-" * 10)
    code, out, shown = on_a_terminal("info", long)
    assert (code, out) == (2, "")
    assert shown == f"zipml: error: there is no dataset at {long}\r\n"


def test_names_that_the_terminal_cannot_show_are_no_error(zipml_process, tmp_path, csv):
    import numpy as np

    csv(tmp_path / "t.csv", ["größe", "名前"], np.arange(20.0).reshape(10, 2))
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    zipml_process(
        "compress", tmp_path / "t.csv", tmp_path / "d.zarr", env=environment
    ).must_succeed()
    shown = zipml_process("info", tmp_path / "d.zarr", env=environment).must_succeed().out
    assert r"gr\xf6\xdfe" in shown


def test_workers_compress_to_the_same_bytes_as_threads(zipml_process, zipml, tmp_path):
    source = tmp_path / "s.npy"
    zipml("synth", source, "--rows", 40_000, "--columns", 5).must_succeed()
    for name, where in (("threads", ()), ("workers", ("--workers", 2))):
        zipml_process(
            "compress", source, tmp_path / name, "--target", "-1", "--chunk-rows", 4096, *where
        ).must_succeed()
    assert tree_bytes(tmp_path / "workers") == tree_bytes(tmp_path / "threads")


def test_workers_train_the_same_model_as_threads(zipml_process, samples, tmp_path):
    models = []
    for name, where in (("threads", ("--threads", 2)), ("workers", ("--workers", 2))):
        out = tmp_path / f"{name}.zipml"
        outcome = zipml_process("train", samples.dataset, "--epochs", 3, "--out", out, *where)
        assert outcome.must_succeed().err == ""
        models.append(out.read_bytes())
    assert models[0] == models[1]


def test_a_scheduler_that_does_not_answer_is_one_line(zipml_process, samples, tmp_path, keep):
    with keep(tmp_path):
        zipml_process(
            "train", samples.dataset, "--out", tmp_path / "m.zipml",
            "--scheduler", "tcp://127.0.0.1:1",
        ).must_refuse(1, "tcp://127.0.0.1:1")  # fmt: skip
