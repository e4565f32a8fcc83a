"""Datasets in an object store, over the S3 protocol to a server on this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tables import compressed, regression_npz, tree_bytes
from typer.testing import CliRunner
from zipml_cli.main import app

from zipml_ooc import (
    CompressOptions,
    DataError,
    TrainOptions,
    UsageError,
    compress,
    evaluate,
    open_dataset,
    train,
    verify,
)

pytest.importorskip("s3fs", reason="the S3 client is not installed")
moto = pytest.importorskip("moto.server", reason="the S3 server is not installed")

BUCKET = "tables"


class Requests(logging.Handler):
    """The server's own account of what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture(scope="module")
def requests() -> Iterator[Requests]:
    """A server and a bucket; the environment says where it is, as for any S3 client."""
    import s3fs

    log, handler = logging.getLogger("werkzeug"), Requests()
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield handler
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()
    log.removeHandler(handler)
    log.setLevel(level)


def upload(folder: Path) -> str:
    import s3fs

    files = s3fs.S3FileSystem()
    files.put(str(folder), f"{BUCKET}/{folder.name}", recursive=True)
    files.invalidate_cache()
    return f"s3://{BUCKET}/{folder.name}"


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_training_asks_the_server_for_its_planes_by_range(
    requests: Requests, tmp_path: Path, bits: int
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=3000, columns=12)
    local = compressed(
        source, tmp_path / f"w{bits}", bits=8, samples=2, layout="weaved", chunk_rows=1024
    )
    remote = open_dataset(upload(tmp_path / f"w{bits}"))
    requests.lines.clear()
    options = TrainOptions(bits=bits, epochs=2)
    result = train(remote, options)
    np.testing.assert_array_equal(result.model.coef, train(local, options).model.coef)
    asked = [line for line in requests.lines if f"GET /{BUCKET}/w{bits}/X/c/" in line]
    ranges = 1 if bits == 8 else 2
    assert len(asked) == local.spec.chunks * ranges
    assert all(" 206 " in line for line in asked), asked  # partial content
    assert remote.store.traffic.fetched_bytes == local.bytes_at(bits)
    assert remote.store.traffic.requests == len(asked)
    assert evaluate(result.model, remote)["r2"] > 0.9


def test_workers_and_the_command_line_train_from_a_bucket(
    requests: Requests, tmp_path: Path
) -> None:
    source = regression_npz(tmp_path / "t.npz", rows=1500)
    compressed(source, tmp_path / "packed", bits=4)
    url = upload(tmp_path / "packed")
    words = ["train", url, "--epochs", "2", "--workers", "1", "--out", str(tmp_path / "m.zipml")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "m.zipml").exists()
    score = CliRunner().invoke(app, ["evaluate", str(tmp_path / "m.zipml"), url])
    assert score.exit_code == 0 and "R2" in score.output
    shown = CliRunner().invoke(app, ["info", url])
    assert shown.exit_code == 0 and url in shown.output


def test_what_is_wrong_with_a_bucket_is_said_in_a_line(
    requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match=f"no dataset at s3://{BUCKET}/nothing"):
        open_dataset(f"s3://{BUCKET}/nothing")
    source = regression_npz(tmp_path / "t.npz", rows=300)
    compressed(source, tmp_path / "broken", bits=8, layout="weaved")
    chunk = tmp_path / "broken" / "X" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:500])
    dataset = open_dataset(upload(tmp_path / "broken"))
    with pytest.raises(DataError, match=r"chunk X/c/0/0 of s3://.*truncated"):
        train(dataset, TrainOptions(bits=2, epochs=1))


def test_compress_writes_to_a_bucket_and_goes_on_there(requests: Requests, tmp_path: Path) -> None:
    import s3fs

    source = regression_npz(tmp_path / "t.npz", rows=1500)
    options = CompressOptions(bits=3, chunk_rows=128, shard_rows=256)
    compress(source, tmp_path / "d", options)
    url = f"s3://{BUCKET}/written/d.zarr"

    def stop(stage: str, rows: int, total: int | None) -> None:
        if stage == "compress" and rows >= 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(source, url, options, progress=stop)
    with pytest.raises((DataError, UsageError)):
        open_dataset(url)
    compress(source, url, options, resume=True)
    files = s3fs.S3FileSystem()
    files.invalidate_cache()
    root = f"{BUCKET}/written/d.zarr"
    found = {path[len(root) + 1 :]: files.cat_file(path) for path in files.find(root)}
    assert found == tree_bytes(tmp_path / "d")
    assert verify(url).whole
    compress(source, url, options, force=True)
    assert verify(url).whole
