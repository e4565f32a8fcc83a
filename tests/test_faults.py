"""Stores that fail in passing: a server that answers badly on and off loses nothing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from tables import compressed, regression_npz, sharded

from zipml_ooc import DataError, TrainOptions, UsageError, open_dataset, train
from zipml_ooc.stores import retries, urls
from zipml_ooc.stores.retries import Patience

pytest.importorskip("s3fs", reason="the S3 client is not installed")
pytest.importorskip("obstore", reason="obstore is not installed")
moto = pytest.importorskip("moto.server", reason="the S3 server is not installed")

BUCKET = "faulty"
ATTEMPTS = 4
CLIENTS = ["s3://", "obstore+s3://"]
PASSING = ["500", "503", "429", "truncated", "reset"]


@pytest.fixture(scope="module")
def proxy() -> Iterator[FaultyProxy]:
    import s3fs

    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    between = FaultyProxy(*server.get_host_and_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", between.url)
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setattr(retries, "PATIENCE", Patience(ATTEMPTS, first_seconds=0.01))
        s3fs.S3FileSystem.clear_instance_cache()
        urls._stores.clear()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield between
    s3fs.S3FileSystem.clear_instance_cache()
    urls._stores.clear()
    between.close()
    server.stop()


@pytest.fixture(scope="module")
def folders(proxy: FaultyProxy, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three layouts of a table, also in the bucket."""
    import s3fs

    folder = tmp_path_factory.mktemp("faults")
    source = regression_npz(folder / "t.npz", rows=900)
    packed = compressed(source, folder / "packed", chunk_rows=128)
    compressed(source, folder / "weaved", bits=8, samples=2, layout="weaved", chunk_rows=128)
    sharded(packed, folder / "sharded", 3)
    files = s3fs.S3FileSystem()
    for name in ("packed", "weaved", "sharded"):
        files.put(str(folder / name), f"{BUCKET}/{name}", recursive=True)
    files.invalidate_cache()
    return {name: folder / name for name in ("packed", "weaved", "sharded")}


def now_and_then(method: str, path: str, part: str, times: int) -> str | None:
    """Everything that is read fails once, and every third range once more."""
    if method not in ("GET", "HEAD"):
        return None
    draw = zlib.crc32(f"{path}{part}".encode())
    if times < 1 + (draw % 3 == 0):
        fault = PASSING[(draw + times) % len(PASSING)]
        return "500" if fault == "truncated" and method == "HEAD" else fault
    return None


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("name", ["packed", "weaved", "sharded"])
def test_a_server_that_fails_now_and_then_loses_nothing(
    proxy: FaultyProxy, folders: dict[str, Path], client: str, name: str
) -> None:
    bits = 4 if name == "weaved" else None
    options = TrainOptions(epochs=2, bits=bits)
    here = train(str(folders[name]), options)
    proxy.restart(now_and_then)
    dataset = open_dataset(f"{client}{BUCKET}/{name}")
    traffic = dataset.store.traffic
    before = traffic.fetched_bytes, traffic.requests, traffic.retries
    there = train(dataset, options)
    np.testing.assert_array_equal(here.model.coef, there.model.coef)
    np.testing.assert_array_equal(here.model.intercept, there.model.intercept)
    chunks = {k: n for k, n in proxy.asked.items() if "/X/c/" in k}
    failed = {k: n for k, n in proxy.failed.items() if "/X/c/" in k}
    assert len(chunks) == len(failed) == (3 if name == "sharded" else 8)  # each object failed
    # What the store counts is what the server saw: a request for each that came well, with no
    # retries but ours.
    requests = traffic.requests - before[1]
    assert requests == {"packed": 8, "weaved": 16, "sharded": 3 + 8}[name]
    assert sum(chunks.values()) == requests + sum(failed.values())
    # (Clients ask again by themselves where a connection that they had kept turns out closed.)
    assert 0 < traffic.retries - before[2] <= sum(proxy.failed.values())
    if name == "packed":
        assert traffic.fetched_bytes - before[0] == dataset.stored_bytes


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("fault", PASSING)
def test_a_failure_that_stays_ends_in_one_line(
    proxy: FaultyProxy, folders: dict[str, Path], client: str, fault: str
) -> None:
    proxy.restart(lambda *_: None)
    dataset = open_dataset(f"{client}{BUCKET}/packed")
    proxy.restart(lambda method, path, part, times: fault if "/X/c/3/" in path else None)
    dataset.read_chunk(2)
    with pytest.raises(
        DataError, match=rf"chunk X/c/3/0 of {client.replace('+', '.')}.* \({ATTEMPTS} attempts in"
    ) as caught:
        dataset.read_chunk(3)
    assert "\n" not in str(caught.value)
    asked = proxy.asked[f"/{BUCKET}/packed/X/c/3/0"]
    assert asked == ATTEMPTS or (fault == "reset" and client == "s3://" and asked <= 2 * ATTEMPTS)
    proxy.restart(lambda method, path, part, times: fault if "/y/c/1" in path else None)
    with pytest.raises(DataError, match=rf"chunk y/c/1 of .* \({ATTEMPTS} attempts in"):
        dataset.read_target(0, 200)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_refusal_is_not_asked_again(
    proxy: FaultyProxy, folders: dict[str, Path], client: str
) -> None:
    proxy.restart(lambda *_: None)
    dataset = open_dataset(f"{client}{BUCKET}/packed")
    for status, message in (("403", "cannot be read"), ("404", "is missing")):
        proxy.restart(lambda *_, status=status: status)
        with pytest.raises(DataError, match=rf"chunk X/c/3/0 of .*{message}"):
            dataset.read_chunk(3)
        assert proxy.asked[f"/{BUCKET}/packed/X/c/3/0"] == 1


