"""A small server that speaks ClickHouse's HTTP interface in front of chdb, and can be told to misbehave.

The real engine behind the real HTTP client of clickhouse-connect, without a ClickHouse server. chdb holds one engine
per process, so it runs as a child process:

    python -m tests.support.clickhouse_http --dir DIR [--port 0] [--user NAME --password WORD]

prints `{"port": …, "control_port": …}`. Tests use `ClickHouseHttp`, which starts, controls and ends it.
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

LOOPBACK = "127.0.0.1"
NO_SETTINGS = {
    "query",
    "database",
    "user",
    "password",
    "compress",
    "decompress",
    "session_id",
    "session_timeout",
    "session_check",
    "query_id",
    "quota_key",
    "wait_end_of_query",
    "buffer_size",
    "enable_http_compression",
    "client_protocol_version",
    "role",
    "default_format",
    "send_progress_in_http_headers",
    "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
}
"""Parameters of a request that are no settings for the engine."""

_INSERT = re.compile(
    rb"\s*INSERT\s+INTO\s+(?P<into>.+?)\s+FORMAT\s+(?P<format>\w+)[ \t]*\r?\n", re.IGNORECASE | re.DOTALL
)
_CODE = re.compile(r"Code: (\d+)")
_STATUS = {516: 403, 497: 403, 60: 404, 81: 404, 62: 400, 47: 404}


class Faults:
    """What the server does wrong, and to how many of the next requests whose SQL contains a text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[dict[str, Any]] = []
        self.requests = 0
        self.executed: deque[str] = deque(maxlen=10_000)

    def add(self, fault: dict[str, Any]) -> None:
        with self._lock:
            self._due.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._due.clear()

    def take(self, sql: str) -> dict[str, Any]:
        with self._lock:
            self.requests += 1
            for fault in self._due:
                if fault["match"].lower() in sql.lower():
                    fault["count"] -= 1
                    if fault["count"] <= 0:
                        self._due.remove(fault)
                    return fault
        return {"kind": "none"}

    def ran(self, sql: str) -> None:
        with self._lock:
            statement = sql.partition("FORMAT Native\n")[0]  # without the data
            self.executed.append(" ".join(statement.split())[:200])


class Engine:
    """chdb, with a handle for each request: handles share the data, and keep settings apart."""

    def __init__(self, directory: str) -> None:
        import chdb

        self._chdb, self._directory = chdb, directory
        self._keeper = chdb.connect(directory)

    def run(self, sql: bytes, database: str, settings: dict[str, str], parameters: dict[str, str]) -> bytes:
        """Executes one request; an answer without FORMAT is TabSeparated, as ClickHouse's is."""
        handle = self._chdb.connect(self._directory)
        try:
            if database:
                handle.query(f"USE `{database}`", "TabSeparated")
            for name, value in sorted(settings.items(), key=lambda item: item[0] == "readonly"):
                handle.query(f"SET {name} = '{_escaped(value)}'", "TabSeparated")
            insert = _INSERT.match(sql)
            if insert:
                return self._insert(handle, insert, sql[insert.end() :])
            return bytes(handle.query(sql.decode(), "TabSeparated", params=parameters).bytes() or b"")
        finally:
            handle.close()

    @staticmethod
    def _insert(handle: Any, insert: re.Match[bytes], data: bytes) -> bytes:
        with tempfile.NamedTemporaryFile(suffix=".data") as file:
            file.write(data)
            file.flush()
            into, kind = insert["into"].decode(), insert["format"].decode()
            handle.query(f"INSERT INTO {into} FROM INFILE '{file.name}' FORMAT {kind}", "TabSeparated")
        return b""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _decoded(body: bytes, encoding: str) -> bytes:
    if encoding in ("", "identity"):
        return body
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "lz4":
        return _without_lz4(body)
    raise ValueError(f"Code: 36. DB::Exception: Content-Encoding {encoding} is not known here")


