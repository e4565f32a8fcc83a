"""`zipml train --checkpoint`: signals, kills and resuming, as a shell sees them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ZIPML = (sys.executable, "-m", "zipml_cli")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """One whose epochs take a moment and have two rounds: 8 windows for 5 replicas."""
    from zipml_cli.main import main

    folder = tmp_path_factory.mktemp("stopped")
    source, made = folder / "s.npz", folder / "d.zarr"
    assert main(["synth", str(source), "--rows", "30000", "--columns", "40"]) == 0
    assert main(["compress", str(source), str(made), "--chunk-rows", "4096"]) == 0
    return made


def command(dataset, out, *more):
    return [
        *ZIPML, "train", str(dataset), "--out", str(out), "--epochs", "60", "--replicas", "5",
        "--double-form", "split", *map(str, more),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def expected(dataset, tmp_path_factory):
    """The model of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "m.zipml"
    subprocess.run(command(dataset, out), check=True, capture_output=True, timeout=120)
    return out.read_bytes()


@contextmanager
def running(arguments) -> Iterator[subprocess.Popen[str]]:
    """A process that heeds Ctrl-C, whatever started the tests, and does not outlive them."""
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(60)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def saved_thrice(folder: Path) -> Callable[[], bool]:
    return lambda: any(folder.glob("checkpoint-000003*"))


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_saves_the_run_and_says_how_to_go_on(
    dataset, expected, tmp_path, number, code, word
):
    out, folder = tmp_path / "m.zipml", tmp_path / "run"
    arguments = command(dataset, out, "--checkpoint", folder, "--checkpoint-every", "1")
    with running(arguments) as process:
        wait_until(saved_thrice(folder), process)
        process.send_signal(number)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed) == (code, "")
    lines = sorted(said.splitlines())
    assert lines[0] == f"zipml: {word}"
    assert re.fullmatch(
        rf"zipml: the run is saved in {re.escape(str(folder))}: epoch \d+ of 60, \d of 2 rounds "
        "done; the same command with --resume goes on from there",
        lines[1],
    )
    assert len(lines) == 2 and not out.exists() and len(list(folder.iterdir())) == 2
    done = subprocess.run([*arguments, "--resume"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert re.fullmatch(
        r"zipml: going on from checkpoint-\d{6}\.zipml-checkpoint: .*\n", done.stderr
    )
    assert out.read_bytes() == expected


def test_a_signal_without_checkpoints_is_one_line(dataset, tmp_path):
    with running(command(dataset, tmp_path / "m.zipml", "--epochs", "20000")) as process:
        loaded = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: "_native" in loaded.read_text(), process)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        printed, said = process.communicate(timeout=60)
    assert (process.returncode, printed, said) == (130, "", "zipml: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_killed_goes_on_to_the_same_model(dataset, expected, tmp_path):
    out, folder = tmp_path / "m.zipml", tmp_path / "run"
    arguments = command(
        dataset, out, "--checkpoint", folder, "--checkpoint-every", "0.02s", "--checkpoint-keep", 3
    )
    with running(arguments) as process:
        wait_until(saved_thrice(folder), process)
        process.kill()
    with running([*arguments, "--resume"]):  # and once more, while it goes on
        time.sleep(1.5)
    assert not out.exists() or out.read_bytes() == expected
    done = subprocess.run(
        [*arguments, "--resume", "--force", "--workers", "2"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == expected
    assert not [name for name in folder.iterdir() if name.suffix == ".tmp"]


def test_options_of_checkpoints_need_their_folder(zipml, samples, tmp_path, keep):
    with keep(tmp_path):
        for option in (("--resume",), ("--checkpoint-every", "5s"), ("--checkpoint-keep", 1)):
            zipml("train", samples.dataset, *option).must_refuse(2, option[0], "--checkpoint DIR")
        for option, value in (("--checkpoint-every", "soon"), ("--checkpoint-keep", 0)):
            zipml(
                "train", samples.dataset, "--checkpoint", tmp_path / "run", option, value
            ).must_refuse(2, f"{value}")


def test_a_folder_without_a_name_is_not_the_current_one(
    zipml, samples, tmp_path, keep, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with keep(tmp_path):
        zipml("train", samples.dataset, "--checkpoint", "").must_refuse(2, "empty name")


def test_resuming_with_nothing_there_begins(zipml, samples, tmp_path):
    outcome = zipml(
        "train", samples.dataset, "--epochs", 2, "--checkpoint", tmp_path / "run", "--resume"
    ).must_succeed()
    assert outcome.err == (
        f"zipml: there is no checkpoint in {tmp_path / 'run'}: beginning at the beginning\n"
    )
