"""A web server of this machine, for what is read from addresses."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextlib.contextmanager
def web_server(files: Mapping[str, bytes], *, pause_s: float = 0.0) -> Iterator[str]:
    """Serve files by their paths; give the address of the folder. ``pause_s`` passes before each further kilobyte."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for begin in range(0, len(content or b""), 1024):
                    self.wfile.write((content or b"")[begin : begin + 1024])
                    time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