def _without_lz4(body: bytes) -> bytes:
    """clickhouse-connect sends each block as a frame of its own."""
    import lz4.frame

    parts = []
    while body:
        frame = lz4.frame.LZ4FrameDecompressor()
        parts.append(frame.decompress(body))
        if not frame.eof:
            raise ValueError("Code: 117. DB::Exception: an LZ4 frame is not whole")
        body = frame.unused_data or b""
    return b"".join(parts)


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # head and body leave together: the client would else wait 40 ms for the body
    disable_nagle_algorithm = True
    engine: Engine
    faults: Faults
    credentials: tuple[str, str] | None

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if urlsplit(self.path).path == "/ping":
            self._answer(200, b"Ok.\n", {})
        else:
            self.do_POST()

    def do_POST(self) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            body = _decoded(self._body(), self.headers.get("Content-Encoding", ""))
        except ValueError as error:
            self._fail(str(error))
            return
        sql = query.get("query", "").encode()
        sql = sql + b"\n" + body if sql and body else sql or body
        shown = sql[:2000].decode(errors="replace")
        fault = self.faults.take(shown)
        if not self._before(fault) or not self._is_known():
            return
        self._execute(sql, query, shown, fault)

    def _before(self, fault: dict[str, Any]) -> bool:
        """What goes wrong before the engine sees the request; False: it never does."""
        if fault["kind"] == "cut_before":
            self._cut()
            return False
        if fault["kind"] == "delay":
            time.sleep(fault["seconds"])
        if fault["kind"] == "fail":
            self._fail(f"Code: {fault['code']}. DB::Exception: told to fail. (TOLD_TO_FAIL) (version 26.9.2.1)")
            return False
        return True

    def _is_known(self) -> bool:
        if self.credentials is None:
            return True
        given = (self.headers.get("X-ClickHouse-User", ""), self.headers.get("X-ClickHouse-Key", ""))
        basic = self.headers.get("Authorization", "")
        if basic.startswith("Basic "):
            user, _, password = base64.b64decode(basic[6:]).decode().partition(":")
            given = (user, password)
        if given == self.credentials:
            return True
        self._fail(f"Code: 516. DB::Exception: {given[0]}: Authentication failed. (AUTHENTICATION_FAILED)")
        return False

    def _execute(self, sql: bytes, query: dict[str, str], shown: str, fault: dict[str, Any]) -> None:
        settings = {n: v for n, v in query.items() if n not in NO_SETTINGS and not n.startswith("param_")}
        parameters = {n.removeprefix("param_"): v for n, v in query.items() if n.startswith("param_")}
        database = query.get("database") or self.headers.get("X-ClickHouse-Database", "")
        try:
            answer = self.engine.run(sql, database, settings, parameters)
        except Exception as error:
            self._fail(str(error))
            return
        self.faults.ran(shown)
        if fault["kind"] == "cut_after":
            self._cut()
            return
        headers = {"X-ClickHouse-Query-Id": query.get("query_id", ""), "X-ClickHouse-Timezone": "UTC"}
        if answer or not re.match(r"\s*(INSERT|CREATE|DROP|ALTER|SET|USE)", shown, re.IGNORECASE):
            form = re.search(r"FORMAT\s+(\w+)\s*$", shown, re.IGNORECASE)
            headers["X-ClickHouse-Format"] = form.group(1) if form else "TabSeparated"
        headers["X-ClickHouse-Summary"] = "{}"
        self._answer(200, answer, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, message: str) -> None:
        found = _CODE.search(message)
        code = int(found.group(1)) if found else 1002
        self._answer(_STATUS.get(code, 500), message.encode() + b"\n", {"X-ClickHouse-Exception-Code": str(code)})

    def _cut(self) -> None:
        """Ends the connection without an answer."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.connection.close()


class Listener(ThreadingHTTPServer):
    """Knows its connections, so that closing it ends them."""

    daemon_threads = True

    def __init__(self, port: int, handler: type[Handler]) -> None:
        self._connections: set[socket.socket] = set()
        super().__init__((LOOPBACK, port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end(self) -> None:
        self.shutdown()
        self.server_close()
        for connection in tuple(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class Server:
    """The listener for clients, which can be closed and opened again, and the one that controls it."""

    def __init__(self, engine: Engine, port: int, credentials: tuple[str, str] | None) -> None:
        self.faults = Faults()
        fields = {"engine": engine, "faults": self.faults, "credentials": credentials}
        self._handler = type("Bound", (Handler,), fields)
        self._listener: Listener | None = None
        self._listen(port)
        assert self._listener is not None
        self.port: int = self._listener.server_address[1]
        self.control = ThreadingHTTPServer((LOOPBACK, 0), type("BoundControl", (ControlHandler,), {"server_": self}))

    def _listen(self, port: int) -> None:
        listener = self._listener = Listener(port, self._handler)
        threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()

    def refuse(self, refuses: bool) -> None:
        """Closes the port, so that connections are refused, or opens it again."""
        if refuses and self._listener is not None:
            self._listener.end()
            self._listener = None
        elif not refuses and self._listener is None:
            self._listen(self.port)


class ControlHandler(BaseHTTPRequestHandler):
    """What the test says to the server."""

    server_: Server

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        faults = self.server_.faults
        if told["kind"] == "refuse":
            self.server_.refuse(told["refuses"])
        elif told["kind"] == "clear":
            faults.clear()
        elif told["kind"] != "state":
            faults.add(told)
        body = json.dumps({"requests": faults.requests, "executed": list(faults.executed)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class ClickHouseHttp:
    """The server as a child process: a context manager, synchronous or not. `kill` and `start` restart it.

    `match` narrows a fault to requests whose SQL contains it; `count` says how many of them meet it.
    """

    def __init__(self, directory: Path, *, user: str = "", password: str = "") -> None:
        self.directory = directory
        self.user, self.password = user, password
        self.port = 0
        self._control_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        """Starts it on a free port, or on the one that it had before."""
        command = [sys.executable, "-m", "tests.support.clickhouse_http", "--dir", str(self.directory)]
        command += ["--port", str(self.port)]
        if self.user:
            command += ["--user", self.user, "--password", self.password]
        root = Path(__file__).resolve().parents[2]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start: exit code {self._process.wait()}")
        ports = json.loads(line)
        self.port, self._control_port = ports["port"], ports["control_port"]
        return self

    def stop(self) -> None:
        """Ends it in an orderly way."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; `start` begins again on the same port with the same data."""
        self._end(signal.SIGKILL)

    def _end(self, sign: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(sign)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def dsn(self, database: str = "campaign_streams") -> str:
        """The DSN by which a client reaches it."""
        user = f"{self.user}:{self.password}@" if self.user else ""
        return f"clickhouse://{user}{LOOPBACK}:{self.port}/{database}"

    def refuse(self, refuses: bool = True) -> None:
        """Connections are refused until told otherwise."""
        self._tell(kind="refuse", refuses=refuses)

    def cut_before(self, count: int = 1, match: str = "") -> None:
        """Requests are cut before they are executed."""
        self._tell(kind="cut_before", count=count, match=match)

    def cut_after(self, count: int = 1, match: str = "") -> None:
        """Requests are executed, and cut before they are answered."""
        self._tell(kind="cut_after", count=count, match=match)

    def delay(self, seconds: float, count: int = 1, match: str = "") -> None:
        """Requests are executed late."""
        self._tell(kind="delay", seconds=seconds, count=count, match=match)

    def fail(self, code: int, count: int = 1, match: str = "") -> None:
        """Requests fail with one of ClickHouse's error codes, without being executed."""
        self._tell(kind="fail", code=code, count=count, match=match)

    def clear(self) -> None:
        """Forgets faults that are still due."""
        self._tell(kind="clear")

    def executed(self, match: str = "") -> list[str]:
        """The beginnings of the statements executed so far that contain `match`."""
        statements: Iterable[str] = self._tell(kind="state")["executed"]
        return [sql for sql in statements if match.lower() in sql.lower()]

    def _tell(self, **told: object) -> dict[str, Any]:
        url = f"http://{LOOPBACK}:{self._control_port}/"
        request = urllib.request.Request(url, json.dumps(told).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=20) as answer:
            state: dict[str, Any] = json.loads(answer.read())
        return state

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.stop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--dir", required=True)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    given = parser.parse_args()
    os.makedirs(given.dir, exist_ok=True)
    credentials = (given.user, given.password) if given.user else None
    server = Server(Engine(given.dir), given.port, credentials)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(json.dumps({"port": server.port, "control_port": server.control.server_address[1]}), flush=True)
    server.control.serve_forever()


if __name__ == "__main__":
    main()
