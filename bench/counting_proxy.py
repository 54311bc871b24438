"""A proxy before a registry that counts requests and pages the list of tags by 1 000, as GHCR and others do."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

PAGE = 1000


class CountingProxy(ThreadingHTTPServer):
    """``seen`` holds method and path of each request so far."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.seen: list[str] = []

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.server_address[1]}"


@contextmanager
def counting(upstream: str) -> Iterator[CountingProxy]:
    """A proxy before ``upstream`` (``host:port``) for the time of the block."""
    with CountingProxy(upstream) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CountingProxy

    def _pass_on(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        connection = HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.request(self.command, self.path, headers={"Accept": self.headers.get("Accept", "*/*")})
            answer = connection.getresponse()
            body, following = answer.read(), ""
            if answer.status == 200 and urlsplit(self.path).path.endswith("/tags/list"):
                body, following = _page(self.path, body)
            self.send_response(answer.status)
            for name in ("Content-Type", "Docker-Content-Digest", "Location"):
                if value := answer.getheader(name):
                    self.send_header(name, value)
            if following:
                self.send_header("Link", f'<{following}>; rel="next"')
            self.send_header(
                "Content-Length", answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            )
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
        finally:
            connection.close()

    do_GET = do_HEAD = _pass_on  # noqa: N815 - http.server asks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _page(path: str, body: bytes) -> tuple[bytes, str]:
    """One page of a list of tags, and the path of the next."""
    document = json.loads(body)
    asked = parse_qs(urlsplit(path).query)
    size, last = min(int(asked.get("n", ["1000"])[0]), PAGE), asked.get("last", [""])[0]
    tags = [tag for tag in sorted(document["tags"] or ()) if tag > last]
    document["tags"] = tags[:size]
    more = f"{urlsplit(path).path}?n={size}&last={quote(tags[size - 1])}" if len(tags) > size else ""
    return json.dumps(document).encode(), more
