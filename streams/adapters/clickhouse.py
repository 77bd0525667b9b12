"""Rows into ClickHouse: a server over HTTP, or the same engine in this process (chdb). Only the DSN differs.

`ClickHouseSink` is the port `RowSink`. Inserting twice is harmless: rows are absolute, and the highest version wins.
"""

import asyncio
import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import Any, Final

import clickhouse_connect
from clickhouse_connect.driver import options as driver_options

from streams.adapters.clickhouse_columns import columns_of
from streams.adapters.clickhouse_dsn import ChdbTarget, HttpTarget, Target, parse_dsn
from streams.adapters.clickhouse_errors import brief, is_operating, mapped
from streams.adapters.clickhouse_migrations import migrate, record_rules
from streams.errors import ConfigurationError, SinkUnavailable
from streams.records import COLUMNS, Row, Table
from streams.rules import Rules
from streams.settings import ClickHouseSettings

INSERT_SETTINGS: Final[dict[str, Any]] = {
    "async_insert": 0,  # on by default since 26.2: an answer would not mean that a reader sees the rows
    "wait_end_of_query": 1,
    "max_partitions_per_insert_block": 1_000,  # months of one block; a loaded history has many
}
CONNECT_TIMEOUT_S: Final = 10
driver_options.pd = None  # or the first insertion imports pandas (chdb brings it), to see whether it is given a frame


class EngineHeld(ConfigurationError):
    """Another process has the embedded engine's directory."""


def connect(
    settings: ClickHouseSettings, *, create_database: bool = True, session: dict[str, Any] | None = None
) -> Any:
    """Opens a client of clickhouse-connect, its database selected.

    Args:
        create_database: create the database that the DSN names where it is missing.
        session: settings of ClickHouse that hold for everything the client does.

    Raises:
        ConfigurationError: the DSN, the rights, or the directory (held by another process) are wrong.
        SinkUnavailable: the server does not answer.
    """
    target = parse_dsn(settings.dsn.get_secret_value())
    client = open_client(target, settings.timeout_s, {})
    try:
        _use_database(client, target, create_database)
        for name, value in (session or {}).items():
            client.set_client_setting(name, value)
    except Exception as error:
        client.close()
        if not is_operating(error):
            raise
        raise mapped(error, target, "opening the database") from None
    return client


def open_client(target: Target, timeout_s: float, session: dict[str, Any]) -> Any:
    """Opens a client without selecting a database; raises as `connect` does."""
    for library in ("clickhouse_connect", "urllib3.connectionpool"):  # they also log whatever they raise
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        if isinstance(target, ChdbTarget):
            return _open_chdb(target, session)
        return _open_http(target, timeout_s, session)
    except ImportError:
        raise ConfigurationError(
            "the embedded ClickHouse (chdb) is not installed; pip install 'campaign-streams[embedded]' brings it"
        ) from None
    except Exception as error:
        if not is_operating(error):
            raise
        raise _cannot_open(error, target) from None


def _open_chdb(target: ChdbTarget, session: dict[str, Any]) -> Any:
    target.directory.mkdir(parents=True, exist_ok=True)
    return clickhouse_connect.get_client(interface="chdb", path=str(target.directory), settings=session)


def _open_http(target: HttpTarget, timeout_s: float, session: dict[str, Any]) -> Any:
    options: dict[str, Any] = {"compress": "lz4", **target.options}
    return clickhouse_connect.get_client(
        interface="https" if target.secure else "http",
        host=target.host,
        port=target.port,
        username=target.user,
        password=target.password,
        settings=session,
        connect_timeout=min(CONNECT_TIMEOUT_S, ceil(timeout_s)),
        send_receive_timeout=ceil(timeout_s),  # clickhouse-connect takes whole seconds
        autogenerate_session_id=False,  # a session stays locked while the server still works on a cut request
        dedicated_pool=True,  # closing this client closes its connections, and no others
        **options,
    )


def _cannot_open(error: Exception, target: Target) -> Exception:
    if not isinstance(target, ChdbTarget):
        return mapped(error, target, "connecting to ClickHouse")
    text = brief(error, target)
    if "already initialized with path" in text:
        return ConfigurationError(f"this process has another embedded ClickHouse open than {target}; use one directory")
    if is_held(target.directory):
        return EngineHeld(
            f"the embedded ClickHouse at {target.directory} is held by another process, most likely a worker; "
            "go through that worker's API, or stop it"
        )
    return ConfigurationError(f"the embedded ClickHouse at {target.directory} cannot be opened: {text}; check the disk")


