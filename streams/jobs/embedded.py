"""The embedded system: a broker and a worker as children of this process, everything else in one directory.

The broker is the supervisor's child, not the worker's: a worker that is killed comes back to it. The broker keeps
records in memory only, so each start is a new log: the log epoch in DIR/epoch is raised, and rows of earlier starts
stay true beside the new ones.
"""

import asyncio
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Protocol, Self

import aiohttp

from streams.adapters.embedded_broker import EmbeddedBroker, dies_with_parent, free_port
from streams.adapters.kafka_admin import create_topics
from streams.errors import CampaignStreamsError, ConfigurationError
from streams.settings import LOOPBACK, KafkaSettings

log = logging.getLogger(__name__)

PARTITIONS = 4
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.1
RESTARTS = 100
"""Restarts of a worker that died by itself, before the supervisor gives up."""


class Broker(Protocol):
    """What the embedded system starts in front of its worker: the embedded broker, or for measurements another."""

    async def start(self) -> Any: ...
    async def stop(self) -> None: ...
    @property
    def settings(self) -> KafkaSettings: ...
    @property
    def bootstrap_servers(self) -> str: ...


class EmbeddedSystem:
    """`async with EmbeddedSystem(directory) as system:`; then load into `system.kafka` and ask `system.status()`."""

    def __init__(
        self,
        directory: Path,
        partitions: int = PARTITIONS,
        settings: dict[str, str] | None = None,
        with_worker: bool = True,
        broker: Broker | None = None,
    ) -> None:
        self.directory = directory
        self.with_worker = with_worker
        self.partitions = partitions
        self.extra = settings or {}
        self.restarts = 0
        self.log_epoch = 0
        self.broker: Broker = broker or EmbeddedBroker()
        self._worker: subprocess.Popen[bytes] | None = None
        self._web_port = 0
        self._watch: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None
        self._lock: IO[str] | None = None

    @property
    def kafka(self) -> KafkaSettings:
        """How to reach the broker."""
        return self.broker.settings.model_copy(update={"partitions": self.partitions})

    @property
    def web(self) -> str:
        """The worker's address."""
        return f"http://{LOOPBACK}:{self._web_port}"

    @property
    def has_broker(self) -> bool:
        """Whether the embedded broker runs; of another broker that is taken for granted."""
        return not isinstance(self.broker, EmbeddedBroker) or self.broker.running

    @property
    def worker_pid(self) -> int | None:
        """The worker's process id while it runs."""
        return self._worker.pid if self._worker is not None and self._worker.poll() is None else None

    async def __aenter__(self) -> Self:
        self._lock = held(self.directory)
        try:
            self.log_epoch = _next_epoch(self.directory / "epoch")
            await self.broker.start()
            await create_topics(self.kafka)
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=35), headers=self._headers())
            if self.with_worker:
                await self.run_worker()
        except BaseException:
            await self._close()
            raise
        return self

    def _headers(self) -> dict[str, str]:
        """An operator's token, where the worker's settings have tokens."""
        token = self.extra.get("CONSOLE__TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    async def run_worker(self) -> None:
        """Starts the worker, waits until it is ready, and from then on restarts it when it dies."""
        self.start_worker()
        await self.until_ready()
        self._watch = asyncio.create_task(self._restart_when_dead())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        if not self.has_broker:
            self.kill_worker()  # without a broker no tick can be confirmed: there is nothing to wait for
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # what was under way to it fails unheard
        await self.stop_worker()
        if self._session is not None:
            await self._session.close()
        await self.broker.stop()
        (self.directory / "worker.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()

    # The worker

    def environment(self) -> dict[str, str]:
        """The worker's settings, as environment."""
        prefix = "CAMPAIGN_STREAMS_"
        own = {
            "KAFKA__BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "KAFKA__ASSIGNMENT": "all",
            "KAFKA__IDEMPOTENT_PRODUCER": str(self.broker.settings.idempotent_producer).lower(),
            "CLICKHOUSE__DSN": f"chdb://{(self.directory / 'clickhouse').resolve()}",
            "WORKER__CHECKPOINT_STORE": "directory",
            "WORKER__STATE_DIR": str((self.directory / "state").resolve()),
            "WORKER__WEB_PORT": str(self._web_port),
            "WORKER__LOG_EPOCH": str(self.log_epoch),
        }
        outside = {k: v for k, v in os.environ.items() if not k.startswith(prefix)}
        return outside | {prefix + name: value for name, value in (own | self.extra).items()}

    def start_worker(self) -> None:
        """Starts the worker's process; its log is DIR/worker.log."""
        self._web_port = free_port()
        with (self.directory / "worker.log").open("ab") as out:
            self._worker = subprocess.Popen(
                [sys.executable, "-m", "streams.cli", "worker"],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=self.environment(),
                cwd=self.directory,  # a settings file where the user stands is not meant for this worker
                start_new_session=True,  # Ctrl-C in the terminal reaches us, and we end it in order
                preexec_fn=dies_with_parent(),  # one system call, no lock taken
            )
        broker = self.broker.settings
        place = {
            "web": self.web,
            "pid": self._worker.pid,
            "bootstrap_servers": broker.bootstrap_servers,
            "idempotent_producer": broker.idempotent_producer,
        }
        (self.directory / "worker.json").write_text(json.dumps(place))

    def kill_worker(self) -> None:
        """SIGKILL, as a crash would; the supervisor starts another."""
        if self._worker is not None:
            self._worker.kill()

    async def stop_worker(self) -> None:
        """SIGTERM, and SIGKILL if it takes too long."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(worker.wait, STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("the worker did not end in %.0f s and was killed", STOP_TIMEOUT_S)
            worker.kill()
            worker.wait()

    async def until_ready(self) -> None:
        """Waits until the worker has its partitions.

        Raises:
            ConfigurationError: it ended instead; the message quotes its last words.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._worker is None or self._worker.poll() is not None:
                raise ConfigurationError(f"the worker ended at start: {self._last_words()}")
            status = await self.status()
            if status is not None and len(status["partitions"]) == self.partitions:
                return
            await asyncio.sleep(POLL_S)
        raise CampaignStreamsError(f"the worker is not ready after {START_TIMEOUT_S:.0f} s; see {self._log_file()}")

    async def until_broker_ends(self) -> NoReturn:
        """Returns never while the embedded broker runs, or where another one is used.

        Raises:
            CampaignStreamsError: it has ended. It keeps its records in memory, so nothing can go on.
        """
        while self.has_broker:  # noqa: ASYNC110 - a process
            await asyncio.sleep(POLL_S)
        raise CampaignStreamsError(
            "the embedded broker has ended, perhaps for want of memory: it keeps every record (README: limits); what "
            f"ClickHouse has got is in {self.directory}; start again, with a lower --rate or a shorter --duration"
        )

    async def _restart_when_dead(self) -> None:
        while self.restarts < RESTARTS:
            await asyncio.sleep(POLL_S)
            if self._worker is not None and self._worker.poll() is not None:
                self.restarts += 1
                self.start_worker()

    def _log_file(self) -> Path:
        return self.directory / "worker.log"

    def _last_words(self) -> str:
        lines = self._log_file().read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"

    # Asking it

    async def status(self, top: int = 0) -> dict[str, Any] | None:
        """The worker's status with so many campaigns (they cost the worker most), or None while it does not answer."""
        assert self._session is not None
        try:
            async with self._session.get(f"{self.web}/api/status", params={"top": top}) as answer:
                return await answer.json() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def query(self, sql: str) -> list[list[Any]]:
        """Rows of a read-only statement, through the worker.

        Raises:
            CampaignStreamsError: the statement was refused, or nobody answers.
        """
        assert self._session is not None
        try:
            async with self._session.post(f"{self.web}/api/query", data=sql.encode()) as answer:
                document = await answer.json()
                if answer.status != 200:
                    raise CampaignStreamsError(f"{sql.split()[0]}: {document.get('error')}")
                rows: list[list[Any]] = document["rows"]
                return rows
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise CampaignStreamsError(f"the worker does not answer ({error}); see {self._log_file()}") from None

    async def until_drained(self, records: int, timeout_s: float = 600.0) -> dict[str, Any]:
        """Waits until `records` input records have been consumed, and their rows acknowledged; returns the status."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = await self.status()
            if status is not None and is_drained(status, records):
                return status
            await asyncio.sleep(POLL_S)
        raise CampaignStreamsError(f"the worker has not drained after {timeout_s:.0f} s; see {self._log_file()}")


def is_drained(status: dict[str, Any], records: int) -> bool:
    """Whether that many input records have been consumed and everything they gave has been acknowledged."""
    consumed = sum(entries["consumed"] for entries in status["ledger"].values())
    waiting = status["dirty_rows"] or status["waiting_reports"] or status["recovering"]
    return consumed >= records and not waiting and status["ticked"] and status["sink_up"]


def held(directory: Path) -> IO[str]:
    """Makes the directory where needed, and holds it until the file that is returned is closed.

    Raises:
        ConfigurationError: it cannot be written, or another embedded system holds it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        raise ConfigurationError(f"{directory} cannot be written ({error.strerror}); give another --data-dir") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigurationError(f"another demo runs in {directory}; end it, or give another --data-dir") from None
    return lock


def _next_epoch(file: Path) -> int:
    try:
        epoch = int(file.read_text()) + 1
    except FileNotFoundError:
        epoch = 0
    except ValueError:
        raise ConfigurationError(f"{file} does not hold a number; give another --data-dir") from None
    file.write_text(str(epoch))
    return epoch
