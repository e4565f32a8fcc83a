"""What every test of the command line needs: a way to call it, small data, and a folder's state."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from zipml_cli.main import main


@dataclass(frozen=True)
class Outcome:
    """What a call of `zipml` left behind on its streams."""

    code: int
    out: str
    err: str

    def must_succeed(self) -> Outcome:
        assert self.code == 0, self.err
        return self

    def must_refuse(self, code: int, *words: str) -> None:
        """One line on standard error that says all `words`, nothing else anywhere."""
        assert self.code == code, (self.code, self.out, self.err)
        assert self.out == ""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("zipml: error: ")
        for word in words:
            assert word in lines[0]


Zipml = Callable[..., Outcome]


@pytest.fixture
def zipml(capfd: pytest.CaptureFixture[str]) -> Zipml:
    """Call the command line in this process."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return Outcome(code, out, err)

    return call


@pytest.fixture
def zipml_process() -> Zipml:
    """Call the command line as a process of its own."""

    def call(*arguments: object, **options: object) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-m", "zipml_cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            **options,  # type: ignore[call-overload]
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return call


@dataclass(frozen=True)
class Samples:
    """Small files of every kind, made once; tests do not change them."""

    folder: Path
    table: Path
    dataset: Path
    model: Path
    labels: Path
    labels_dataset: Path
    labels_model: Path


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("samples")
    made = Samples(
        folder,
        *(
            folder / name
            for name in (
                "numbers.csv", "numbers.zarr", "numbers.zipml",
                "labels.csv", "labels.zarr", "labels.zipml",
            )
        ),
    )  # fmt: skip
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 3)) * [1, 10, 0.1] + [0, 5, -2]
    price = x @ [1, 0.2, -3] + 0.1 * random.normal(size=400)
    size = np.where(price > np.median(price), "large", "small")
    write_csv(made.table, ["a", "b", "c", "price"], np.column_stack([x, price]))
    write_csv(made.labels, ["a", "b", "c", "size"], np.column_stack([x.astype(object), size]))
    for table, target, dataset, model in (
        (made.table, "price", made.dataset, made.model),
        (made.labels, "size", made.labels_dataset, made.labels_model),
    ):
        assert main(["compress", str(table), str(dataset), "--target", target]) == 0
        assert main(["train", str(dataset), "--epochs", "20", "--out", str(model)]) == 0
    return made


def write_csv(path: Path, names: list[str], rows: np.ndarray) -> Path:
    lines = [",".join(names), *(",".join(str(v) for v in row) for row in rows.tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def state(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, hidden ones too, with their bytes."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Nothing in the folder may appear, change or go."""
    before = state(folder)
    yield
    assert state(folder) == before


# Test modules cannot import a conftest, so that helpers travel as fixtures.


@pytest.fixture
def keep() -> Callable[[Path], object]:
    return unchanged


@pytest.fixture
def csv() -> Callable[[Path, list[str], np.ndarray], Path]:
    return write_csv