def is_held(directory: Path) -> bool:
    """Whether another process has the engine's lock: it keeps a flock on the file `status`."""
    try:
        handle = os.open(directory / "status", os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _use_database(client: Any, target: Target, create: bool) -> None:
    name = target.database
    exists = client.command(
        "SELECT count() FROM system.databases WHERE name = {name:String}", parameters={"name": name}
    )
    if not int(exists):
        if not create:
            raise ConfigurationError(f"{target} has no database {name}; start a worker first, or mend clickhouse.dsn")
        client.command("CREATE DATABASE IF NOT EXISTS {name:Identifier}", parameters={"name": name})
    client.database = name


class ClickHouseSink:
    """The port `RowSink`, with one thread and one client of its own: neither is used concurrently."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._target = parse_dsn(settings.dsn.get_secret_value())
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="clickhouse-sink")
        self._client: Any = None
        self._types: dict[Table, dict[str, str]] = {}

    async def start(self) -> None:
        """Connects, and brings the database's schema to this version.

        Raises:
            ConfigurationError: DSN, rights or schema are wrong.
            SinkUnavailable: the server does not answer; call again later.
        """
        await self._run(self._migrate)

    def _migrate(self) -> None:
        migrate(self._connected())

    async def record_rules(self, rules: Rules, at_ms: int) -> None:
        """Notes what the fingerprint of these rules stands for, for the views and for people.

        Raises:
            SinkUnavailable: the server does not answer; call again later.
        """
        await self._run(lambda: record_rules(self._connected(), rules, at_ms))

    async def insert(self, table: Table, rows: Sequence[Row]) -> None:
        """Inserts rows in the order of `COLUMNS[table]`; returns when a reader can see them.

        A row's measures that are not its input's must be 0 (they are not looked at). `rows` must stay as they are
        until this returns; when it is cancelled, the insertion goes on.

        Raises:
            SinkUnavailable: it did not answer in time; the rows may or may not be in.
            ConfigurationError: the table or a column is missing, or the rights are.
            clickhouse_connect's DataError: a value does not fit its column (a pane after the year 2105, for one).
        """
        if rows:
            await self._run(lambda: self._insert(table, rows))

    def _insert(self, table: Table, rows: Sequence[Row]) -> None:
        client, size = self._connected(), self._settings.max_rows_per_insert
        types = self._types_of(client, table)
        for start in range(0, len(rows), size):
            names, columns = columns_of(table, rows[start : start + size] if len(rows) > size else rows)
            context = client.create_insert_context(
                table.value,
                names,
                column_type_names=[types[name] for name in names],
                column_oriented=True,
                settings=INSERT_SETTINGS,
                data=columns,
            )
            client.insert(context=context)

    def _types_of(self, client: Any, table: Table) -> dict[str, str]:
        known = self._types.get(table)
        if known is None:
            described = client.query(f"DESCRIBE TABLE {table.value}").named_results()
            known = self._types[table] = {column["name"]: column["type"] for column in described}
        missing = [name for name in COLUMNS[table] if name not in known]
        if missing:
            self._types.pop(table)
            raise ConfigurationError(f"{self._target}: {table.value} has no {', '.join(missing)}; run the migrations")
        return known

    def _connected(self) -> Any:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    async def _run(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Runs in the thread. A client that has failed is not used again: chdb may hold a half-written answer."""
        try:
            work()
        except Exception as error:
            self._drop_client()
            found = mapped(error, self._target, "writing to ClickHouse") if is_operating(error) else error
            if isinstance(found, SinkUnavailable):  # whoever writes keeps the rows; whoever asks has to ask again
                raise SinkUnavailable(f"{found}; it is tried again") from None
            if found is error:
                raise
            raise found from None

    def _drop_client(self) -> None:
        client, self._client = self._client, None
        self._types = {}
        if client is not None:
            client.close()

    async def close(self) -> None:
        """Waits for what is being inserted, and closes the client."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._drop_client)
        self._thread.shutdown()
