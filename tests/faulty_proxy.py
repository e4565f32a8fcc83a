"""A proxy in front of a server on this machine that answers some requests badly, on demand."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["FaultyProxy"]

_HOP = {"connection", "transfer-encoding", "content-length", "server", "date", "keep-alive"}


class FaultyProxy:
    """Forwards requests; `fault` names what to do instead.

    Attributes
    ----------
    fault : callable(method, path, range, time) -> str or None
        A status such as ``"503"``; ``"truncated"``: the connection ends within the body;
        ``"short"``: half of the body, with a length that says so; ``"reset"``: no answer. The last
        argument counts how often the same thing was asked for, from 0.
    asked, failed : Counter
        By path: all requests, and those that were answered badly.
    """

    def __init__(self, host: str, port: int) -> None:
        self.fault: Callable[[str, str, str, int], str | None] = lambda *_: None
        self.asked: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._times: Counter[tuple[str, str, str]] = Counter()
        self._lock = threading.Lock()
        proxy, upstream = self, (host, port)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _forward(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                sent = self.rfile.read(length) if length else None
                path = self.path.partition("?")[0]
                fault = proxy._next(self.command, path, self.headers.get("Range") or "")
                if fault == "reset":
                    self.close_connection = True
                    return
                if fault is not None and fault.isdigit():
                    self._answer(int(fault), {}, b"", 0)
                    return
                connection = http.client.HTTPConnection(*upstream)
                connection.request(self.command, self.path, sent, dict(self.headers))
                answer = connection.getresponse()
                body = answer.read()
                headers = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP}
                size = int(answer.headers.get("Content-Length") or len(body))
                if fault == "short":
                    body = body[: len(body) // 2]
                    size = len(body)
                elif fault == "truncated":
                    body, self.close_connection = body[: len(body) // 2], True
                self._answer(answer.status, headers, body, size)
                connection.close()

            def _answer(self, status: int, headers: dict[str, str], body: bytes, size: int) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(size))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _next(self, method: str, path: str, part: str) -> str | None:
        with self._lock:
            times = self._times[method, path, part]
            self._times[method, path, part] += 1
            fault = self.fault(method, path, part, times)
            self.asked[path] += 1
            self.failed[path] += fault is not None
        return fault

    def restart(self, fault: Callable[[str, str, str, int], str | None]) -> None:
        """Count from zero, with other faults."""
        with self._lock:
            self.fault = fault
            for counter in (self.asked, self.failed, self._times):
                counter.clear()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
