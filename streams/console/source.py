"""Asks ClickHouse for the console: bounded, and each question once while its answer is fresh.

Many viewers ask the same, and one engine also takes the rows: an answer is kept for a moment, and whoever asks
meanwhile waits for the same one.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from streams.adapters.clickhouse_query import ClickHouseReader, QueryLimits
from streams.settings import ClickHouseSettings

MAX_KEPT: Final = 200
MAX_ROWS: Final = 5_000
MAX_MEMORY_BYTES: Final = 1 << 29
Record = dict[str, Any]


class _Kept(NamedTuple):
    until: float
    answer: asyncio.Task[list[Record]]


class Source:
    """Answers in rows by column. Close it."""

    def __init__(self, settings: ClickHouseSettings, *, fresh_ms: int, timeout_s: float) -> None:
        self._reader = ClickHouseReader(settings)
        self._limits = QueryLimits(max_rows=MAX_ROWS, timeout_s=timeout_s, max_memory_bytes=MAX_MEMORY_BYTES)
        self._fresh_s = fresh_ms / 1000
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()

    async def rows(self, statement: str, values: Mapping[str, object] | None = None) -> list[Record]:
        """The answer, at most so old as `fresh_ms`.

        Raises:
            QueryRefused: it is beyond its limits.
            SinkUnavailable, ConfigurationError: ClickHouse does not answer.
        """
        bound = dict(values or {})
        key = statement.encode() + msgspec.json.encode(bound)
        now = time.monotonic()
        kept = self._kept.get(key)
        if kept is None or kept.until < now or (kept.answer.done() and kept.answer.exception() is not None):
            kept = self._kept[key] = _Kept(now + self._fresh_s, asyncio.create_task(self._ask(statement, bound)))
        self._kept.move_to_end(key)
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return await asyncio.shield(kept.answer)  # who asked first may leave; the others still wait

    async def _ask(self, statement: str, values: dict[str, object]) -> list[Record]:
        answer = await self._reader.ask(statement, values, self._limits)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    async def close(self) -> None:
        """Waits for what is being asked."""
        await self._reader.close()
