"""What numbers depend on: the machine, and the versions of what was measured."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zipml_codecs import _native

__all__ = ["about_machine", "about_versions", "caches", "machine", "versions"]


def caches() -> dict[str, int]:
    """Bytes of the data caches that the first core sees, by name (L1d, L2, L3)."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        kind, level, size = (
            (index / name).read_text().strip() for name in ("type", "level", "size")
        )
        if kind != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[size[-1]]
            found[f"L{level}{'d' if kind == 'Data' else ''}"] = int(size[:-1]) * unit
    return found


def machine() -> dict[str, Any]:
    """The machine, as it goes into a report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return {
        "processor": next(names, platform.processor() or platform.machine()),
        "cores": os.cpu_count(),
        "caches": caches(),
        "system": platform.system(),
        "python": platform.python_version(),
        "simd": _native.live_simd(),
        "simd_levels": list(_native.simd_levels()),
    }


def about_machine(found: dict[str, Any] | None = None) -> str:
    """The machine in a line."""
    m = machine() if found is None else found
    return f"machine   {m['processor']}, {m['cores']} cores, {m['simd']}, Python {m['python']}"


def versions(names: Iterable[str] = ()) -> dict[str, str]:
    """Versions of ours, of NumPy, and of the packages that take part; missing ones are left out."""
    found = {}
    for name in ("zipml-ooc", "numpy", *names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def about_versions(found: dict[str, str] | None = None) -> str:
    """The versions in a line."""
    listed = (versions() if found is None else found).items()
    return "versions  " + ", ".join(f"{name} {number}" for name, number in listed)
