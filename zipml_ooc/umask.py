"""The permissions that the user's umask leaves to a file made under a temporary name."""

from __future__ import annotations

import os

__all__ = ["masked"]


def masked(mode: int) -> int:
    """Return `mode` less what the process's umask takes away."""
    mask = os.umask(0)  # there is no way to read it but to set it
    os.umask(mask)
    return mode & ~mask
