"""Questions to ClickHouse that cannot change anything: for the command `query`, the API and the console.

What keeps them harmless is the engine, not a guess at the text: `readonly = 1` in the session (no writing, no DDL, no
setting, no table function that reaches a file or a network) with limits of time, memory and rows that a query cannot
raise. The engine's own parser refuses several statements in one, and shows what readonly lets through.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse import connect
from streams.adapters.clickhouse_dsn import parse_dsn
from streams.adapters.clickhouse_errors import ACCESS_CODES, brief, is_operating, mapped
from streams.errors import QueryRefused
from streams.settings import ClickHouseSettings

MAX_SQL_CHARS: Final = 100_000
MAX_AT_ONCE: Final = 2
_HEADROOM_ROWS: Final = 100_000
_READS: Final = re.compile(r"\(*\s*(SELECT|WITH|SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN)\b", re.IGNORECASE)
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\"", re.DOTALL)
_ESCAPES: Final = re.compile(r"\bINTO\s+OUTFILE\b|\bPYTHON\s*\(", re.IGNORECASE)
_UNAVAILABLE: Final = frozenset({202, 209, 210, 236, 242, 439, 999})
"""Errors that are not the query's fault: too many queries, network, aborted, read-only tables, no threads, Keeper."""


class QueryLimits(NamedTuple):
    """What one query may cost."""

    max_rows: int = 10_000
    timeout_s: float = 30.0
    max_memory_bytes: int = 1 << 30


class QueryResult(NamedTuple):
    """Columns, their ClickHouse types, and rows of plain JSON values (times are text, in the column's time zone)."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool
    """Whether there are more rows than the limit."""


class ClickHouseReader:
    """Answers queries in its own threads, with clients of its own, beside a sink in the same process."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._target = parse_dsn(settings.dsn.get_secret_value())
        self._threads = ThreadPoolExecutor(max_workers=MAX_AT_ONCE, thread_name_prefix="clickhouse-query")
        self._idle: list[tuple[QueryLimits, Any]] = []
        self._lock = Lock()

    async def query(self, sql: str, limits: QueryLimits | None = None) -> QueryResult:
        """Answers one statement: SELECT, WITH, SHOW, DESCRIBE, EXISTS or EXPLAIN.

        Raises:
            QueryRefused: the query is wrong, would change something, or is beyond its limits.
            SinkUnavailable: ClickHouse does not answer.
            ConfigurationError: the database cannot be opened.
        """
        work: Callable[[], QueryResult] = lambda: self.query_now(sql, limits)  # noqa: E731 - a name for the type
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def ask(self, statement: str, values: Mapping[str, Any], limits: QueryLimits) -> QueryResult:
        """Answers a statement of this program, in which `{name:Type}` stands for a value. Raises as `query` does."""
        work: Callable[[], QueryResult] = lambda: self._answer(statement, limits, values)  # noqa: E731
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def query_now(self, sql: str, limits: QueryLimits | None = None) -> QueryResult:
        """The same, waiting for the answer in the calling thread."""
        if len(sql) > MAX_SQL_CHARS:
            raise QueryRefused(f"the query has {len(sql)} characters, at most {MAX_SQL_CHARS} are taken; shorten it")
        return self._answer(sql, limits or QueryLimits(), None)

    def _answer(self, sql: str, limits: QueryLimits, values: Mapping[str, Any] | None) -> QueryResult:
        """`values` is None for what a person wrote: that is looked at first."""
        client = self._borrow(limits)
        try:
            if values is None:
                _check(client, sql)
            bound = dict(values) if values else None
            answer = client.raw_query(sql.strip().rstrip("; \t\n"), parameters=bound, fmt="JSONCompact")
            result = _result(answer, limits.max_rows)
        except Exception as error:
            client.close()  # chdb may hold a half-written answer
            if isinstance(error, QueryRefused) or not is_operating(error):
                raise
            raise self._explained(error) from None
        with self._lock:
            self._idle.append((limits, client))
        return result

    def _borrow(self, limits: QueryLimits) -> Any:
        with self._lock:
            for at, (held, client) in enumerate(self._idle):
                if held == limits:
                    del self._idle[at]
                    return client
            idle, self._idle = self._idle, []
        for _, client in idle:
            client.close()
        return connect(self._settings, create_database=False, session=_session(limits))

    def _explained(self, error: Exception) -> Exception:
        code = getattr(error, "code", None)
        if code is None or code in _UNAVAILABLE:
            return mapped(error, self._target, "asking ClickHouse")
        text = brief(error, self._target)
        if code in ACCESS_CODES:
            return QueryRefused(f"{text}; only questions are answered here")
        return QueryRefused(f"{text}; mend the query or narrow it")

    async def close(self) -> None:
        """Waits for queries that run, and closes the clients."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """The same, waiting in the calling thread."""
        self._threads.shutdown()
        with self._lock:
            idle, self._idle = self._idle, []
        for _, client in idle:
            client.close()


def _session(limits: QueryLimits) -> dict[str, Any]:
    """Settings of a session in which nothing can be changed; `readonly` comes last, for it locks the others."""
    return {
        "max_execution_time": limits.timeout_s,
        "max_memory_usage": limits.max_memory_bytes,
        "max_result_rows": limits.max_rows + _HEADROOM_ROWS,
        "result_overflow_mode": "break",
        "limit": limits.max_rows + 1,
        "output_format_json_quote_64bit_integers": 0,
        "output_format_json_quote_denormals": 0,
        "readonly": 1,
    }


def _check(client: Any, sql: str) -> None:
    """Refuses what readonly lets through: other statements than questions, writing a file, Python's own objects."""
    parsed = client.query("SELECT formatQuerySingleLine({sql:String})", parameters={"sql": sql}).result_rows
    bare = _QUOTED.sub("''", str(parsed[0][0]))
    if not _READS.match(bare):
        raise QueryRefused("only SELECT, WITH, SHOW, DESCRIBE, EXISTS and EXPLAIN are answered here; ask a question")
    escape = _ESCAPES.search(bare)
    if escape:
        raise QueryRefused(f"{escape.group().rstrip('(')} is not answered here; leave it out")


def _result(answer: bytes, max_rows: int) -> QueryResult:
    document = json.loads(answer)
    meta, data = document["meta"], document["data"]
    return QueryResult(
        columns=tuple(column["name"] for column in meta),
        types=tuple(column["type"] for column in meta),
        rows=[tuple(row) for row in data[:max_rows]],
        truncated=len(data) > max_rows,
    )
