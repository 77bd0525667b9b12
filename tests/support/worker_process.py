"""A worker as production runs it: `campaign-streams worker`, a process of its own, told by environment."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Self

from streams.adapters.embedded_broker import dies_with_parent, free_port
from streams.settings import LOOPBACK, KafkaSettings

PREFIX: Final = "CAMPAIGN_STREAMS_"
POLL_S: Final = 0.1
TIMEOUT_S: Final = 120.0


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with exactly these settings."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return outside | {PREFIX + name: value for name, value in settings.items()}


def worker_settings(directory: Path, kafka: KafkaSettings, dsn: str, **more: str) -> dict[str, str]:
    """Settings of a worker that reaches this broker and this ClickHouse; `more` is stronger."""
    return {
        "KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA__IDEMPOTENT_PRODUCER": str(kafka.idempotent_producer).lower(),
        "CLICKHOUSE__DSN": dsn,
        "WORKER__STATE_DIR": str(directory / "state"),
        "RULES": '{"report_every_ms": 1000}',
    } | more


class WorkerProcess:
    """One worker at a time; `start` again after it has ended. Its output goes to DIRECTORY/worker.log."""

    def __init__(self, directory: Path, settings: Mapping[str, str]) -> None:
        self.directory = directory
        self.settings = dict(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._web_port = 0

    def start(self) -> Self:
        """Starts it and returns at once. Call from the main thread only: Linux ends the child with its thread."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._web_port = free_port()
        own = {"WORKER__WEB_PORT": str(self._web_port)}
        with self.log_file.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "worker"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment(self.settings | own),
                cwd=self.directory,
                start_new_session=True,
                preexec_fn=dies_with_parent(),
            )
        return self

    @property
    def log_file(self) -> Path:
        return self.directory / "worker.log"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def output(self) -> str:
        """Everything that it has said, over all starts."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)

    def pause(self) -> None:
        """SIGSTOP: it stands still, as in a long garbage collection or on a frozen machine."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if nothing had happened."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def terminate(self, timeout_s: float = TIMEOUT_S) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return await self.ended(timeout_s)

    async def ended(self, timeout_s: float = TIMEOUT_S) -> int:
        """Waits until it ends by itself; its exit code."""
        assert self._process is not None
        try:
            return await asyncio.to_thread(self._process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker has not ended after {timeout_s} s:\n{self.output()[-3000:]}") from None

    def close(self) -> None:
        """For the end of a test, whatever state it is in."""
        self.kill()

    async def status(self) -> dict[str, Any] | None:
        """What it says of itself, or None while it does not answer."""
        return await asyncio.to_thread(self._status)

    def _status(self) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._web_port}/api/status", timeout=10) as answer:
                document: dict[str, Any] = json.loads(answer.read())
                return document
        except (urllib.error.URLError, OSError, ValueError):
            return None

    async def until(self, holds: Callable[[dict[str, Any]], bool], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Waits until its status satisfies `holds`, and returns it."""
        deadline = time.monotonic() + timeout_s
        status = None
        while time.monotonic() < deadline:
            if not self.is_running:
                raise AssertionError(f"the worker has ended:\n{self.output()[-3000:]}")
            status = await self.status()
            if status is not None and holds(status):
                return status
            await asyncio.sleep(POLL_S)
        raise AssertionError(f"not after {timeout_s} s: {status}\n{self.output()[-3000:]}")

    async def until_owning(self, partitions: int) -> dict[str, Any]:
        """Waits until it owns that many partitions."""
        return await self.until(lambda status: len(status["partitions"]) == partitions)


async def until(holds: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not after {timeout_s} s"
        await asyncio.sleep(POLL_S / 5)
