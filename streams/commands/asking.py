"""Asks ClickHouse wherever it is: a server, the embedded engine's directory, or the worker that holds it."""

from pathlib import Path
from typing import Any

from streams.adapters.clickhouse import is_held
from streams.adapters.clickhouse_dsn import ChdbTarget, parse_dsn
from streams.adapters.clickhouse_query import ClickHouseReader, QueryLimits, QueryResult
from streams.commands.worker_api import WorkerApi, is_running, worker_of_directory, worker_of_settings
from streams.errors import CampaignStreamsError, ConfigurationError, QueryRefused
from streams.settings import ClickHouseSettings, load_settings

ENGINE_DIRECTORY = "clickhouse"
"""Where a demo's data directory holds the embedded ClickHouse."""


class Asker:
    """Asks statement after statement. Close it."""

    def __init__(self, settings: ClickHouseSettings, worker: WorkerApi | None) -> None:
        """`worker` is asked when the embedded engine cannot be opened here: one process at a time may hold it."""
        self._settings = settings
        self._target = parse_dsn(settings.dsn.get_secret_value())
        self._worker = worker
        self._reader: ClickHouseReader | None = None
        self.goes_through_worker = False

    def __str__(self) -> str:
        return f"the worker at {self._worker}" if self.goes_through_worker else str(self._target)

    def ask(self, sql: str, limits: QueryLimits | None = None) -> QueryResult:
        """The answer to one read-only statement.

        Raises:
            QueryRefused: the statement is wrong, would change something, or is beyond its limits.
            ConfigurationError, SinkUnavailable: ClickHouse cannot be reached; the message says what to do.
        """
        limits = limits or QueryLimits()
        if isinstance(self._target, ChdbTarget) and self._reader is None and not self.goes_through_worker:
            self._find_engine(self._target)
        if self.goes_through_worker and self._worker is not None:
            return self._worker.query(sql, limits.max_rows)
        if self._reader is None:
            self._reader = ClickHouseReader(self._settings)
        return self._reader.query_now(sql, limits)

    def _find_engine(self, target: ChdbTarget) -> None:
        """Whether to open the directory or to ask the worker. Opening one that is not there would make it."""
        if not target.directory.is_dir():
            raise ConfigurationError(
                f"there is no embedded ClickHouse at {target.directory}; "
                "start a worker or a demo first, or mend the directory"
            )
        if not is_held(target.directory):
            return
        if not is_running(self._worker):
            where = f" at {self._worker}" if self._worker is not None else ""
            raise ConfigurationError(
                f"the embedded ClickHouse at {target.directory} is held by another process, and no worker answers"
                f"{where}; wait until it has started, set worker.web_port to the worker's, or stop that process"
            )
        self.goes_through_worker = True

    def close(self) -> None:
        """Closes the connection."""
        if self._reader is not None:
            self._reader.close_now()


def asker_for(data_dir: Path | None) -> Asker:
    """Asks what the settings name, or the demo with this data directory.

    Raises:
        ConfigurationError: the settings are wrong, or there is no such directory.
    """
    settings = load_settings()
    if data_dir is None:
        return Asker(settings.clickhouse, worker_of_settings(settings))
    if not (data_dir / ENGINE_DIRECTORY).is_dir():
        raise ConfigurationError(
            f"--data-dir: {data_dir} holds no demo's data (no {ENGINE_DIRECTORY}/ in it); "
            "give the directory that `demo` printed"
        )
    dsn = f"chdb://{(data_dir / ENGINE_DIRECTORY).resolve()}"
    embedded = ClickHouseSettings.model_validate({**settings.clickhouse.model_dump(), "dsn": dsn})
    try:
        worker = worker_of_directory(data_dir)
    except CampaignStreamsError:
        return Asker(embedded, None)
    return Asker(embedded, worker)


def rows_of(data_dir: Path | None, view: str, sql: str, max_rows: int) -> list[dict[str, Any]]:
    """Rows by column, of a statement about one view, wherever ClickHouse is.

    Raises:
        ConfigurationError: as `asker_for`, `Asker.ask` and `ask_about`.
    """
    asker = asker_for(data_dir)
    try:
        answer = ask_about(asker, view, sql, QueryLimits(max_rows=max_rows))
    finally:
        asker.close()
    return named(answer)


def ask_about(asker: Asker, view: str, sql: str, limits: QueryLimits | None = None) -> QueryResult:
    """The answer to a statement about one view.

    Raises:
        ConfigurationError: ClickHouse holds no such view, or as `Asker.ask`.
    """
    try:
        return asker.ask(sql, limits)
    except QueryRefused:
        if not asker.ask(f"EXISTS VIEW {view}").rows[0][0]:
            text = f"{asker} has no view {view} yet: it is of an older version; start this version's worker once"
            raise ConfigurationError(text) from None
        raise


def named(answer: QueryResult) -> list[dict[str, Any]]:
    """An answer's rows by column."""
    return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]
