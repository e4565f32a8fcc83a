"""What our objects hold, as Dask sees it: it plans transfers and watches memory by `sizeof`."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

__all__ = ["Sized"]

_OBJECT = 64


class Sized:
    """A dataclass whose size is that of the arrays in it."""

    def __sizeof__(self) -> int:
        return _held(self)


def _held(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, list | tuple):
        return _OBJECT + sum(map(_held, value))
    if is_dataclass(value):
        return _OBJECT + sum(_held(getattr(value, field.name)) for field in fields(value))
    return 0
