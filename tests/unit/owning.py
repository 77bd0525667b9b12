"""Owners for unit tests: one partition's logs, journal, store and outbox in memory, any of which may fail on demand."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from streams.adapters.memory import MemoryCheckpointStore, MemoryJournal, MemoryLog, MemoryOutbox
from streams.adapters.memory_sink import MemorySink
from streams.errors import BrokerUnavailable
from streams.events import Input
from streams.ports import JournalRecord, Outgoing
from streams.records import DeadLetter, Row, Table
from streams.rules import Rules
from streams.state.inputs import Batch
from streams.state.journal import Entry, Tick, decode
from streams.state.owner import Owner, OwnerConfig, Ports
from streams.state.partition import TOPICS
from streams.state.pins import NO_PINS, Pins
from streams.topics import CAMPAIGNS, DEAD_LETTERS, INPUT_TOPICS
from tests.unit.given import SECOND, T0, Document, encoded, quick_rules

BEFORE, AFTER = "before", "after"
"""When a call fails: before it took effect, or after."""


MAX_EMPTY_READS = 1_000


class Faults:
    """Which of the next calls of a method fail, first to last; None: it does not."""

    def __init__(self) -> None:
        self.due: dict[str, deque[str | None]] = {}
        self.calls: list[tuple[str, Any]] = []
        """Every call that took effect: the method, and its key or count."""

    def plan(self, method: str, *outcomes: str | None) -> None:
        self.due.setdefault(method, deque()).extend(outcomes)

    async def run(self, method: str, told: Any, call: Callable[[], Awaitable[Any]]) -> Any:
        waiting = self.due.get(method)
        outcome = waiting.popleft() if waiting else None
        if outcome == BEFORE:
            raise BrokerUnavailable(f"{method} was told to fail; try again")
        found = await call()
        self.calls.append((method, told))
        if outcome == AFTER:
            raise BrokerUnavailable(f"{method} was told to fail after it took effect; try again")
        return found


class FaultyJournal:
    """A journal in memory that fails when told."""

    def __init__(self, faults: Faults) -> None:
        self.memory, self.faults = MemoryJournal(), faults
        self._empty_reads = 0

    async def beginning(self, partition: int) -> int:
        return await self.memory.beginning(partition)

    async def append(self, partition: int, value: bytes) -> None:
        await self.faults.run("append", decode(value), lambda: self.memory.append(partition, value))

    async def read(self, partition: int, from_offset: int) -> Sequence[JournalRecord]:
        found: Sequence[JournalRecord] = await self.faults.run(
            "read", from_offset, lambda: self.memory.read(partition, from_offset)
        )
        self._empty_reads = 0 if found else self._empty_reads + 1
        assert self._empty_reads < MAX_EMPTY_READS, "somebody waits for ever for a record that never comes"
        return found


class FaultyStore(MemoryCheckpointStore):
    """A checkpoint store in memory that fails when told, and tells what was asked of it in order."""

    def __init__(self, faults: Faults) -> None:
        super().__init__()
        self.faults = faults

    async def put(self, partition: int, key: str, data: bytes) -> str:
        put = super().put
        found: str = await self.faults.run("put", key, lambda: put(partition, key, data))
        return found

    async def put_manifest(self, partition: int, key: str, data: bytes) -> None:
        put = super().put_manifest
        await self.faults.run("put_manifest", key, lambda: put(partition, key, data))

    async def delete(self, partition: int, keys: Sequence[str]) -> None:
        delete = super().delete
        await self.faults.run("delete", list(keys), lambda: delete(partition, keys))


class FaultyOutbox(MemoryOutbox):
    """An outbox in memory that fails when told."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(partitions=1)
        self.faults = faults

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        publish = super().publish
        await self.faults.run("publish", len(messages), lambda: publish(messages))


