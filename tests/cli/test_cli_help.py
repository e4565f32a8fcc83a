"""Help, and that options are those of the library."""

from __future__ import annotations

import re

import pytest
from zipml_cli import options as opt
from zipml_cli import train_options as fit

COMMANDS = (
    "compress", "info", "verify", "repair", "train", "evaluate", "predict", "synth", "demo",
    "executors", "fpga",
)  # fmt: skip


def test_help_lists_every_command_and_comes_without_arguments_too(zipml):
    for arguments in ((), ("--help",), ("-h",)):
        outcome = zipml(*arguments).must_succeed()
        assert all(f"\n  {name} " in outcome.out for name in COMMANDS)
        assert outcome.err == ""


@pytest.mark.parametrize(
    "command", [*COMMANDS[:-1], "fpga build", "fpga report", "executors check"]
)
def test_help_of_a_command_shows_examples_one_a_line(zipml, command):
    text = zipml(*command.split(), "--help").must_succeed().out
    examples = text.split("Examples:\n")[1].split("\n\n")[0].splitlines()
    assert len(examples) >= 2
    assert all(line.startswith(f"    zipml {command}") for line in examples)


def test_devices_are_those_of_the_library():
    from zipml_cli.fpga import Device

    from zipml_ooc.gateware.builds import DEVICES

    assert [device.value for device in Device] == list(DEVICES)


def test_version(zipml):
    assert re.fullmatch(r"zipml \d+\.\d+\.\d+\n", zipml("--version").must_succeed().out)


def test_option_names_are_those_of_the_library():
    from zipml_codecs.quantizer import NAN_POLICIES, SCALES

    from zipml_ooc.sources.files import FORMATS
    from zipml_ooc.targets import TASKS
    from zipml_ooc.training import options as train_options

    for names, known in (
        (opt.Task, TASKS),
        (opt.Scale, SCALES),
        (opt.Nan, NAN_POLICIES),
        (opt.Format, FORMATS),
        (fit.Loss, train_options.LOSS_CHOICES),
        (fit.Sampling, train_options.SAMPLINGS),
        (fit.DoubleForm, train_options.DOUBLE_FORMS),
        (fit.Arithmetic, train_options.ARITHMETICS),
        (fit.Solver, train_options.SOLVERS),
        (fit.Schedule, train_options.SCHEDULES),
        (fit.GradientNorm, train_options.GRADIENT_NORMS),
        (fit.Multiclass, train_options.MULTICLASS),
        (fit.ClassWeight, train_options.CLASS_WEIGHTS),
    ):
        assert [n.value for n in names] == list(known)


def test_defaults_are_those_of_the_library():
    import inspect
    from dataclasses import asdict

    from zipml_cli import datasets, models

    from zipml_ooc import CompressOptions, SourceOptions, TrainOptions, synth

    def check(command, known, renamed=None):
        for name, parameter in inspect.signature(command).parameters.items():
            name = (renamed or {}).get(name, name)
            if name in known and parameter.default is not inspect.Parameter.empty:
                assert parameter.default == known[name] or known[name] == (), name

    check(datasets.compress, asdict(CompressOptions()))
    check(models.train, asdict(TrainOptions()), {"intercept": "fit_intercept"})
    for command in (datasets.compress, models.evaluate, models.predict):
        check(command, asdict(SourceOptions()))
    given = inspect.signature(synth).parameters
    check(datasets.synth, {name: p.default for name, p in given.items()})
