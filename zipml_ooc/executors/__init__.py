"""Executors: what runs mini-batch SGD on encoded tiles, on this machine or on a device of it.

`protocol` says what one is, `registry` finds those that are installed, `admission` refuses what one
cannot do, and `sessions` keeps devices open between tasks.
"""

from __future__ import annotations

from .machine import check_simd
from .protocol import Capabilities, Counters, Executor, Option, Session, Settings, Trained, Window
from .registry import ExecutorInfo, executors, get_executor

__all__ = [
    "Capabilities",
    "Counters",
    "Executor",
    "ExecutorInfo",
    "Option",
    "Session",
    "Settings",
    "Trained",
    "Window",
    "check_simd",
    "executors",
    "get_executor",
]
