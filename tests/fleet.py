"""A Dask cluster for tests: processes as a user would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from distributed import Client

from zipml_ooc.training.cluster import address_in

_MANAGER = "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER"


class Fleet:
    """A scheduler and workers, started by the command line as a user would."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.folder, self.file = folder, folder / "scheduler.json"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.start("scheduler", "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = address_in(self.file)
        for number in range(workers):
            self.start_worker(f"worker{number}")
        if workers:
            self.wait(workers)

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(self.file)],
                stdout=log, stderr=log, cwd=self.folder,
                # It would take a shared value away from workers that have no use for it just now.
                env=os.environ | {f"{_MANAGER}__START": "False"},
            )  # fmt: skip

    def start_worker(self, name: str, *more: str) -> None:
        self.start(name, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", *more)

    def wait(self, workers: int) -> None:
        with Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(workers, timeout=60)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait(30)

    def close(self) -> None:
        for name in list(self.processes):
            self.kill(name)
