"""What commands ask, answered by the test's own embedded engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from streams.adapters.clickhouse_query import ClickHouseReader, QueryLimits, QueryResult
from streams.commands import asking
from streams.settings import ClickHouseSettings
from tests.support.clickhouse_views import Database


class ReaderAsker:
    """Asks the test's database; this process holds its engine already."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._reader = ClickHouseReader(settings)

    def __str__(self) -> str:
        return "chdb:///test"

    def ask(self, sql: str, limits: QueryLimits | None = None) -> QueryResult:
        """The answer."""
        return self._reader.query_now(sql, limits)

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close_now()


@asynccontextmanager
async def asked_database(settings: ClickHouseSettings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """A migrated database, which commands ask from now on."""
    monkeypatch.setattr(asking, "asker_for", lambda _: ReaderAsker(settings))
    async with Database(settings) as opened:
        yield opened
