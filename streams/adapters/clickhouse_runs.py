"""Runs in ClickHouse: their rows beside the live ones, what is known of each, and which are published."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, NamedTuple

from streams.adapters.clickhouse import INSERT_SETTINGS, EngineHeld, connect
from streams.adapters.clickhouse_columns import columns_of
from streams.adapters.clickhouse_dsn import parse_dsn
from streams.adapters.clickhouse_errors import is_operating, mapped
from streams.adapters.clickhouse_migrations import migrate
from streams.errors import ConfigurationError
from streams.records import Row, Table
from streams.settings import ClickHouseSettings

TABLES: Final = (Table.PANES, Table.REPORTS, Table.COHORTS, Table.PACING, Table.ALERTS, Table.FLAGS)
"""Rows that a run has. The ledger and the settings are the topics' own; publishers' risks rest on a day before them."""
TIMED_BY: Final[dict[Table, str]] = {
    Table.PANES: "effect_pane",
    Table.REPORTS: "effect_pane",
    Table.COHORTS: "effect_pane",
    Table.PACING: "minute",
    Table.ALERTS: "changed",
    Table.FLAGS: "effect_pane",
}
"""By which column a row lies in a range."""
IDENTICAL: Final = "identical"
WHAT_IF: Final = "what_if"
RUN_COLUMNS: Final = (
    *("run", "kind", "state", "from_pane", "to_pane", "campaigns", "rules", "read_from", "records", "lost"),
    *("created", "changed", "note", "holder"),
)


class RunInfo(NamedTuple):
    """What is known of a run. Times are epoch seconds, but `changed_ms`."""

    run: str
    kind: str
    state: str
    from_s: int
    to_s: int
    campaigns: tuple[str, ...] = ()
    rules: str = ""
    read_from_s: int = 0
    records: int = 0
    lost: int = 0
    created_s: int = 0
    changed_ms: int = 0
    note: str = ""
    holder: str = ""
    """Machine and directory of the command that was last at work on it; empty: of an earlier version."""
    is_published: bool = False


class ClickHouseRuns:
    """Synchronous, with a client of its own: for commands."""

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._target = parse_dsn(settings.dsn.get_secret_value())
        self._types: dict[str, dict[str, str]] = {}
        self._client: Any = None

    def open(self) -> None:
        """Connects, and brings the schema to this version.

        Raises:
            ConfigurationError: DSN, rights or schema are wrong, or another process holds the embedded engine.
            SinkUnavailable: the server does not answer.
        """
        try:
            self._client = connect(self._settings)
        except EngineHeld:
            raise ConfigurationError(
                f"{self._target} is held by another process, most likely a worker, and replays and runs need it: stop "
                "it meanwhile, or let both use a ClickHouse server; or replay into an embedded directory of its own "
                "(another clickhouse.dsn), where live rows can neither be compared with nor replaced"
            ) from None
        self._guarded(lambda: migrate(self._client))

    def close(self) -> None:
        """Closes the connection."""
        if self._client is not None:
            self._client.close()

    # Rows

    def insert(self, run: str, table: Table, rows: Sequence[Row]) -> None:
        """Inserts a run's rows; again is harmless. `rows` in the order of COLUMNS[table]."""
        name = f"run_{table.value}"
        size = self._settings.max_rows_per_insert
        for start in range(0, len(rows), size):
            names, columns = columns_of(table, rows[start : start + size])
            types = self._types_of(name)
            context = self._client.create_insert_context(
                name,
                ["run", *names],
                column_type_names=[types["run"], *(types[each] for each in names)],
                column_oriented=True,
                settings=INSERT_SETTINGS,
                data=[[run] * len(columns[0]), *columns],
            )
            self._guarded(partial(self._client.insert, context=context))

    def has_rows(self, run: str) -> bool:
        """Whether any row of a run is there."""
        counted = (f"SELECT count() FROM run_{table.value} WHERE run = {{run:String}}" for table in TABLES)
        return any(int(self.ask(sql, {"run": run})[0][0]) for sql in counted)

    def _types_of(self, table: str) -> dict[str, str]:
        known = self._types.get(table)
        if known is None:
            described = self._client.query(f"DESCRIBE TABLE {table}").named_results()
            known = self._types[table] = {column["name"]: column["type"] for column in described}
        return known

    # What is known of runs

    def tell(self, info: RunInfo) -> None:
        """Tells the state of a run; the latest counts."""
        row = [
            *(info.run, info.kind, info.state, info.from_s, info.to_s, list(info.campaigns), info.rules),
            *(info.read_from_s, info.records, info.lost, info.created_s),
            *(datetime.fromtimestamp(info.changed_ms / 1000, UTC), info.note),
            info.holder,
        ]
        times = {"from_pane", "to_pane", "read_from", "created"}
        shown: list[Any] = [
            datetime.fromtimestamp(int(str(value)), UTC) if name in times else value
            for name, value in zip(RUN_COLUMNS, row, strict=True)
        ]
        self._guarded(lambda: self._client.insert("runs", [shown], column_names=RUN_COLUMNS, settings=INSERT_SETTINGS))

    def runs(self) -> list[RunInfo]:
        """All runs that were not dropped, the latest first."""
        sql = """
            SELECT run, kind, state, toUnixTimestamp(from_pane), toUnixTimestamp(to_pane), campaigns, rules,
                toUnixTimestamp(read_from), records, lost, toUnixTimestamp(created),
                toUnixTimestamp64Milli(changed), note, holder,
                run IN (SELECT run FROM publications FINAL WHERE is_published)
            FROM runs FINAL WHERE state != 'dropped' ORDER BY created DESC, run"""
        rows = self.ask(sql)
        return [RunInfo._make((*row[:5], tuple(row[5]), *row[6:14], bool(row[14]))) for row in rows]

    def find(self, run: str) -> RunInfo:
        """One run.

        Raises:
            ConfigurationError: there is none of this name; the message lists those that there are.
        """
        known = {info.run: info for info in self.runs()}
        if run not in known:
            names = ", ".join(list(known)[:10]) or "there is none yet"
            raise ConfigurationError(f"there is no run {run}; runs: {names}")
        return known[run]

    def drop(self, info: RunInfo, now_ms: int) -> None:
        """Removes a run's rows.

        Raises:
            ConfigurationError: it is published.
        """
        if self.published(info.run) is not None:
            raise ConfigurationError(f"run {info.run} is published; take it back first: `runs withdraw {info.run}`")
        for table in TABLES:
            self._command(f"DELETE FROM run_{table.value} WHERE run = {{run:String}}", {"run": info.run})
        self.tell(info._replace(state="dropped", changed_ms=now_ms))
        if self.published(info.run) is not None:  # by another machine, meanwhile: it has nothing to show any more
            self.publish(info, "runs drop", time.time_ns() // 1_000_000, is_published=False)

    def publish(self, info: RunInfo, who: str, now_ms: int, is_published: bool = True) -> None:
        """Puts a run's rows in the place of the live rows of its range, or takes them back: one row, one moment."""
        columns = ("run", "from_pane", "to_pane", "is_published", "who", "changed")
        times = [datetime.fromtimestamp(at, UTC) for at in (info.from_s, info.to_s)]
        row = [info.run, *times, is_published, who, datetime.fromtimestamp(now_ms / 1000, UTC)]
        self._guarded(lambda: self._client.insert("publications", [row], columns, settings=INSERT_SETTINGS))

    def published(self, run: str) -> RunInfo | None:
        """The range that a run stands for, whether the run itself is still there or was dropped; None: for none."""
        sql = """SELECT toUnixTimestamp(from_pane), toUnixTimestamp(to_pane) FROM publications FINAL
            WHERE is_published AND run = {run:String}"""
        found = self.ask(sql, {"run": run})
        return RunInfo(run, "", "", from_s=found[0][0], to_s=found[0][1], is_published=True) if found else None

    def overlapping(self, info: RunInfo) -> list[str]:
        """Published runs whose ranges meet this one's."""
        sql = """SELECT run FROM publications FINAL WHERE is_published AND run != {run:String}
            AND toUnixTimestamp(from_pane) < {to:UInt32} AND toUnixTimestamp(to_pane) > {from:UInt32}"""
        return [row[0] for row in self.ask(sql, {"run": info.run, "from": info.from_s, "to": info.to_s})]

    # Questions

    def ask(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        found: list[tuple[Any, ...]] = []

        def ask() -> None:
            found.extend(tuple(row) for row in self._client.query(sql, parameters=parameters or {}).result_rows)

        self._guarded(ask)
        return found

    def _command(self, sql: str, parameters: dict[str, Any]) -> None:
        self._guarded(lambda: self._client.command(sql, parameters=parameters))

    def _guarded(self, work: Any) -> None:
        try:
            work()
        except Exception as error:
            if not is_operating(error):
                raise
            raise mapped(error, self._target, "asking ClickHouse about runs") from None
