"""What the small services of the shop share: serving HTTP, calling HTTP over kept or fresh connections."""

import http.client
import http.server
import json
import signal
import sys
import threading
import time

TIMEOUT_SECONDS = 3


def serve(port, answer):
    """Serves GET and POST on `port`; `answer(path, body)` gives what is sent as JSON. A failure becomes a 502."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60

        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            try:
                status, content = (200, "ok") if self.path == "/healthz" else (200, answer(self.path, body))
            except Exception as error:
                status, content = 502, f"{type(error).__name__}: {error}"
                log(f"{self.path}: {content}")
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    exit_on_sigterm()
    server = http.server.ThreadingHTTPServer(("0.0.0.0", port), Handler)
    server.daemon_threads = True
    server.serve_forever()


def exit_on_sigterm():
    """The first process of a container ignores signals it has no handler for."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


class Kept:
    """One connection that stays open, used by one request at a time; a broken one is replaced at the next request."""

    def __init__(self, host):
        self.host = host
        self.connection = None
        self.lock = threading.Lock()

    def get(self, path):
        with self.lock:
            fresh = self.connection is None
            try:
                return self._get(path)
            except (OSError, http.client.HTTPException):
                if fresh:
                    raise
            # A server may close a connection that was idle: that is no failure.
            return self._get(path)

    def _get(self, path):
        if self.connection is None:
            self.connection = http.client.HTTPConnection(self.host, 80, timeout=TIMEOUT_SECONDS)
        try:
            return request(self.connection, "GET", path)
        except BaseException:
            self.connection.close()
            self.connection = None
            raise


def call(host, method, path, body=None, port=80):
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        return request(connection, method, path, body)
    finally:
        connection.close()


def request(connection, method, path, body=None):
    connection.request(method, path, body)
    response = connection.getresponse()
    content = response.read()
    if response.status != 200:
        raise OSError(f"{method} {path}: {response.status} {content[:200]!r}")
    return json.loads(content)


def for_ever(seconds, work):
    """Does `work` again and again; a failure is logged, and tried again like everything else."""
    exit_on_sigterm()
    while True:
        try:
            work()
        except Exception as error:
            log(f"{type(error).__name__}: {error}")
        time.sleep(seconds)


def log(text):
    print(text, flush=True)
