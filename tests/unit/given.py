"""What unit tests of the pure core start from: documents, records, ranges, and one partition that is fed and ticked.

Documents are plain dictionaries and rows are read by column name, so that a test states its input and its numbers.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from streams.adapters.memory import MemoryRecord
from streams.events import Input
from streams.records import COLUMNS, KEY_COLUMNS, MEASURES, DeadLetter, Table
from streams.rules import Horizon, Rules
from streams.state.inputs import Batch
from streams.state.journal import Tick
from streams.state.partition import Output, PartitionState
from streams.topics import CAMPAIGNS, INPUT_TOPICS

T0: Final = 1_700_002_800_000
"""Where tests begin: 2023-11-14 23:00:00 UTC, a full hour, epoch ms."""
SECOND: Final = 1_000
MINUTE: Final = 60_000
HOUR: Final = 3_600_000
DAY: Final = 86_400_000

Document = dict[str, Any]

_BODIES: Final[dict[Input, Document]] = {
    Input.IMPRESSIONS: {},
    Input.PLAYS: {"milestone": "start"},
    Input.CLICKS: {"click_type": "card"},
    Input.CONVERSIONS: {"conversion_type": "order"},
    Input.ADJUSTMENTS: {
        "adjustment_type": "refund",
        "adjusted_event_id": "order-1",
        "adjusted_event_time_ms": T0,
    },
    Input.ENGAGEMENTS: {"engagement_type": "like"},
}


def document(source: Input, event_id: str, at_ms: int = T0, **fields: Any) -> Document:
    """A sound event of an input; a field given as None is left out."""
    whole = {"event_id": event_id, "event_time_ms": at_ms, "campaign_id": "c1", **_BODIES[source], **fields}
    return {name: value for name, value in whole.items() if value is not None}


def encoded(content: Document | bytes | None) -> bytes | None:
    """A record's value: documents as JSON, bytes and None as they are."""
    return json.dumps(content).encode() if isinstance(content, dict) else content


def record(offset: int, content: Document | bytes | None, timestamp_ms: int | None = None) -> MemoryRecord:
    """A record whose own timestamp is its event's time, unless told otherwise."""
    if timestamp_ms is None:
        time = content.get("event_time_ms") if isinstance(content, dict) else None
        timestamp_ms = time if isinstance(time, int) else T0
    return MemoryRecord(offset, timestamp_ms, b"c1", encoded(content))


def batch(topic: str, from_offset: int, contents: Iterable[Document | bytes | MemoryRecord | None]) -> Batch:
    """A range without gaps. A `MemoryRecord` among the contents keeps everything but its offset."""
    records = []
    for offset, content in enumerate(contents, start=from_offset):
        is_record = isinstance(content, MemoryRecord)
        records.append(content._replace(offset=offset) if is_record else record(offset, content))
    return Batch(topic, 0, from_offset, from_offset + len(records), records)


def quick_rules(**changes: Any) -> Rules:
    """The default rules, except that reports are published at every tick."""
    return Rules(**{"report_every_ms": 1, **changes})


def with_horizon(source: Input, lateness_ms: int, dedupe_ms: int, max_ids: int = 1_000_000) -> dict[Input, Horizon]:
    """The default horizons with one changed."""
    return {**Rules().horizons, source: Horizon(lateness_ms, dedupe_ms, max_ids)}


class Fed:
    """A partition's state that is fed documents and ticked, as its owner would."""

    def __init__(self, rules: Rules | None = None, partition: int = 0, partitions: int = 1) -> None:
        self.state = PartitionState(partition, partitions, 0, rules or quick_rules())
        self.wall_ms = T0
        self.rows: dict[Table, dict[tuple[Any, ...], Document]] = {table: {} for table in Table}
        """The last row of each key, by column name."""
        self.letters: list[DeadLetter] = []

    def feed(self, source: Input, *contents: Document | bytes | MemoryRecord | None) -> "Fed":
        """One batch of an input."""
        topic = INPUT_TOPICS[source]
        self.state.apply(batch(topic, self.state.position(topic), contents))
        return self

    def settle(self, campaign_id: str = "c1", appended_ms: int = T0, **fields: Any) -> "Fed":
        """A version of a campaign's settings, as one record."""
        content = {"campaign_id": campaign_id, "currency": "USD", **fields}
        found = record(self.state.position(CAMPAIGNS), content, appended_ms)
        self.state.apply(Batch(CAMPAIGNS, 0, found.offset, found.offset + 1, [found]))
        return self

    def tick(self, rules: Rules | None = None, is_catching_up: bool = False) -> dict[Table, list[Document]]:
        """A tick a second later; returns its rows by column name, without their version."""
        self.wall_ms += SECOND
        seq, positions = self.state.seq + 1, self.state.positions()
        tick = Tick("claim", seq, self.wall_ms, positions, rules=rules, is_catching_up=is_catching_up)
        output: Output = self.state.tick(tick)
        self.letters.extend(output.dead_letters)
        rows = {table: [named(table, row) for row in output.rows.get(table, [])] for table in Table}
        for table, found in rows.items():
            for row in found:
                self.rows[table][_key(table, row)] = row
        return rows

    def one(self, table: Table = Table.PANES) -> Document:
        """The only row of a table."""
        (row,) = self.rows[table].values()
        return row

    def total(self, measure: str, table: Table = Table.PANES) -> int:
        """A measure's sum over all rows that stand."""
        return sum(row[measure] for row in self.rows[table].values())

    def ledger(self, source: Input) -> dict[str, int]:
        """Entries by `entry` or `entry/reason`."""
        entries = self.state.inputs[source].ledger.items()
        return {f"{entry}/{reason}" if reason else entry: count for (entry, reason), count in entries}


def named(table: Table, row: tuple[Any, ...]) -> Document:
    """A row without its version, by column name."""
    return dict(zip(COLUMNS[table][:-1], row, strict=True))


def _key(table: Table, row: Document) -> tuple[Any, ...]:

    return tuple(row[name] for name in KEY_COLUMNS[table])


def nonzero(row: Document) -> Document:
    """The measures of a row that are not zero; how many events were judged is left out."""

    return {name: row[name] for name in MEASURES if row[name] and name not in ("judged", "undecided")}
