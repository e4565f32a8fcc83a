"""Levels are drawn where they lie, and what is missing is said in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tables import compressed

from zipml_ooc import UsageError
from zipml_ooc.level_plot import column_levels, plot_levels


def table(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.lognormal(size=500), rng.uniform(0, 1, 500), rng.standard_t(2, 500)])
    np.savez(folder / "t.npz", X=100 * x, y=x.sum(axis=1))
    return folder / "t.npz"


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("levels", ["uniform", "optimal"])
def test_levels_are_the_values_that_are_stored(tmp_path: Path, levels: str, samples: int) -> None:
    """All of them but for means of two samples that differ."""
    dataset = compressed(
        table(tmp_path), tmp_path / "d", bits=3, samples=samples, levels=levels, chunk_rows=128
    )
    spec = dataset.spec
    parts = [
        dataset.read_chunk(k).decode_rows(0, spec.rows_of_chunk(k)) for k in range(spec.chunks)
    ]
    stored = np.concatenate(parts)
    for j in range(3):
        found = column_levels(dataset, j)
        assert len(found) <= 8
        values = np.unique(stored[:, j]) * spec.scale[j] + spec.mean[j]
        between = (found[1:] + found[:-1]) / 2 if samples == 2 else found
        possible = np.concatenate([found, between])
        gaps = np.abs(values[:, None] - possible).min(axis=1)
        assert gaps.max() <= 1e-5 * np.ptp(found)


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_the_columns_that_save_most_are_drawn(tmp_path: Path, ending: str, magic: bytes) -> None:
    pytest.importorskip("matplotlib")
    dataset = compressed(table(tmp_path), tmp_path / "d", bits=3)
    out = tmp_path / f"levels.{ending}"
    drawn = plot_levels(dataset, out)
    assert set(drawn) == {"c0", "c1", "c2"}
    assert drawn[-1] == "c1"  # even values gain least
    assert out.read_bytes().startswith(magic)


def test_an_svg_names_its_columns(tmp_path: Path) -> None:
    mpl = pytest.importorskip("matplotlib")
    dataset = compressed(table(tmp_path), tmp_path / "d", bits=8, levels="uniform")
    with mpl.rc_context({"svg.fonttype": "none"}):
        assert plot_levels(dataset, tmp_path / "levels.svg", ["c2"]) == ("c2",)
    text = (tmp_path / "levels.svg").read_text()
    assert ">c2<" in text
    assert ">c0<" not in text


def test_what_cannot_be_drawn_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    dataset = compressed(table(tmp_path), tmp_path / "d", bits=3)
    by_row = compressed(table(tmp_path), tmp_path / "r", bits=3, scale="row")
    for given, out, columns, words in (
        (dataset, "l.png", ["c9"], "no column 'c9'; it has c0, c1, c2"),
        (dataset, "l.jpeg", None, "must be a .png, .svg or .pdf"),
        (dataset, "no/l.png", None, "cannot be written"),
        (by_row, "l.png", None, "scales by row"),
    ):
        with pytest.raises(UsageError, match=words):
            plot_levels(given, tmp_path / out, columns)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r'pip install "zipml-ooc\[plots\]"'):
        plot_levels(dataset, tmp_path / "l.png")
