"""Calls to stores that fail in passing are made again: later each time, and not for ever."""

from __future__ import annotations

import errno
import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from .base import Traffic

__all__ = ["Patience", "TruncatedError", "UnavailableError", "is_transient", "patiently"]

T = TypeVar("T")

_NEVER = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_ERRNOS = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.ECONNABORTED,
    errno.ECONNREFUSED,
    errno.ECONNRESET,
    errno.EHOSTUNREACH,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.EPIPE,
    errno.ETIMEDOUT,
}
_STATUSES = {408, 425, 429, 500, 502, 503, 504, 509}
_STATUS = re.compile(r"status(?: code)?:? (\d{3})\b")
# Of aiohttp, botocore, urllib3, obstore and others, none of which need be installed. Their names
# and texts are what they have in common.
_NAMES = re.compile(
    r"Timeout|TimedOut|Disconnected|ConnectionClosed|ClientConnection|ClientPayload|ClientOSError"
    r"|IncompleteRead|IncompleteBody|ResponseStreaming|EndpointConnection|ProtocolError"
    r"|ChecksumError|Throttl|SlowDown|TooManyRequests|ServiceUnavailable|InternalError"
)
_TEXTS = re.compile(
    r"error sending request|response body error|connection (?:reset|closed|refused)|timed out"
    r"|reduce your request rate|SlowDown|InternalError|ServiceUnavailable|Internal Server Error"
    r"|Service Unavailable|Too Many Requests|Please try again",
    re.IGNORECASE,
)


class TruncatedError(OSError):
    """A store sent less than it was asked for."""


class UnavailableError(OSError):
    """A store went on failing."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes
    ----------
    attempts : int
        Calls at most, the first one included.
    first_seconds : float
        Longest wait before the second call; it doubles with each further one. Half of it at least
        is waited, the rest is drawn, so that many readers do not come back all at once.
    most_seconds : float
        No call is made again so long after the first one began.
    """

    attempts: int = 6
    first_seconds: float = 0.2
    most_seconds: float = 60.0


PATIENCE = Patience()


def patiently(call: Callable[[], T], traffic: Traffic) -> T:
    """Return what a call returns; make it again while it fails in passing.

    Raises
    ------
    UnavailableError, TruncatedError
        It went on failing; the message says how often it was tried.
    Exception
        Any error that trying again does not cure, as it is.
    """
    patience, began = PATIENCE, time.monotonic()
    attempt = 1
    while True:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            wait = patience.first_seconds * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)
            spent = time.monotonic() - began
            if attempt >= patience.attempts or spent + wait > patience.most_seconds:
                text = str(error).strip().partition("\n")[0].rstrip(".:; ")
                kind = TruncatedError if isinstance(error, TruncatedError) else UnavailableError
                raise kind(
                    f"{text or type(error).__name__} ({attempt} attempts in {spent:.1f} s)"
                ) from error
        traffic.add_retry()
        time.sleep(wait)
        attempt += 1


def is_transient(error: BaseException) -> bool:
    """Whether the same call may do better: timeouts, lost connections, throttling, status 5xx."""
    if isinstance(error, _NEVER):
        return False
    chain = list(_chain(error))
    for e in chain:  # the outermost that says something decides
        if isinstance(e, TruncatedError | TimeoutError | ConnectionError | EOFError):
            return True
        if (isinstance(e, OSError) and e.errno in _ERRNOS) or _NAMES.search(type(e).__name__):
            return True
        status = _status(e)
        if status is not None:
            return status in _STATUSES
    return any(_TEXTS.search(str(e)) for e in chain)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__


def _status(error: BaseException) -> int | None:
    """The HTTP status that an error speaks of."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(found, int):
            return found
    for name in ("status", "status_code", "code"):  # aiohttp, requests, gcsfs
        found = getattr(error, name, None)
        if isinstance(found, int) and 400 <= found < 600:
            return found
    match = _STATUS.search(str(error))  # obstore
    return int(match[1]) if match else None
