"""A schema registry as small as can be, over HTTP, which counts what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Registry:
    """Schemas of one subject, numbered from 1; ``asked`` has the path of each request."""

    def __init__(self, subject: str, schemas: list[str]) -> None:
        self.subject = subject
        self.schemas = schemas
        self.asked: list[str] = []
        self.away = False
        self.url = ""
        self.stop: Callable[[], None] = lambda: None

    def answer(self, path: str) -> tuple[int, object]:
        """Status and body for a path."""
        self.asked.append(path)
        if self.away:
            return 503, {"error_code": 50301, "message": "the registry is away"}
        numbers = range(1, len(self.schemas) + 1)
        versions = f"/subjects/{self.subject}/versions"
        if path == versions:
            return 200, list(numbers)
        for number in numbers:
            if path in (f"{versions}/{number}", f"/schemas/ids/{number}"):
                schema = self.schemas[number - 1]
                known = {"subject": self.subject, "version": number, "id": number}
                return 200, {**known, "schema": schema}
        return 404, {"error_code": 40403, "message": "Schema not found"}


@contextmanager
def serving(registry: Registry) -> Iterator[Registry]:
    """Serve on loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = registry.answer(self.path.partition("?")[0])
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Keep stderr as it is."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        registry.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def stop() -> None:
            server.shutdown()
            thread.join()
            server.socket.close()

        registry.stop = stop
        try:
            yield registry
        finally:
            stop()
