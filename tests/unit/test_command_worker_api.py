"""Asking a worker over loopback: a small server stands for it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from streams.adapters.embedded_broker import free_port
from streams.cli import app
from streams.commands.worker_api import (
    WorkerApi,
    WorkerClosed,
    WorkerUnavailable,
    is_running,
    kafka_of_directory,
    worker_of_directory,
)
from streams.errors import ConfigurationError, QueryRefused

Answers = dict[str, tuple[int, bytes]]
STATUS = {"ledger": {"clicks": {"consumed": 1, "counted": 1}}, "partitions": [0], "campaigns": []}


class Stub:
    """Answers by path."""

    def __init__(self) -> None:
        self.answers: Answers = {}
        self.asked: list[bytes] = []
        self.shown: list[str | None] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                stub.shown.append(self.headers.get("Authorization"))
                stub.asked.append(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
                code, body = stub.answers.get(self.path, (404, b"nothing here"))
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def stub() -> Iterator[Stub]:
    found = Stub()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


@pytest.fixture
def api(stub: Stub) -> WorkerApi:
    return WorkerApi("127.0.0.1", stub.port, "start one")


def test_the_status_is_the_workers_document(stub: Stub, api: WorkerApi) -> None:
    stub.answers["/api/status"] = (200, json.dumps(STATUS).encode())
    assert api.status() == STATUS
    assert is_running(api)


def test_a_token_of_the_settings_is_shown_and_a_missing_one_is_named(stub: Stub) -> None:
    stub.answers["/api/status"] = (401, b'{"detail": "a token is needed"}')
    closed = WorkerApi("127.0.0.1", stub.port, "start one", SecretStr("cs_x_y"))
    with pytest.raises(WorkerClosed, match=r"a token is needed.*console\.token"):
        is_running(closed)
    assert stub.shown == ["Bearer cs_x_y"]


@pytest.mark.parametrize(
    ("code", "body", "told"),
    [
        (503, b'{"error": "the worker is starting"}', "the worker is starting"),
        (200, b"<html>", "no worker"),
        (200, b"{}", "no worker"),
        (200, b"[]", "no worker"),
        (404, b"nothing here", "not ready"),
    ],
)
def test_whoever_else_answers_is_told_apart(stub: Stub, api: WorkerApi, code: int, body: bytes, told: str) -> None:
    stub.answers["/api/status"] = (code, body)
    with pytest.raises(WorkerUnavailable, match=told):
        api.status()
    assert not is_running(api)


def test_nobody_there_is_an_error_with_its_remedy() -> None:
    with pytest.raises(WorkerUnavailable, match=r"no worker answers at .*; start one"):
        WorkerApi("127.0.0.1", free_port(), "start one").status()


def test_a_query_is_answered_with_columns_types_and_rows(stub: Stub, api: WorkerApi) -> None:
    body = {"columns": ["a"], "types": ["UInt8"], "rows": [[1], [2], [3]]}
    stub.answers["/api/query"] = (200, json.dumps(body).encode())
    result = api.query("SELECT 鑑", 2)
    assert (result.columns, result.types, result.rows, result.truncated) == (("a",), ("UInt8",), [(1,), (2,)], True)
    assert stub.asked == ["SELECT 鑑".encode()]


def test_a_refused_query_says_why(stub: Stub, api: WorkerApi) -> None:
    stub.answers["/api/query"] = (400, b'{"error": "ask a question"}')
    with pytest.raises(QueryRefused, match="ask a question"):
        api.query("DROP TABLE x", 10)


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"web": "http://127.0.0.1"}', b'{"web": "http://h:x"}', b"\xff"])
def test_a_broken_worker_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "worker.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"worker\.json"):
        worker_of_directory(tmp_path)


def test_a_directory_without_a_demo_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(WorkerUnavailable, match="campaign-streams demo --data-dir"):
        worker_of_directory(tmp_path)
    with pytest.raises(ConfigurationError, match="is no directory"):
        worker_of_directory(tmp_path / "absent")


def test_the_broker_of_a_demo_is_found_by_its_directory(tmp_path: Path) -> None:
    """Also of one that a version started which did not tell it: then it says how to start one."""
    place = {"web": "http://127.0.0.1:1", "bootstrap_servers": "127.0.0.1:2", "idempotent_producer": False}
    (tmp_path / "worker.json").write_text(json.dumps(place))
    kafka = kafka_of_directory(tmp_path)
    assert (kafka.bootstrap_servers, kafka.idempotent_producer) == ("127.0.0.1:2", False)
    (tmp_path / "worker.json").write_text(json.dumps({"web": "http://127.0.0.1:1"}))
    with pytest.raises(ConfigurationError, match=r"names no broker; start it with"):
        kafka_of_directory(tmp_path)
    with pytest.raises(ConfigurationError, match="is no directory"):
        kafka_of_directory(tmp_path / "absent")


def test_top_shows_the_worker_of_a_data_directory(stub: Stub, tmp_path: Path) -> None:
    stub.answers["/api/status"] = (200, json.dumps(STATUS).encode())
    (tmp_path / "worker.json").write_text(json.dumps({"web": f"http://127.0.0.1:{stub.port}", "pid": 1}))
    result = CliRunner().invoke(app, ["top", "--once", "--data-dir", str(tmp_path)], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    assert "Ledger" in result.output
    assert f"http://127.0.0.1:{stub.port}" in result.output


def test_top_without_a_worker_fails_at_once(tmp_path: Path) -> None:
    (tmp_path / "worker.json").write_text(json.dumps({"web": f"http://127.0.0.1:{free_port()}"}))
    result = CliRunner().invoke(app, ["top", "--data-dir", str(tmp_path)])
    assert isinstance(result.exception, WorkerUnavailable)
