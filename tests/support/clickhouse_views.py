"""Fill the tables of a test's database and ask its views."""

from typing import Any, Self

from streams.adapters.clickhouse import ClickHouseSink, connect
from streams.adapters.clickhouse_query import ClickHouseReader
from streams.records import Row, Table
from streams.settings import ClickHouseSettings


class Database:
    """A database with this version's schema, filled and asked as the product does."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self.settings = settings
        self._sink = ClickHouseSink(settings)
        self._reader = ClickHouseReader(settings)
        self._client: Any = None

    async def __aenter__(self) -> Self:
        self._client = connect(self.settings)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sink.close()
        await self._reader.close()
        self._client.close()

    async def fill(self, table: Table, *rows: Row) -> None:
        """Inserts rows, each by itself, so that nothing is merged yet."""
        for row in rows:
            await self._sink.insert(table, [row])

    async def fill_at_once(self, table: Table, *rows: Row) -> None:
        """Inserts rows of different keys by one statement: much quicker."""
        await self._sink.insert(table, rows)

    async def ask(self, sql: str) -> list[dict[str, Any]]:
        """The answer's rows by column."""
        answer = await self._reader.query(sql)
        return [dict(zip(answer.columns, row, strict=True)) for row in answer.rows]

    async def one(self, sql: str) -> dict[str, Any]:
        """The only row of an answer."""
        rows = await self.ask(sql)
        assert len(rows) == 1, rows
        return rows[0]

    def command(self, sql: str, **options: Any) -> None:
        """Does what the product does not: for a test's own preparations."""
        self._client.command(sql, **options)