class World:
    """One partition and everything around it."""

    def __init__(self, rules: Rules | None = None, checkpoint_ms: int = SECOND, pins: Pins = NO_PINS) -> None:
        self.rules = rules or quick_rules()
        self.checkpoint_ms, self.pins = checkpoint_ms, pins
        self.faults = Faults()
        self.journal, self.store, self.outbox = (
            FaultyJournal(self.faults),
            FaultyStore(self.faults),
            FaultyOutbox(self.faults),
        )
        self.log, self.sink = MemoryLog(), MemorySink()
        self.now_ms = T0
        self._claims = 0

    # Input

    def produce(self, source: Input, *contents: Document | bytes | None) -> None:
        """Appends records; each one's own timestamp is its event time, or now."""
        for content in contents:
            time = content.get("event_time_ms") if isinstance(content, dict) else None
            timestamp = time if isinstance(time, int) else self.now_ms
            self.log.append(INPUT_TOPICS[source], 0, encoded(content), key=b"c1", timestamp_ms=timestamp)

    def settle(self, campaign_id: str = "c1", **fields: Any) -> None:
        """Appends a version of a campaign's settings."""
        content = {"campaign_id": campaign_id, "currency": "USD", **fields}
        self.log.append(CAMPAIGNS, 0, encoded(content), key=campaign_id.encode(), timestamp_ms=self.now_ms)

    def fetch(self, topic: str, from_offset: int, limit: int = 1_000) -> Batch:
        """What a consumer would get."""
        records = self.log.read(topic, 0, from_offset, limit)
        to_offset = records[-1].offset + 1 if len(records) == limit else self.log.end(topic, 0)
        return Batch(topic, 0, from_offset, to_offset, list(records))

    def feed(self, owner: Owner, limit: int = 1_000) -> None:
        """Offers everything that there is, in ranges of at most `limit` records, following where the owner points."""
        for topic in TOPICS:
            while owner.expected[topic] < self.log.end(topic, 0):
                before = owner.expected[topic]
                owner.offer(self.fetch(topic, before, limit))
                if owner.expected[topic] == before:  # it is broken and takes nothing until it has been reloaded
                    break

    # Owners

    def owner(self) -> Owner:
        """A new owner with a claim of its own; not opened."""
        self._claims += 1
        name = f"claim{self._claims}"
        config = OwnerConfig(1, 0, f"worker of {name}", self.rules, self.checkpoint_ms, pins=self.pins)
        return Owner(0, config, Ports(self.journal, self.store, self.outbox), lambda: name)

    async def opened(self) -> Owner:
        """A new owner that has claimed the partition."""
        owner = self.owner()
        await owner.open(dict.fromkeys(TOPICS, 0), self.log.end(CAMPAIGNS, 0), self.now_ms)
        return owner

    async def tick(self, owner: Owner) -> bool:
        """A second later: a tick."""
        self.now_ms += SECOND
        return await owner.advance(self.now_ms)

    async def step(self, owner: Owner) -> None:
        """Feeds, ticks, and writes the checkpoint that is due."""
        self.feed(owner)
        await self.tick(owner)
        await owner.checkpoint()

    async def settled(self, owner: Owner) -> None:
        """Feeds and ticks until nothing is left to do."""
        for _ in range(50):
            self.feed(owner)
            await self.tick(owner)
            if owner.must_seek:
                owner.must_seek = False
            at_end = all(owner.state.position(topic) == self.log.end(topic, 0) for topic in TOPICS)
            if at_end and owner.is_settled and not owner.is_recovering:
                await owner.advance(self.now_ms)
                return
        raise AssertionError("this owner does not come to rest")

    async def flush(self, owner: Owner) -> None:
        """Inserts what is dirty, and acknowledges it."""
        for table in Table:
            rows = owner.dirty.take(table, 1_000_000)
            await self.sink.insert(table, rows)
            owner.dirty.acknowledge(table, rows)

    # What can be seen

    def entries(self) -> list[Entry]:
        """The journal."""
        return [decode(record.value or b"") for record in self.journal.memory.log.read("journal", 0, 0)]

    def ticks(self) -> list[Tick]:
        """The journal's ticks, void ones too."""
        return [entry for entry in self.entries() if isinstance(entry, Tick)]

    def letters(self) -> list[DeadLetter]:
        """The dead letters sent."""
        records = self.outbox.log.read(DEAD_LETTERS, 0, 0)
        return [msgspec.json.decode(record.value or b"", type=DeadLetter) for record in records]

    def manifests(self) -> list[str]:
        """Keys of the manifests stored."""
        return list(self.store.named[0])


def dirty_rows(owner: Owner) -> set[tuple[Table, str]]:
    """What waits for ClickHouse, versions included, in a form that can be compared."""
    return {(table, repr(plain(row))) for table in Table for row in owner.dirty.take(table, 1_000_000)}


def plain(row: Row) -> Row:
    """A row with its lists as tuples: rows from a checkpoint have lists where live ones may have either."""
    return tuple(tuple(value) if isinstance(value, list) else value for value in row)
