"""Asks a worker on this machine over its loopback API: its status, and SQL while it holds the embedded ClickHouse."""

import http.client
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from pydantic import SecretStr

from streams.adapters.clickhouse_query import QueryLimits, QueryResult
from streams.errors import CampaignStreamsError, ConfigurationError, QueryRefused, Unavailable
from streams.settings import LOOPBACK, KafkaSettings, Settings

STATUS_TIMEOUT_S: Final = 5.0
QUERY_TIMEOUT_S: Final = 35.0
MAX_ANSWER_BYTES: Final = 256 * 1024**2
WORKER_FILE: Final = "worker.json"
_EVERYWHERE: Final = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "::1"}


class WorkerUnavailable(Unavailable):
    """No worker answers at the address."""


class WorkerClosed(WorkerUnavailable):
    """A worker answers, but wants an operator's token."""


class _WorkerFile(msgspec.Struct):
    web: str
    bootstrap_servers: str = ""
    idempotent_producer: bool = False


class _Answer(msgspec.Struct):
    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[object, ...]]
    truncated: bool | None = None


class _Refusal(msgspec.Struct):
    error: str | None = None
    detail: str = "no reason given"


class WorkerApi:
    """One worker. Nothing is connected before it is asked."""

    def __init__(self, host: str, port: int, remedy: str, token: SecretStr | None = None) -> None:
        """`remedy` is what to do when it does not answer; `token` is an operator's, where the worker needs one."""
        self.host = _EVERYWHERE.get(host, host)
        self.port = port
        self._remedy = remedy
        self._headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"

    def status(self) -> dict[str, object]:
        """The document of /api/status.

        Raises:
            WorkerUnavailable: nobody answers, somebody else does, or the worker is still starting.
        """
        code, body = self._ask("GET", "/api/status", None, STATUS_TIMEOUT_S)
        self._refuse_if_closed(code, body)
        if code != http.client.OK:
            raise WorkerUnavailable(f"the worker at {self} is not ready ({_reason(body)}); wait a moment")
        try:
            document = msgspec.json.decode(body, type=dict[str, object])
            if "ledger" not in document:
                raise msgspec.ValidationError("no ledger")
        except msgspec.DecodeError as error:
            raise WorkerUnavailable(f"what answers at {self} is no worker ({error}); {self._remedy}") from None
        return document

    def query(self, sql: str, max_rows: int) -> QueryResult:
        """A read-only statement, answered by the worker within its own limits (`QueryLimits`).

        Raises:
            QueryRefused: the statement is wrong or beyond the worker's limits.
            WorkerUnavailable: nobody answers.
        """
        code, body = self._ask("POST", "/api/query", sql.encode(), QUERY_TIMEOUT_S)
        self._refuse_if_closed(code, body)
        if code == http.client.SERVICE_UNAVAILABLE:
            raise WorkerUnavailable(f"the worker at {self} is not ready ({_reason(body)}); wait a moment")
        if code != http.client.OK:
            raise QueryRefused(_reason(body))
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except msgspec.DecodeError as error:
            raise WorkerUnavailable(f"what answers at {self} is no worker ({error}); {self._remedy}") from None
        is_cut = answer.truncated if answer.truncated is not None else len(answer.rows) >= QueryLimits().max_rows
        rows = answer.rows[:max_rows]
        return QueryResult(answer.columns, answer.types, rows, is_cut or len(answer.rows) > max_rows)

    def _refuse_if_closed(self, code: int, body: bytes) -> None:
        if code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
            raise WorkerClosed(
                f"the worker at {self} does not let us in ({_reason(body)}); set console.token to an operator's"
            )

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)  # no proxy: it is loopback
        try:
            connection.request(method, path, body=body, headers=self._headers)
            response = connection.getresponse()
            return response.status, response.read(MAX_ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise WorkerUnavailable(f"no worker answers at {self} ({what.lower()}); {self._remedy}") from None
        finally:
            connection.close()


def _reason(body: bytes) -> str:
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
        return refusal.error or refusal.detail
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace") or "no reason given"


def worker_of_settings(settings: Settings) -> WorkerApi:
    """The worker that these settings describe."""
    remedy = "start one (campaign-streams worker), mend worker.web_port, or give --data-dir DIR for that of a demo"
    return WorkerApi(settings.worker.web_host, settings.worker.web_port, remedy, settings.console.token)


def worker_of_directory(data_dir: Path) -> WorkerApi:
    """The worker of the demo that runs with this data directory.

    Raises:
        ConfigurationError: there is no such directory.
        WorkerUnavailable: no demo runs there.
    """
    remedy = _start_of(data_dir)
    file = _worker_file(data_dir)
    try:
        parts = urlsplit(file.web)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{data_dir / WORKER_FILE} is not a demo's ({error}); {remedy}") from None
    if parts.hostname is None or port is None:
        raise ConfigurationError(f"{data_dir / WORKER_FILE} names no address; {remedy}")
    return WorkerApi(parts.hostname, port, remedy)


def kafka_of_directory(data_dir: Path) -> KafkaSettings:
    """How to reach the broker of the demo that runs with this data directory.

    Raises:
        ConfigurationError, WorkerUnavailable: as `worker_of_directory`.
    """
    file = _worker_file(data_dir)
    if not file.bootstrap_servers:
        raise ConfigurationError(f"{data_dir / WORKER_FILE} names no broker; {_start_of(data_dir)}")
    return KafkaSettings(bootstrap_servers=file.bootstrap_servers, idempotent_producer=file.idempotent_producer)


def _start_of(data_dir: Path) -> str:
    return f"start it with `campaign-streams demo --data-dir {data_dir}`"


def _worker_file(data_dir: Path) -> _WorkerFile:
    if not data_dir.is_dir():
        raise ConfigurationError(f"--data-dir: {data_dir} is no directory; give that of a demo")
    try:
        return msgspec.json.decode((data_dir / WORKER_FILE).read_bytes(), type=_WorkerFile)
    except FileNotFoundError:
        raise WorkerUnavailable(
            f"no demo runs in {data_dir} (it has no {WORKER_FILE}); {_start_of(data_dir)}"
        ) from None
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise ConfigurationError(f"{data_dir / WORKER_FILE} is not a demo's ({error}); {_start_of(data_dir)}") from None


def is_running(worker: WorkerApi | None) -> bool:
    """Whether a worker answers there. Raises WorkerClosed where it wants a token: what is missing is told then."""
    try:
        return worker is not None and bool(worker.status())
    except WorkerClosed:
        raise
    except CampaignStreamsError:
        return False