@pytest.mark.parametrize("client", CLIENTS)
def test_half_a_body_that_claims_to_be_whole_is_fetched_again(
    proxy: FaultyProxy, folders: dict[str, Path], client: str
) -> None:
    proxy.restart(lambda *_: None)
    dataset = open_dataset(f"{client}{BUCKET}/packed")
    right = open_dataset(folders["packed"])
    proxy.restart(lambda method, path, part, times: "short" if times == 0 else None)
    assert dataset.read_chunk(1).codes.tobytes() == right.read_chunk(1).codes.tobytes()
    np.testing.assert_array_equal(dataset.read_target(0, 900), right.read_target(0, 900))
    assert proxy.asked[f"/{BUCKET}/packed/X/c/1/0"] == 2
    weaved = open_dataset(f"{client}{BUCKET}/weaved")
    proxy.restart(lambda method, path, part, times: "short" if times == 0 else None)
    mine, theirs = weaved.read_chunk(1, 2), open_dataset(folders["weaved"]).read_chunk(1, 2)
    assert mine.codes.tobytes() == theirs.codes.tobytes()
    proxy.restart(lambda *_: "short")
    with pytest.raises(DataError, match=r"chunk X/c/1/0 of .*(truncated|Expected checksum)"):
        dataset.read_chunk(1)
    with pytest.raises(DataError, match=r"chunk X/c/2/0 of .*truncated"):
        weaved.read_chunk(2, 2)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_server_that_is_gone_is_named(
    proxy: FaultyProxy, folders: dict[str, Path], client: str
) -> None:
    proxy.restart(lambda *_: "503")
    with pytest.raises(UsageError, match=r"cannot be reached: .*attempts in"):
        open_dataset(f"{client}{BUCKET}/packed/never-opened")
    proxy.restart(lambda *_: None)
    with pytest.raises(UsageError, match="there is no dataset at"):
        open_dataset(f"{client}{BUCKET}/nothing")


def test_what_passes_and_what_stays() -> None:
    class Answered(Exception):
        def __init__(self, status: int) -> None:
            self.status = status

    for error in (
        TimeoutError(), ConnectionResetError(), EOFError(), OSError(104, "reset"),
        *(Answered(s) for s in (408, 429, 500, 502, 503, 504)),
    ):  # fmt: skip
        assert retries.is_transient(error), error
    for error in (
        FileNotFoundError("status code: 503"), PermissionError(), OSError(28, "full"), ValueError(),
        *(Answered(s) for s in (400, 401, 403, 404, 412, 416)),
    ):  # fmt: skip
        assert not retries.is_transient(error), error


def test_waits_double_and_have_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    clock = 0.0

    def sleep(seconds: float) -> None:
        nonlocal clock
        waits.append(seconds)
        clock += seconds

    monkeypatch.setattr(retries.time, "sleep", sleep)
    monkeypatch.setattr(retries.time, "monotonic", lambda: clock)
    monkeypatch.setattr(retries, "PATIENCE", Patience(8, 1.0, most_seconds=20.0))
    traffic = retries.Traffic()

    def call() -> None:
        raise TimeoutError("no answer")

    with pytest.raises(OSError, match=r"^no answer \(\d attempts in \d+\.\d s\)$"):
        retries.patiently(call, traffic)
    assert traffic.retries == len(waits) >= 4
    for number, wait in enumerate(waits):
        assert 0.5 * 2**number <= wait <= 2**number
    assert sum(waits) <= 20
